"""A model's preprocessing, and what a user may change about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast, get_args

from camcli.errors import ConfigError, UnknownName
from camcli.records import Centring, Fit, Interpolation, Preprocessing

Size = tuple[int, int]
# what changes a model's preprocessing, or takes its place: a transform, an image processor
PreprocessingLike: TypeAlias = Mapping[str, Any] | Preprocessing | Callable[..., Any]

# beyond, normalised pixels and sizes leave the range of the numbers that hold them
SMALLEST_STD, SMALLEST_CROP = 1e-6, 1e-3


def compute_scale(size: tuple[int, int], crop_pct: float) -> tuple[int, int]:
    """Returns the size to resize to before `size` is cut out, as timm rounds it.

    Raises ConfigError for a share in which nothing would be seen.
    """
    if not crop_pct >= SMALLEST_CROP:
        raise ConfigError(f"crop_pct takes a number from {SMALLEST_CROP:g} to 1, not {crop_pct!r}.")
    return math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct)


def compute_resized_size(picture_size: Size, preprocessing: Preprocessing) -> Size:
    """Returns the size (height, width) that a picture has before the view is cut out of it."""
    return SIZE_RULES[preprocessing.fit](picture_size, preprocessing.scale)


def compute_centre_offset(length: int, view_edge: int, centring: Centring = "nearest") -> int:
    """Returns where a centred view begins, negative where it is longer than the picture."""
    if view_edge > length:
        return -((view_edge - length) // 2)
    # torchvision's CenterCrop rounds halves to the even number
    return (length - view_edge) // 2 if centring == "down" else round((length - view_edge) / 2)


def _scale_shorter_edge(picture_size: Size, scale: Size) -> Size:
    height, width = picture_size
    if scale[0] != scale[1]:  # timm's ResizeKeepRatio
        return _divide(picture_size, min(height / scale[0], width / scale[1]))
    edge = scale[0]  # torchvision's Resize cuts the fraction off
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _scale_longer_edge(picture_size: Size, scale: Size) -> Size:
    return _divide(picture_size, max(picture_size[0] / scale[0], picture_size[1] / scale[1]))


def _divide(size: Size, ratio: float) -> Size:
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


def _scale_both_edges(picture_size: Size, scale: Size) -> Size:  # noqa: ARG001
    return scale


SIZE_RULES: Mapping[Fit, Callable[[Size, Size], Size]] = {
    "crop": _scale_shorter_edge,
    "pad": _scale_longer_edge,
    "squash": _scale_both_edges,
}


def fit_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Fits a mean or std to a number of channels: repeated as often as it fits, else averaged."""
    repeats, rest = divmod(channels, len(values))
    if not rest:
        return tuple(float(value) for value in values) * repeats
    return (float(sum(values) / len(values)),) * channels


def fit_view(preprocessing: Preprocessing, channels: int) -> Preprocessing:
    """Fits a view's mean and std to a number of channels."""
    mean, std = (fit_channels(v, channels) for v in (preprocessing.mean, preprocessing.std))
    return replace(preprocessing, mean=mean, std=std)


def change_fit(preprocessing: Preprocessing, fit: Fit) -> Preprocessing:
    """Chooses another view; `squash` and `pad` then show the whole picture."""
    if fit not in get_args(Fit):
        raise UnknownName("fit", fit, get_args(Fit), f"All: {', '.join(get_args(Fit))}")
    scale = preprocessing.scale if fit == "crop" else preprocessing.size
    return replace(preprocessing, fit=fit, scale=scale)


def change_preprocessing(
    preprocessing: Preprocessing, fit: Fit | None, changes: Mapping[str, Any]
) -> Preprocessing:
    """Applies a user's changes; raises UnknownName or ConfigError, also for the model's own."""
    if fit is not None:
        preprocessing = change_fit(preprocessing, fit)
    for key, value in changes.items():
        if key not in CHANGES:
            hint = f"All: {', '.join(CHANGES)}"
            raise UnknownName("preprocessing key", key, CHANGES, hint)
        preprocessing = CHANGES[key](preprocessing, key, value)
    std = preprocessing.std
    if not all(SMALLEST_STD <= value <= 1 / SMALLEST_STD for value in std):
        raise ConfigError(
            f"std is of colours from 0 to 1, and from {SMALLEST_STD:g} to {1 / SMALLEST_STD:g}, "
            f"not {std!r}: give --std."
        )
    return preprocessing


def _change_channel_values(preprocessing: Preprocessing, key: str, value: Any) -> Preprocessing:
    channels = len(preprocessing.mean)
    counts = sorted({1, channels} if channels % 3 else {1, 3, channels})
    given = [value] if isinstance(value, int | float) else value
    if (
        not isinstance(given, list | tuple)
        or len(given) not in counts
        or not all(isinstance(v, int | float) and math.isfinite(v) for v in given)
        or (key == "std" and min(given) <= 0)
    ):
        sign = "positive " if key == "std" else ""
        numbers = "number" if counts == [1] else "numbers"
        takes = f"{' or '.join(map(str, counts))} {sign}{numbers}"
        raise ConfigError(f"{key} takes {takes} for this model's input, not {value!r}.")
    if key == "mean" and not -1 <= min(given) <= max(given) <= 1:
        raise ConfigError(
            f"mean is of colours from 0 to 1, not {value!r}: divide mean and std by 255."
        )
    values = fit_channels(given, channels)
    if key == "mean":
        return replace(preprocessing, mean=values)
    return replace(preprocessing, std=values)


def _change_interpolation(preprocessing: Preprocessing, key: str, value: Any) -> Preprocessing:
    if value not in get_args(Interpolation):
        hint = f"All: {', '.join(get_args(Interpolation))}"
        raise UnknownName(key, str(value), get_args(Interpolation), hint)
    return replace(preprocessing, interpolation=cast(Interpolation, value))


def _change_crop_pct(preprocessing: Preprocessing, key: str, value: Any) -> Preprocessing:
    if not isinstance(value, int | float) or not SMALLEST_CROP <= value <= 1:
        raise ConfigError(f"{key} takes a number from {SMALLEST_CROP:g} to 1, not {value!r}.")
    return replace(preprocessing, scale=compute_scale(preprocessing.size, value))


CHANGES: Mapping[str, Callable[[Preprocessing, str, Any], Preprocessing]] = {
    "mean": _change_channel_values,
    "std": _change_channel_values,
    "interpolation": _change_interpolation,
    "crop_pct": _change_crop_pct,
}
