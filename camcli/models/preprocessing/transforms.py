"""Reads preprocessing as people have it: numbers, a transform, or an image processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ModelError, UsageError
from camcli.models.preprocessing.measured_view import (
    TRIAL,
    MeasuredView,
    Resampling,
    draw_noise,
    measure_view,
    run_on_picture,
)
from camcli.models.preprocessing.view_rules import PreprocessingLike
from camcli.models.state import keep_random_state
from camcli.records import Preprocessing

Size: TypeAlias = tuple[int, int]

# what torchvision's and timm's transforms resize with, the likeliest first
RESAMPLINGS: tuple[Resampling, ...] = (
    ("bilinear", "pillow"), ("bicubic", "pillow"), ("bilinear", "torchvision"),
    ("bicubic", "torchvision"), ("nearest", "pillow"), ("lanczos", "pillow"), ("box", "pillow"),
    ("hamming", "pillow"),
)  # fmt: skip


def read_preprocessing(given: PreprocessingLike, size: Size | None) -> MeasuredView | None:
    """Returns the view that a transform makes, None for a dictionary that changes the model's own.

    A `Preprocessing` is taken as it is; a function of a picture (torchvision's and timm's
    transforms), or an image processor of transformers, is run on pictures, and measured.  `size`
    (height, width) is for one that leaves pictures their shape.

    Raises UsageError for what is none of these or has another size, and ModelError for a transform
    that gives no picture, or another one each time.
    """
    if isinstance(given, Mapping):
        return None
    if isinstance(given, Preprocessing):
        view = MeasuredView(given)
    elif _is_processor(given):
        from camcli.models.hugging_face.networks import undo_patches

        view = measure_view(undo_patches(given), size)
    elif callable(given):
        view = _measure_transform(given, size)
    else:
        raise UsageError(
            "preprocessing is a dictionary (mean, std, interpolation, fit, crop_pct), a "
            "camcli.records.Preprocessing, a transform of pictures, or an image processor of "
            f"transformers, not a {type(given).__name__}."
        )
    if size is not None and view.preprocessing.size != size:
        height, width = view.preprocessing.size
        raise UsageError(
            f"The preprocessing makes pictures of {height}x{width}, and img_size is "
            f"{size[0]}x{size[1]}: leave one of them out."
        )
    return view


def _is_processor(given: Any) -> bool:
    """Tells whether something is an image processor of transformers, without importing that."""
    homes = (base.__module__.partition(".")[0] for base in type(given).__mro__)
    return hasattr(given, "image_mean") and "transformers" in homes


def _measure_transform(transform: Callable[..., Any], size: Size | None) -> MeasuredView:
    """Measures what a transform makes of pictures.

    Raises ModelError for one that draws at random, as those of training do.
    """
    processor = _Transform(transform)
    with keep_random_state():
        once, again = (run_on_picture(processor, draw_noise(TRIAL)) for _ in range(2))
    if once.shape != again.shape or not np.array_equal(once, again):
        raise ModelError(
            f"{type(transform).__name__} makes another picture each time, as transforms of training"
            " do: give the one that the model is evaluated with."
        )
    return measure_view(processor, size, RESAMPLINGS)


class _Transform:
    """Gives a function of a picture the form of an image processor."""

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.processor = transform

    def __call__(self, images: Image.Image, return_tensors: str) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        made = self.processor(images)
        if isinstance(made, Image.Image):
            raise ModelError(
                f"{type(self.processor).__name__} gives a picture and no tensor: end it with "
                "ToTensor and Normalize, as the model is evaluated."
            )
        values = np.asarray(made)
        return {"pixel_values": values[None] if values.ndim == 3 else values}
