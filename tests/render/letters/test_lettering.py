"""Letters that our own font lacks come from fonts of this machine, or are said to be missing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from camcli.errors import CamvizWarning
from camcli.render.letters import fonts, lettering
from camcli.render.letters.fonts import FontSearch, load_own_font
from camcli.render.letters.lettering import Letters, list_missing, split_by_font, tell_missing

pytest.importorskip("fontTools")  # matplotlib brings it

CAT, HIGH, GOAT = "\u732b", "\u9ad8", "\u4d3b"
HEBREW_LIKE = "\U00010900\U00010901"  # Phoenician, which is read from right to left


def write_font(file: Path, letters: str, width: int = 900) -> Path:
    """Writes a font in which each letter is a block, each wider than the one before."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def draw(right: int, top: int) -> Any:
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        for corner in ((50, top), (right, top), (right, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    names = [".notdef", "space", *(f"u{ord(letter):X}" for letter in letters)]
    shapes = [(500, 100), (0, 0), *((width - 60 * n, 700) for n in range(len(letters)))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    own = {ord(letter): name for letter, name in zip(letters, names[2:], strict=True)}
    builder.setupCharacterMap({32: "space", **own})
    builder.setupGlyf({n: draw(*shape) for n, shape in zip(names, shapes, strict=True)})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": file.stem, "styleName": "Regular", "psName": file.stem})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(str(file))
    return file


Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that has the fonts that a test writes, and none besides."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    search = FontSearch((folder, tmp_path / "there is none"))
    monkeypatch.setattr(lettering, "search_system", lambda: search)
    monkeypatch.setattr(lettering, "_said", set())
    split_by_font.cache_clear()
    yield lambda name, letters: write_font(folder / name, letters)
    split_by_font.cache_clear()


def draw(text: str, anchor: str = "ls", size: int = 20) -> Any:
    paper = Image.new("L", (240, 60), "white")
    Letters(size).draw(ImageDraw.Draw(paper), (60, 40), text, "black", anchor)
    return np.asarray(paper)


def test_each_letter_is_drawn_with_a_font_that_has_it(machine: Machine) -> None:
    east, west = machine("east.ttf", CAT + HIGH), machine("west.ttf", GOAT)
    text = f"a {CAT}{HIGH} b {GOAT}"
    assert split_by_font(text) == (
        ("a ", None),
        (CAT + HIGH, east),
        (" b ", None),
        (GOAT, west),
    )
    assert list_missing([text]) == ""
    own = load_own_font(20)
    assert Letters(20).getlength(text) == own.getlength("a ") + own.getlength(" b ") + 3 * 20
    drawn = draw(CAT)
    # 900 and 700 of 1,000 units, and none below the base line
    assert (drawn[26:40, 61:77] == 0).all() and (drawn[40:] == 255).all()


def test_letters_of_our_own_font_are_drawn_as_ever(machine: Machine) -> None:  # noqa: ARG001
    for anchor in ("ls", "ms", "rs", "lm"):
        paper = Image.new("L", (240, 60), "white")
        font = load_own_font(20)
        ImageDraw.Draw(paper).text((60, 40), "espresso 3.4%", "black", font, anchor)
        assert np.array_equal(draw("espresso 3.4%", anchor), np.asarray(paper))


@pytest.mark.parametrize("anchor", ["ms", "rs", "lm"])
def test_anchors_hold_for_lines_of_several_fonts(machine: Machine, anchor: str) -> None:
    machine("east.ttf", CAT)
    text = f"x{CAT}"
    moved = {"ms": (-Letters(20).getlength(text) / 2, 0), "rs": (-Letters(20).getlength(text), 0)}
    left, down = moved.get(anchor, (0, 0))
    if anchor == "lm":
        ascent, descent = load_own_font(20).getmetrics()  # type: ignore[union-attr]
        down = (ascent - descent) / 2
    paper = Image.new("L", (240, 60), "white")
    Letters(20).draw(ImageDraw.Draw(paper), (60 + left, 40 + down), text, "black")
    where, expected = (np.argwhere(p < 128) for p in (draw(text, anchor), np.asarray(paper)))
    assert np.abs(where.min(0) - expected.min(0)).max() <= 1
    assert np.abs(where.max(0) - expected.max(0)).max() <= 1


def test_words_of_one_font_stay_together_with_what_is_between_them(machine: Machine) -> None:
    file = machine("right-to-left.ttf", HEBREW_LIKE)
    one, other = HEBREW_LIKE
    assert split_by_font(f"{one} {other} 3%") == ((f"{one} {other}", file), (" 3%", None))
    assert split_by_font(f"{one}\u200d{other}") == ((f"{one}\u200d{other}", file),)
    # a mark that the font lacks is drawn with ours
    assert split_by_font(f"{one}-{other}") == ((one, file), ("-", None), (other, file))


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no raqm")
def test_letters_that_are_read_from_right_to_left_are_drawn_so(machine: Machine) -> None:
    machine("right-to-left.ttf", HEBREW_LIKE)
    one, other = (int((draw(letter)[30] == 0).sum()) for letter in HEBREW_LIKE)
    assert one > other
    row = draw(HEBREW_LIKE)[30] == 0
    assert int(row[60:80].sum()) == other and int(row[80:100].sum()) == one


def test_what_no_font_has_is_said_once(machine: Machine) -> None:
    machine("east.ttf", CAT)
    assert list_missing([f"{CAT}{GOAT}", f"{GOAT}\u200d {HIGH}\ufe0f"]) == GOAT + HIGH
    with pytest.warns(CamvizWarning, match=f"has the letter {GOAT}, which captions and sheets"):
        drawn = draw(CAT + GOAT)
    assert (drawn[:, 80:] < 255).any(), "a box in its place"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(GOAT)
        draw("tabby")
    assert tell_missing([GOAT]) is None
    many = [chr(0x4E00 + n) for n in range(15)]
    assert "letters \u4e00 \u4e01" in (said := str(tell_missing(many))) and "and 3 more" in said


def test_plain_fonts_are_chosen_before_others_and_boxes_last(tmp_path: Path) -> None:
    for name in ("LastResort.ttf", "a-Bold.ttf", "zz.ttf", "NotoSansCJK-Regular.ttf"):
        write_font(tmp_path / name, CAT)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    (tmp_path / "notes.txt").write_text("no font")
    found = []
    while (tmp_path / "LastResort.ttf").exists():
        file = FontSearch((tmp_path,)).find(CAT)
        assert file is not None
        found.append(file.name)
        file.unlink()
    assert found == ["NotoSansCJK-Regular.ttf", "zz.ttf", "a-Bold.ttf", "LastResort.ttf"]
    assert FontSearch((tmp_path,)).find(CAT) is None


def test_a_font_that_has_served_is_asked_first(tmp_path: Path) -> None:
    write_font(tmp_path / "a.ttf", CAT)
    last = write_font(tmp_path / "b.ttf", HIGH + CAT)
    search = FontSearch((tmp_path,))
    assert search.find(HIGH) == search.find(CAT) == last


def test_the_folders_are_those_of_each_system() -> None:
    home = Path("~").expanduser()
    mac = list(fonts._list_folders("darwin", {}))
    assert Path("/System/Library/Fonts") in mac and home / "Library/Fonts" in mac
    windows = list(fonts._list_folders("win32", {"WINDIR": "W", "LOCALAPPDATA": "L"}))
    assert windows == [Path("W/Fonts"), Path("L/Microsoft/Windows/Fonts")]
    linux = list(fonts._list_folders("linux", {"XDG_DATA_DIRS": "x:y"}))
    assert linux == [home / ".fonts", home / ".local/share/fonts", Path("x/fonts"), Path("y/fonts")]
    assert Path("/usr/share/fonts") in fonts._list_folders("linux", {})


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_sheet_and_a_caption_have_the_letters_of_a_label_map(
    machine: Machine, tmp_path: Path, suffix: str
) -> None:
    import torch

    import camcli
    from tests.pipeline.training.writers import Learner

    machine("EastOfCamviz.ttf", CAT + HIGH)
    torch.manual_seed(0)
    labels = [CAT + HIGH, f"tabby {CAT}", GOAT]
    picture = np.random.default_rng(0).integers(0, 256, (40, 120, 3), np.uint8)
    given = {"preprocessing": {"mean": 0.5, "std": 0.5, "fit": "squash"}, "img_size": 32}
    explained = camcli.explain(Learner().eval(), picture, labels=labels, top_k=3, **given)
    by_label = {e.label: e for e in explained}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sheet = camcli.Sheet([by_label[label] for label in labels[:2]])
        (file,) = sheet.save(tmp_path / f"sheet{suffix}")
        strip = by_label[labels[0]].overlay(caption=True)[40:]
    # two blocks of seven tenths of the letters' height, in full black
    assert ((strip == 0).all(2).sum(1) > 2 * 9).sum() == pytest.approx(0.7 * 14, abs=1)
    if suffix == ".pdf":
        assert b"EastOfCamviz" in file.read_bytes()
    with pytest.warns(CamvizWarning, match=GOAT):
        camcli.Sheet([by_label[GOAT]]).save(tmp_path / f"other{suffix}")
