"""What is written is read back equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camcli.media.annotations import (
    FORMATS,
    Bitmap,
    Instance,
    PictureAnnotations,
    Polygons,
    RunLengths,
    read_annotations,
)
from camcli.records import Box

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)

WRITTEN = [name for name, known in FORMATS.items() if known.write]


@st.composite
def instances(draw: st.DrawFn, size: tuple[int, int]) -> Instance:
    height, width = size
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    label = draw(st.sampled_from(["cat", "traffic light", "Äpfel & <b>", "'s"]))
    return Instance(label, Box(left, top, right, bottom))


@st.composite
def pictures(draw: st.DrawFn) -> list[PictureAnnotations]:
    size = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
    items = draw(st.lists(st.lists(instances(size), max_size=4), min_size=1, max_size=3))
    return [PictureAnnotations(f"p/{n}.jpg", tuple(i), size) for n, i in enumerate(items)]


@pytest.mark.parametrize("name", WRITTEN)
@PROPERTY
@given(written=pictures())
def test_what_is_written_is_read_back_equal(name: str, written: list[PictureAnnotations]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("a.json" if name == "coco" else "a")
        write = FORMATS[name].write
        assert write is not None
        write(written, path)
        read = read_annotations(path, name)
    assert set(read.labels) == {i.label for p in written for i in p.instances}
    for old, new in zip(written, read, strict=True):
        assert old.size is not None
        placed, notes = new.in_pixels(old.size)
        assert notes == ()
        assert Path(placed.name).with_suffix("") == Path(old.name).with_suffix("")
        assert placed.instances == old.instances


def test_coco_keeps_outlines_and_crowds(tmp_path: Path) -> None:
    mask = np.zeros((4, 8), bool)
    mask[1:3, 2:5] = True
    box = Box(2, 1, 5, 3)
    outlines = (
        Polygons(((2.0, 1.0, 5.0, 1.0, 5.0, 3.0),)),
        RunLengths.from_mask(mask),
        Bitmap(mask),
        None,
    )
    items = tuple(Instance("cat", box, outline, is_crowd=True) for outline in outlines)
    picture = PictureAnnotations("a.jpg", items, (4, 8))
    write = FORMATS["coco"].write
    assert write is not None
    write([picture], tmp_path / "a.json")
    (read,) = read_annotations(tmp_path / "a.json")
    runs = replace(items[2], outline=RunLengths.from_mask(mask))
    assert read.instances == (items[0], items[1], runs, items[3])


@pytest.mark.parametrize("name", WRITTEN)
def test_shares_cannot_be_written(name: str, tmp_path: Path) -> None:
    write = FORMATS[name].write
    assert write is not None
    with pytest.raises(ValueError, match="has no size in pixels"):
        write([PictureAnnotations("a.jpg", (), unit="shares")], tmp_path / "x")
