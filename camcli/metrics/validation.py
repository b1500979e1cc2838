"""Refuses maps and images of a wrong shape, or with NaN or infinity."""

from __future__ import annotations

from torch import Tensor

from camcli.errors import UsageError


def check_maps(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Checks maps [b H W] and returns them detached, in float32 or float64.

    Raises UsageError for another shape, another size than `size`, integers, NaN or infinity.
    """
    if maps.ndim != 3 or not maps.numel():
        raise UsageError(
            f"Maps of one picture have the shape [b H W], not {list(maps.shape)}: stack them, one "
            "map a row."
        )
    if not maps.is_floating_point():
        raise UsageError(f"Maps hold floating-point numbers, not {maps.dtype}: give maps.float().")
    if size is not None and tuple(maps.shape[-2:]) != size:
        raise UsageError(
            f"Maps have the size {_name_size(maps)}, and the picture {size[0]}x{size[1]}: enlarge "
            "the maps first."
        )
    finite = maps.isfinite().flatten(1).all(1)
    if not finite.all():
        rows = (~finite).nonzero().flatten().tolist()
        raise UsageError(
            f"Maps {rows} hold NaN or infinity, so their pixels cannot be ranked: leave them out."
        )
    return maps.detach().float() if maps.element_size() < 4 else maps.detach()


def check_unit_maps(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Checks maps as `check_maps` does; raises UsageError for values below 0 or above 1, too."""
    maps = check_maps(maps, size)
    low, high = float(maps.amin()), float(maps.amax())
    if low < 0 or high > 1:
        raise UsageError(
            f"Maps must lie between 0 and 1 here, not between {low:.4g} and {high:.4g}: normalise "
            "them first."
        )
    return maps


def check_image(image: Tensor) -> Tensor:
    """Checks an image [c H W] and returns it detached; raises UsageError for anything else."""
    if image.ndim != 3 or not image.is_floating_point() or not image.numel():
        raise UsageError(
            f"A picture is the network's input, floating-point numbers [c H W], not {image.dtype} "
            f"{list(image.shape)}."
        )
    if not image.isfinite().all():
        raise UsageError("The picture holds NaN or infinity, so nothing can be measured on it.")
    return image.detach()


def image_size(image: Tensor) -> tuple[int, int]:
    """Returns an image's height and width."""
    return image.shape[-2], image.shape[-1]


def check_at_least(least: float, **options: float) -> None:
    """Raises UsageError for an option below the least allowed value."""
    for name, value in options.items():
        if not value >= least:
            raise UsageError(f"Option {name} is {least:g} or more, not {value}.")


def _name_size(maps: Tensor) -> str:
    return "x".join(map(str, maps.shape[-2:]))
