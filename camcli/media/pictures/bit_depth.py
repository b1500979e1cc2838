"""Scales samples deeper than 8 bits to 8 bits, between a black and a white that are reported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# of a range, so that what fills less of it is no picture of that range
LEAST_SHARE = 1 / 4
# of a range, so that differences of less are hardly seen
SEEN_SHARE = 1 / 16
# single pixels beyond what all others hold: hot ones, burnt-in marks
OUTER_PERCENT = 0.1
MOST_SAMPLES = 100_000


@dataclass(frozen=True)
class Range:
    """The values of black and of white, and what such values are called."""

    black: float
    white: float
    name: str = ""

    @property
    def width(self) -> float:
        """From black to white."""
        return self.white - self.black

    def holds(self, low: float, high: float) -> bool:
        """Tells whether no value is beyond black or white."""
        return self.black <= low and high <= self.white

    def is_filled(self, low: float, high: float) -> bool:
        """Tells whether values fill enough of the range."""
        return high - low >= LEAST_SHARE * self.width


# of whole numbers and of others, the smallest first
UNSIGNED = (
    Range(0, 255, "8 bits"),
    Range(0, 1023, "10 bits"),
    Range(0, 4095, "12 bits"),
    Range(0, 10_000, "ten-thousandths, as reflectances are stored"),
    Range(0, 16_383, "14 bits"),
    Range(0, 65_535, "16 bits"),
    Range(0, 2**32 - 1, "32 bits"),
)
SIGNED = (
    Range(-128, 127, "signed 8 bits"),
    # so that a scan comes out as it does where it is stored without a sign, 1024 higher
    Range(-1024, 3071, "Hounsfield units of 12 bits"),
    Range(-32_768, 32_767, "signed 16 bits"),
)
SHARES = Range(0, 1, "shares of 1")


def scale_to_eight_bits(
    values: NDArray[Any], stated: Range | None = None, own: Range | None = None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Scales values of any shape to 0..255, and reports where black and white lie.

    They lie where the file has `stated` them, else at the ends of the smallest usual range that
    holds all values and is filled by a quarter, else at the least and the greatest value.  Nothing
    is said of the range that is the values' `own` (of their type), unless a few single values
    leave the others too little of it.  NaN and infinities are black.
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    chosen = stated or _choose_range(low, high, values.dtype.kind == "f")
    own = own or find_type_range(values.dtype)
    is_own = (chosen.black, chosen.white) == (own.black, own.white)
    said = () if is_own else (_describe_range(low, high, chosen, stated),)
    return _scale_values(values, chosen), (*said, *_warn_of_squeeze(finite, low, high, chosen))


def scale_alpha(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    """Scales alpha to 0..255."""
    return _scale_values(alpha, Range(0, _find_opaque(alpha)))


def divide_by_alpha(colours: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Undoes what multiplied colours [h w ...] by their alpha [h w]."""
    share = np.where(alpha > 0, alpha / _find_opaque(alpha), 1)
    straight = colours / share.reshape(*share.shape, *[1] * (colours.ndim - 2))
    if colours.dtype.kind == "f":
        return straight.astype(colours.dtype)
    limits = find_type_range(colours.dtype)
    return np.rint(straight).clip(limits.black, limits.white).astype(colours.dtype)


def _find_opaque(alpha: NDArray[Any]) -> float:
    """Returns what stands for opaque: the white of the smallest usual range that holds all."""
    kind = alpha.dtype
    whites = [usual.white for usual in ((SHARES,) if kind.kind == "f" else ()) + UNSIGNED]
    most = math.inf if kind.kind == "f" else find_type_range(kind).white
    return min(next(white for white in (*whites, math.inf) if white >= alpha.max()), most)


def find_type_range(kind: np.dtype[Any]) -> Range:
    """Returns the range of a type: all of a whole number's, 0 to 1 of others."""
    if kind.kind == "f":
        return SHARES
    limits = np.iinfo(kind)
    return Range(float(limits.min), float(limits.max))


def _choose_range(low: float, high: float, is_float: bool) -> Range:
    black = min(low, 0.0)
    for usual in _list_candidates(low, is_float):
        # what is stored as 8 bits may be as dark as it likes
        may_be_dark = usual == UNSIGNED[0] and not is_float
        if usual.holds(low, high) and (may_be_dark or usual.is_filled(black, high)):
            return usual
    return Range(black, high)


def _list_candidates(low: float, is_float: bool) -> Iterator[Range]:
    if low < 0:
        yield from SIGNED
    else:
        yield from (SHARES,) * is_float
        yield from UNSIGNED


def _describe_range(low: float, high: float, chosen: Range, stated: Range | None) -> str:
    reach = f"its values reach from {low:g} to {high:g}"
    ends = f"black is {chosen.black:g}, white is {chosen.white:g}"
    if stated:
        return f"{reach}; {ends}, as the file's {chosen.name} says"
    if not chosen.name:
        return f"{reach}, which is no usual range: {ends}"
    return f"{reach} and are taken for {chosen.name}: {ends}"


def _warn_of_squeeze(finite: NDArray[Any], low: float, high: float, chosen: Range) -> Iterator[str]:
    """Says where nearly all values lie so close together that they look alike."""
    if not finite.size or finite.dtype.itemsize < 2:
        return
    samples = finite.ravel()[:: max(1, finite.size // MOST_SAMPLES)].astype(np.float64)
    least, most = np.percentile(samples, (OUTER_PERCENT, 100 - OUTER_PERCENT))
    is_alike = most - least < SEEN_SHARE * chosen.width
    if is_alike and high - low > LEAST_SHARE * chosen.width:
        yield (
            f"its values reach from {low:g} to {high:g}, and nearly all lie between {least:g} and "
            f"{most:g}, where they look alike: take single outliers (hot pixels, marks) out of it"
        )


def _scale_values(values: NDArray[Any], chosen: Range) -> NDArray[np.uint8]:
    scale = 255 / chosen.width if chosen.width > 0 else 0.0
    with np.errstate(all="ignore"):  # some kinds of NaN warn when they are copied
        wide: NDArray[Any] = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
        scaled = (wide - chosen.black) * scale
        np.nan_to_num(scaled, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.rint(scaled.clip(0, 255)), np.uint8)
