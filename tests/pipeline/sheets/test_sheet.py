"""Explanations as a sheet: in Python, in notebooks, in files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor

import camcli
from camcli.errors import OutputError, UsageError
from camcli.models.load import Classifier
from camcli.pipeline import Explanation
from camcli.pipeline.sheets.sheet import Sheet
from camcli.records import Preprocessing
from camcli.render.boxes import boxes_of
from camcli.render.colour_bar import find_range, format_number
from camcli.render.sheet_layout import GAP, LINE, plan_grid
from tests.networks import Staged


@pytest.fixture(scope="module")
def small() -> Classifier:
    torch.manual_seed(0)
    size = (32, 32)
    preprocessing = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    names = ("cat", "dog", "<b>fox</b>", "owl")
    return Classifier(Staged(4).eval(), "small", "timm", preprocessing, names, "by hand", 4, 3)


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def explained(small: Classifier, pictures: list[NDArray[np.uint8]]) -> list[Explanation]:
    chosen = {"target_layers": ["last"], "target_category": [0, 2]}
    return list(camcli.explain(small, pictures[:1], ["gradcam", "layercam"], **chosen))


def open_png(content: bytes | None) -> NDArray[np.uint8]:
    assert content
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_an_explanation_shows_its_overlays_own_pixels(explained: list[Explanation]) -> None:
    first = explained[0]
    assert (open_png(first._repr_png_()) == first.overlay()).all()


def test_a_large_one_is_reduced_in_a_notebook(small: Classifier) -> None:
    large = np.zeros((100, 3000, 3), np.uint8)
    (explanation,) = camcli.explain(small, large, target_layers=["last"])
    assert open_png(explanation._repr_png_()).shape == (40, 1200, 3)
    assert explanation.overlay().shape == (100, 3000, 3)


def test_html_has_the_picture_the_class_and_the_ends_of_the_bar(
    explained: list[Explanation],
) -> None:
    fox = next(e for e in explained if e.category == 2 and e.method == "gradcam")
    html = fox._repr_html_()
    assert html.count("<img ") == 2 and html.count('src="data:image/png;base64,') == 2
    # somebody's label is no markup
    assert "<b>fox" not in html and html.count("&lt;b&gt;fox&lt;/b&gt;") == 2
    low, high = fox.record.minimum, fox.record.maximum
    assert low is not None and high is not None
    least, most = format_number(max(low, 0)), format_number(high)
    assert f"{least} <img" in html and f" {most}</figcaption>" in html


def test_html_says_what_is_wrong(small: Classifier) -> None:
    grey = np.full((40, 60, 3), 128, np.uint8)
    with torch.no_grad():
        network = Staged(4).eval()
        network.fc.weight.zero_()
    (empty,) = camcli.explain(replace(small, module=network), grey, target_layers=["last"])
    assert "<strong>the map is zero everywhere" in empty._repr_html_()
    assert empty._repr_html_().count("<img ") == 1


def test_its_name_is_one_line(explained: list[Explanation]) -> None:
    first = explained[0]
    expected = f"<Explanation: cat {first.probability:.1%}, gradcam at last>"
    assert repr(first) == expected


def test_a_box_is_that_of_the_command_line(explained: list[Explanation]) -> None:
    first = explained[0]
    assert first.box() == boxes_of(first.sized_map("image"))[0].box
    drawn = first.overlay(boxes="largest", contour=True)
    assert (drawn != first.overlay()).any()
    inner, outer = first.box(0.9), first.box(0.1)
    assert inner and outer and inner.width * inner.height < outer.width * outer.height


def test_a_cell_has_the_overlays_own_pixels(explained: list[Explanation]) -> None:
    chosen = explained[:1]
    grid = plan_grid(2)
    sheet = open_png(Sheet(chosen)._repr_png_())
    expected = grid.fit(chosen[0].overlay())
    left, top = 2 * GAP + grid.cell, GAP + 2 * LINE
    high, wide = expected.shape[:2]
    assert (sheet[top : top + high, left : left + wide] == expected).all()
    original = grid.fit(chosen[0].picture.canvas)
    assert (sheet[top : top + high, GAP : GAP + wide] == original).all()


def test_a_sheet_says_how_large_it_is_and_is_drawn_as_asked(explained: list[Explanation]) -> None:
    sheet = Sheet(explained)
    assert repr(sheet) == "<Sheet of 4 maps: 2 rows, 3 columns>"
    other = Sheet(explained, alpha="auto", colormap="viridis")
    assert (open_png(sheet._repr_png_()) != open_png(other._repr_png_())).any()


def test_a_figure_has_the_original_the_overlay_and_a_bar(explained: list[Explanation]) -> None:
    first = explained[0]
    (axes,) = first.figure().axes
    original, overlay, bar = (np.asarray(image.get_array()) for image in axes.images)
    grid = plan_grid(2)
    assert (original == grid.fit(first.picture.canvas)).all()
    assert (overlay == grid.fit(first.overlay())).all()
    assert bar.shape == (1, 256, 3)
    ends = find_range(first.record.minimum or 0, first.record.maximum or 0)
    assert ends
    assert {format_number(end) for end in ends} <= {text.get_text() for text in axes.texts}


def test_what_explain_gives_shows_itself_and_is_still_given(
    small: Classifier, pictures: list[NDArray[np.uint8]]
) -> None:
    explanations = camcli.explain(small, pictures, target_layers=["last"])
    first = next(explanations)
    assert open_png(explanations._repr_png_()).ndim == 3
    shown = explanations._repr_png_()
    rest = list(explanations)
    assert len(rest) == 2 and first.picture is not rest[0].picture
    assert shown == Sheet(rest)._repr_png_()
    assert explanations._repr_png_() is None


def test_no_more_are_made_than_are_shown(
    small: Classifier, pictures: list[NDArray[np.uint8]]
) -> None:
    made = 0

    def give() -> object:
        nonlocal made
        for _ in range(80):
            made += 1
            yield pictures[0]

    explanations = camcli.explain(small, give(), target_layers=["last"], batch_size=4)
    explanations._repr_png_()
    assert made == 32
    explanations.close()
    assert list(explanations) == []


def test_concepts_have_a_legend_in_letters_that_can_be_read(small: Classifier) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (explanation,) = camcli.explain(small, pixels, "dff", target_layers=["last"])
    assert explanation.overlay().shape[0] > 40, "the overlay has a legend of its own"
    (axes,) = Sheet([explanation]).figure().axes
    grid = plan_grid(2)
    overlay, *swatches = (np.asarray(image.get_array()) for image in axes.images[1:])
    shown = explanation.overlay()
    left = (shown.shape[1] - 60) // 2
    assert (overlay == grid.fit(shown[:40, left : left + 60])).all()
    colours = [tuple(swatch[0, 0].tolist()) for swatch in swatches]
    assert colours == [ImageColor.getrgb(c.colour) for c in explanation.concepts]
    words = [text.get_text() for text in axes.texts]
    for concept in explanation.concepts:
        line = (
            f"{concept.labels[0]} {concept.probabilities[0]:.0%}" if concept.labels else "concept"
        )
        assert any(word.startswith(line) for word in words)
    assert min(text.get_size() for text in axes.texts) >= 6


def test_files_of_each_kind(explained: list[Explanation], tmp_path: Path) -> None:
    sheet = Sheet(explained)
    for suffix, begins in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        path = tmp_path / "deep" / f"sheet{suffix}"
        assert sheet.save(path) == (path,)
        assert path.read_bytes().startswith(begins)
        # one of ours is replaced
        assert sheet.save(path) == (path,)
    assert len(list((tmp_path / "deep").iterdir())) == 3


def test_pages_have_a_file_each(explained: list[Explanation], tmp_path: Path) -> None:
    many = [
        replace(explained[0], picture=replace(explained[0].picture, frame=n)) for n in range(16)
    ]
    written = Sheet(many).save(tmp_path / "sheet.png")
    assert [path.name for path in written] == ["sheet.png", "sheet-2.png", "sheet-3.png"]
    # a shorter one leaves none of its pages, and what is no sheet stays
    heights = [len(open_png(path.read_bytes())) for path in written]
    assert max(heights) <= 2717 and heights[0] == heights[1] > heights[2]
    Image.new("RGB", (4, 4)).save(tmp_path / "sheet-4.png")
    assert Sheet(many[:2]).save(tmp_path / "sheet.png") == (tmp_path / "sheet.png",)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sheet-4.png", "sheet.png"]


def test_nothing_of_somebody_elses_is_lost(explained: list[Explanation], tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(photo)
    before = photo.read_bytes()
    with pytest.raises(UsageError, match="is there already and no sheet of camviz"):
        Sheet(explained).save(photo)
    assert photo.read_bytes() == before


def test_what_cannot_be_written_is_told(explained: list[Explanation], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"A sheet is a \.png, \.svg or \.pdf"):
        Sheet(explained).save(tmp_path / "sheet.jpg")
    with pytest.raises(UsageError, match="there is none"):
        Sheet([])
    with pytest.raises(UsageError, match="alpha is a share"):
        Sheet(explained, alpha=2).save(tmp_path / "sheet.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        Sheet(explained).save(tmp_path / "folder.png")
