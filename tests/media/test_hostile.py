"""Properties of names, sizes, modes and printed text that hold for whatever comes in."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camcli.media.network_input import compute_placement, make_view
from camcli.media.output_names import UNSAFE_CATEGORIES, UNSAFE_CHARACTERS, name_output
from camcli.media.pictures.read import make_picture
from camcli.method_terms import find_method_names
from camcli.records import Fit, Picture, Preprocessing, Source
from camcli.utils.text_files import escape_text

# the same examples each time, and no file of them
PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=200)
FEW = settings(PROPERTY, max_examples=40)

# lone surrogates among them, as names on disk that are no UTF-8 have
anything = st.characters(exclude_categories=())
texts = st.text(anything, max_size=200)
words = st.text(anything, min_size=1, max_size=200)
files = st.builds(
    lambda stem, suffix: stem + suffix,
    st.text(st.characters(exclude_categories=(), exclude_characters="/\0"), max_size=255),
    st.sampled_from([".jpg", ".PNG", ".gif", ".webp", "", "."]),
)
folders = st.sampled_from(
    ["", "a", "a/b", "..", "../..", "/", "/etc", "a/../../b", "//host/share", "./.."]
)
methods = st.sampled_from(find_method_names(("all",)))
categories = st.none() | st.integers(0, 21_999)


def in_bytes(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))


@PROPERTY
@given(files, folders, methods, categories, texts, st.none() | texts, texts)
def test_an_output_stands_below_the_save_path(
    file: str,
    folder: str,
    method: str,
    category: int | None,
    label: str,
    layer: str | None,
    target: str,
) -> None:
    source = Source(Path("in") / file, Path(folder))
    name = name_output(source, method, category, label, layer=layer, target=target)
    assert name == name_output(source, method, category, label, layer=layer, target=target)
    assert not name.is_absolute() and ".." not in name.parts
    assert os.path.normpath(f"/save/{name}").startswith("/save/")
    assert in_bytes(f"{name.name}.pixels.png") <= 255
    assert "\0" not in str(name)
    # what the file system cut off of a name would make two files one
    assert name.suffix.lower() in (".jpg", ".png", ".webp")


@PROPERTY
@given(methods, categories, texts, st.none() | texts, texts)
def test_labels_layers_and_targets_put_nothing_odd_into_a_name(
    method: str, category: int | None, label: str, layer: str | None, target: str
) -> None:
    source = Source(Path("a.jpg"))
    name = str(name_output(source, method, category, label, layer=layer, target=target))
    assert not UNSAFE_CHARACTERS & set(name)
    assert not {unicodedata.category(c) for c in name} & UNSAFE_CATEGORIES
    assert PurePath(name).parts == (name,)


@PROPERTY
@given(
    st.lists(st.tuples(methods, st.integers(0, 4), words), min_size=2, max_size=6, unique=True),
    st.lists(texts, min_size=5, max_size=5),
    files,
    texts,
)
def test_no_two_heatmaps_of_a_picture_share_a_name(
    heatmaps: list[tuple[str, int, str]], labels: list[str], file: str, target: str
) -> None:
    names = {
        name_output(Source(Path(file)), method, c, labels[c], layer=layer, target=target)
        for method, c, layer in heatmaps
    }
    assert len(names) == len(heatmaps)


@PROPERTY
@given(st.lists(words, min_size=2, max_size=6, unique=True), st.booleans())
def test_layers_and_targets_that_look_alike_stay_apart(given: list[str], as_layer: bool) -> None:
    source = Source(Path("a.jpg"))
    names = {
        name_output(source, "cam", 3, "x", layer=part)
        if as_layer
        else name_output(source, "cam", 3, "x", target=part)
        for part in given
    }
    assert len(names) == len(given)


edges = st.integers(1, 100_000)
sides = st.integers(1, 600)
fits = st.sampled_from(["crop", "pad", "squash"])


@PROPERTY
@given(edges, edges, sides, sides, sides, sides, fits)
def test_the_box_is_what_the_network_sees(
    height: int, width: int, rows: int, columns: int, tall: int, wide: int, fit: Fit
) -> None:
    placed = compute_placement(
        (height, width), Preprocessing((rows, columns), (tall, wide), fit=fit)
    )
    box, (resized_height, resized_width) = placed.box, placed.resized
    assert min(placed.resized) >= 1
    assert box.width * resized_width / width == pytest.approx(columns)
    assert box.height * resized_height / height == pytest.approx(rows)
    # in the middle, but for half a pixel of the resized picture
    right = (box.left + box.right - width) * resized_width / width
    down = (box.top + box.bottom - height) * resized_height / height
    assert abs(right) <= 1 + 1e-6 and abs(down) <= 1 + 1e-6
    # some of the picture is always in view
    assert box.left < width and box.right > 0 and box.top < height and box.bottom > 0


@PROPERTY
@given(edges, edges, st.integers(1, 512), st.integers(0, 512))
def test_crops_stay_inside_and_pads_hold_everything(
    height: int, width: int, edge: int, more: int
) -> None:
    size, larger = (edge, edge), (edge + more, edge + more)
    crop = compute_placement((height, width), Preprocessing(size, larger, fit="crop")).box
    assert crop.left >= 0 and crop.top >= 0
    assert crop.right <= width + 1e-6 * width and crop.bottom <= height + 1e-6 * height
    pad = compute_placement((height, width), Preprocessing(larger, size, fit="pad")).box
    assert pad.left <= 0 and pad.top <= 0 and pad.right >= width and pad.bottom >= height
    whole = compute_placement((height, width), Preprocessing(size, size, fit="squash")).box
    assert (whole.left, whole.top, whole.right, whole.bottom) == (0, 0, width, height)


@FEW
@given(
    st.sampled_from([(1, 1), (1, 30_000), (30_000, 1), (20, 30_000), (2, 3), (300, 7)]),
    st.integers(1, 64),
    st.integers(1, 64),
    fits,
)
def test_every_size_gives_the_networks_input(
    size: tuple[int, int], rows: int, columns: int, fit: Fit
) -> None:
    picture = Picture(np.full((*size, 3), 128, np.uint8))
    inputs = make_view(picture, Preprocessing((rows, columns), (rows, columns), fit=fit)).inputs
    assert inputs.shape == (3, rows, columns) and inputs.isfinite().all()
    # a grey picture is grey, or the mean, which fills what a pad leaves
    assert inputs.abs().max() < 0.6


MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
    "I", "F", "I;16", "I;16B", "I;16L", "I;16N",
)  # fmt: skip


@PROPERTY
@given(st.sampled_from(MODES), st.integers(1, 9), st.integers(1, 9), st.randoms())
def test_every_mode_gives_pixels(mode: str, width: int, height: int, draw: object) -> None:
    empty = Image.new(mode, (width, height))
    content = draw.randbytes(len(empty.tobytes()))  # type: ignore[attr-defined]
    pixels = make_picture(Image.frombytes(mode, (width, height), content)).pixels
    assert pixels.dtype == np.uint8 and pixels.shape == (height, width, 3)


@PROPERTY
@given(st.text(anything))
def test_what_is_printed_cannot_steer_a_terminal(text: str) -> None:
    printed = escape_text(text)
    assert all(c.isprintable() for c in printed)
    assert {unicodedata.category(c) for c in printed} <= {
        "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No",
        "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs",
    }  # fmt: skip
    assert escape_text(printed) == printed
    if text.isprintable():
        assert printed == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066\u2069\u200b\ufeff", r"\u2066\u2069\u200b\ufeff"),
        ("\udce9\ud800", r"\udce9\ud800"),
        ("\x9b31m\x85\u2028", r"\x9b31m\x85\u2028"),
        ("[red]猫 \N{CAT FACE}[/red]", "[red]猫 \N{CAT FACE}[/red]"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert escape_text(text) == expected
