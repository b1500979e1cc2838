"""What a network sees of a picture: by its library's word, a user's changes, or a transform."""

from camcli.models.preprocessing.view_rules import (
    PreprocessingLike,
    change_preprocessing,
    compute_centre_offset,
    compute_resized_size,
    compute_scale,
    fit_channels,
    fit_view,
)

__all__ = [
    "PreprocessingLike",
    "change_preprocessing",
    "compute_centre_offset",
    "compute_resized_size",
    "compute_scale",
    "fit_channels",
    "fit_view",
]

# what else other rooms may import: these import torchvision
PUBLIC = (
    "image_resizing.resize_as_torchvision",
    "measured_view.MeasuredView",
    "measured_view.measure_view",
    "transforms.read_preprocessing",
)
