"""Small ICC profiles of other colours than sRGB, made byte by byte."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

D50 = (0.9642, 1.0, 0.8249)


def _fix(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65_536)) for number in numbers)


def _point(xyz: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fix(*xyz)


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    name = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0x\0", b"wtpt": _point(D50), **tags}
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI", start + len(data), b"", 0x02400000) + kind + space + connection
    head += bytes(12) + b"acsp" + bytes(28) + _fix(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def display_p3() -> bytes:
    """Display P3's primaries, adapted to D50, with a gamma of 2.2."""
    # the columns of the published matrix
    primaries = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
    tags = {bytes(c, "ascii") + b"XYZ": _point(p) for c, p in zip("rgb", primaries, strict=True)}
    curves = {bytes(c, "ascii") + b"TRC": _gamma(2.2) for c in "rgb"}
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**tags, **curves})


def grey(gamma: float) -> bytes:
    """Grey values with a gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)})


def inks() -> bytes:
    """CMYK in which each corner of the inks' cube has its lightness, and no colour at all."""
    corners = np.indices((2, 2, 2, 2)).reshape(4, 16).T
    lightness = 255 * (1 - corners.mean(1))
    colours = np.stack([lightness, *[np.full(16, 128.0)] * 2], 1).astype(np.uint8)
    straight = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _fix(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += straight * 4 + colours.tobytes() + straight * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})
