"""`--sheet` and `--layers-sweep`: a run as one figure, made of what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import camcli
from camcli.cli.app import complete_values
from camcli.config import from_keywords
from camcli.errors import UsageError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import RunCallbacks, carry_out_plan, make_plan
from camcli.pipeline.distributed import sharding
from camcli.pipeline.sheets import run_sheet
from camcli.pipeline.sheets.run_sheet import DrawnSheet
from camcli.pipeline.sheets.sheet_files import write_sheet
from camcli.pipeline.writing.output_checks import warn_of_letters
from camcli.records import Preprocessing, Record
from camcli.render.colour_bar import format_number
from camcli.render.letters import lettering
from camcli.render.sheet_layout import GAP, LINE, Page, lay_out, plan_grid
from camcli.runs import verify_folder
from tests.networks import Staged


@pytest.fixture(scope="module")
def small() -> Classifier:
    torch.manual_seed(0)
    size = (32, 32)
    preprocessing = Preprocessing(size, size, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    names = ("cat", "dog", "fox", "owl")
    return Classifier(Staged(4).eval(), "small", "timm", preprocessing, names, "by hand", 4, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    draw = np.random.default_rng(0)
    for name in ("b.png", "a.png", "c.png"):
        pixels = draw.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    return tmp_path / "in"


Run = Callable[..., tuple[list[Record], DrawnSheet | None]]


@pytest.fixture
def run(small: Classifier, folder: Path, tmp_path: Path) -> Run:
    def carry(**given: Any) -> tuple[list[Record], DrawnSheet | None]:
        drawn: list[DrawnSheet] = []
        defaults = {"save_path": tmp_path / "out", "target_layers": "last", "workers": 2}
        if given.get("layers_sweep"):
            del defaults["target_layers"]
        options = from_keywords(**{**defaults, **given})
        plan = make_plan(small, options)
        watch = RunCallbacks(drawn=drawn.append)
        outcomes = carry_out_plan(plan, find_sources([folder]), options, callbacks=watch)
        records = [record for outcome in outcomes for record in outcome.records]
        return records, drawn[0] if drawn else None

    return carry


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """The pages that are laid out, as they are written."""
    collected: list[Page] = []

    def collect(given: Any, path: Path) -> tuple[Path, ...]:
        collected.extend(given)
        return write_sheet(collected, path)

    monkeypatch.setattr(run_sheet, "write_sheet", collect)
    return collected


def read(path: Path | str) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def words(page: Page) -> list[str]:
    return [text.text for text in page.texts]


def test_a_sheet_has_each_picture_and_its_overlays_own_pixels_in_order(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    records, drawn = run(method="gradcam,layercam", sheet=tmp_path / "deep" / "sheet.png")
    assert drawn == DrawnSheet((tmp_path / "deep" / "sheet.png",))
    sheet, grid = read(drawn.files[0]), plan_grid(3)
    top = GAP
    for name in ("a", "b", "c"):
        shown = [folder / f"{name}.png"]
        shown += [Path(r.outputs[0]) for r in records if Path(r.source).stem == name]
        assert len(shown) == 3
        expected = [grid.fit(read(path)) for path in shown]
        top += 2 * LINE
        for place, pixels in enumerate(expected):
            left = GAP + place * (grid.cell + GAP)
            part = sheet[top : top + len(pixels), left : left + grid.cell]
            assert (part == pixels).all(), (name, place)
        # picture, bar, numbers, and the gap between rows
        top += len(expected[0]) + 14 + LINE + 6 + 34


def test_captions_of_overlays_are_not_on_the_sheet_beside_its_own(
    run: Run, pages: list[Page], tmp_path: Path
) -> None:
    for caption in (False, True):
        run(sheet=tmp_path / f"{caption}.png", save_path=tmp_path / str(caption), caption=caption)
    plain, captioned = pages
    for one, other in zip(plain.pictures, captioned.pictures, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_letters_that_no_font_has_are_said_before_they_are_drawn(
    small: Classifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lettering, "_said", set())
    nobodys = chr(0x10FFFD)  # of nobody's script, but printable in this test
    monkeypatch.setattr(
        lettering, "list_missing", lambda texts: nobodys * any(nobodys in t for t in texts)
    )
    named = ("cat", f"d{nobodys}g", "fox", "owl")
    sources = find_sources([str(folder)])
    for asked, count in (({}, 0), ({"caption": True}, 1), ({"caption": True}, 0)):
        options = from_keywords(**asked)
        said = warn_of_letters(sources, named, options)
        assert len(said) == count and all(nobodys in message for message in said)
    picture = (folder / "a.png").rename(folder / "猫.png")
    monkeypatch.setattr(
        lettering,
        "list_missing",
        lambda texts: "".join({*"".join(texts)} - {*"".join(small.labels or ())}),
    )
    options = from_keywords(sheet=Path("s.png"))
    (said,) = warn_of_letters(find_sources([str(folder)]), small.labels, options)
    assert picture.stem in said


def test_a_bars_numbers_are_those_of_the_manifest(run: Run, pages: list[Page]) -> None:
    records, _ = run(sheet="png")
    texts = words(pages[0])
    for record in records:
        assert record.minimum is not None and record.maximum is not None
        low, high = format_number(max(record.minimum, 0)), format_number(record.maximum)
        assert texts[texts.index(high) - 1] == low
    assert texts.count("gradcam") == 3 and texts[-1] == "small, gradcam at last"


def test_one_scale_has_one_bar(run: Run, pages: list[Page]) -> None:
    run(sheet="png", scale=(0, 0.125))
    assert words(pages[0])[-3:] == ["0", "0.125", "small, gradcam at last"]
    assert sum(len(p.pixels) == 1 for p in pages[0].pictures) == 1


def test_what_failed_is_left_out_with_a_word(run: Run, folder: Path, pages: list[Page]) -> None:
    (folder / "b.png").write_bytes(b"no picture")
    _, drawn = run(sheet="png")
    assert drawn and drawn.missing == ("1 picture that failed",)
    assert [word for word in words(pages[0]) if word.endswith(".png")] == ["a.png", "c.png"]


def test_an_overlay_that_is_gone_is_left_out_with_a_word(
    run: Run, pages: list[Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_again = run_sheet._Reader._read

    def lose_one(self: Any, source: Any) -> Any:
        if source.path.name.startswith("b_gradcam"):
            source.path.unlink(missing_ok=True)
        return read_again(self, source)

    monkeypatch.setattr(run_sheet._Reader, "_read", lose_one)
    _, drawn = run(sheet="png")
    assert drawn and len(drawn.missing) == 1 and "b_gradcam" in drawn.missing[0]
    assert [word for word in words(pages[0]) if word.endswith(".png")] == ["a.png", "c.png"]


def test_nothing_but_failures_makes_no_sheet(run: Run, folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    _, drawn = run(sheet="png")
    assert drawn == DrawnSheet((), ("3 pictures that failed",))


def test_a_run_that_is_done_gets_its_sheet_without_the_model(
    run: Run, tmp_path: Path, batches: list[int]
) -> None:
    before, _ = run(top_k=2)
    batches.clear()
    records, drawn = run(top_k=2, sheet=tmp_path / "sheet.svg", skip_existing=True)
    assert records == [] and batches == []
    assert drawn and drawn.files == (tmp_path / "sheet.svg",)
    # three originals, two overlays each, with their bars
    assert drawn.files[0].read_bytes().count(b"<image") == 3 + 2 * len(before)


def test_it_costs_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_sheet, "open_picture", None)
    _, drawn = run()
    assert drawn is None


def test_pictures_of_pixels_lie_where_the_network_saw_them(run: Run, pages: list[Page]) -> None:
    records, _ = run(method="guidedbackprop", sheet="png")
    first = pages[0].pictures[1]
    grid = plan_grid(2)
    pixels = read(next(p for p in records[0].outputs if p.endswith(".pixels.png")))
    assert pixels.shape == (32, 32, 3)
    whole = np.asarray(Image.fromarray(pixels).resize((60, 40), Image.Resampling.BICUBIC))
    assert (first.pixels == grid.fit(whole)).all()
    assert all(len(placed.pixels) > 1 for placed in pages[0].pictures), "no bar without values"


def test_all_methods_on_one_sheet_have_an_overlay_each(run: Run, pages: list[Page]) -> None:
    quick = {"masks": 4, "samples": 1, "max_channels": 2, "window": 16, "stride": 16}
    records, _ = run(method="all", set=quick, sheet="png", target_category=[1])
    assert not any(record.sheet for record in records)
    names = {record.method for record in records}
    assert {"gradcam", "scorecam", "guidedbackprop"} <= names
    assert names <= {word for page in pages for word in words(page)} | {"gradcamelementwise"}


def test_a_sweep_goes_from_the_coarsest_grid_to_finer_ones(run: Run, pages: list[Page]) -> None:
    records, drawn = run(layers_sweep=True)
    assert drawn and drawn.files[0].name.startswith("sheet-")
    names = [r.layers[0] for r in records if r.source.endswith("a.png")]
    assert len(names) == len(set(names)) >= 3
    assert names[0] == "last"
    columns = [word for word in words(pages[0]) if word in names]
    assert columns == names * 3
    assert [name.split(".")[0] for name in names] == sorted(
        (name.split(".")[0] for name in names), key=["last", "middle", "stem"].index
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target_layers": "last"}, "--layers-sweep and --target-layers each choose the layers"),
        ({"method": "best"}, "and --method best makes one of several"),
        ({"combine": "mean", "method": "gradcam,layercam"}, "and --combine makes one of several"),
        ({"layer_fusion": "max"}, "--layer-fusion max makes one of several"),
    ],
)
def test_a_sweep_with_other_choices_of_layers_is_refused(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        from_keywords(layers_sweep=True, **given)


def test_a_sheet_is_no_other_run(run: Run, tmp_path: Path) -> None:
    run(sheet="png")
    records, drawn = run(sheet=tmp_path / "again.png", skip_existing=True)
    assert records == [] and drawn and drawn.files == (tmp_path / "again.png",)
    assert {file.state for file in verify_folder(tmp_path / "out")} == {"whole"}


def test_a_run_into_one_file_has_a_sheet_beside_it(
    run: Run, folder: Path, tmp_path: Path, pages: list[Page]
) -> None:
    for name in ("b.png", "c.png"):
        (folder / name).unlink()
    _, drawn = run(save_path=tmp_path / "map.png", sheet="png")
    assert drawn and drawn.files == (tmp_path / "map-sheet.png",)
    assert len(pages[0].pictures) == 3


def test_a_place_that_cannot_be_is_refused_before_anything_is_written(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="and no sheet of camviz, and would be lost"):
        run(sheet=folder / "a.png")
    assert not (tmp_path / "out").exists()


def test_several_processes_draw_no_sheet(tmp_path: Path) -> None:
    options = from_keywords(sheet="png", save_path=tmp_path)
    with pytest.raises(UsageError, match="too\\) shows what a whole run found"):
        sharding.check_can_shard(options)


def test_alone_it_takes_no_picture_for_a_value(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.touch()
    for following in ("", "-q", "@list.txt", "photos/*", "https://a.org/b.jpg", str(photo)):
        typed = ["explain", "--sheet", *([following] if following else [])]
        assert complete_values(typed)[1] == "--sheet=png", following
    for following in ("pdf", "SVG", "figure.pdf", "none", "figure.jpg"):
        assert complete_values(["explain", "--sheet", following])[1:] == ["--sheet", following]
    assert complete_values(["explain", "--", "--sheet"])[-1] == "--sheet"


def test_the_command_line_python_and_notebooks_draw_the_same_pixels(
    run: Run, small: Classifier, folder: Path
) -> None:
    records, _ = run(method="gradcam,layercam")
    explained = camcli.explain(
        small, find_files(folder), ["gradcam", "layercam"], target_layers="last"
    )
    for record, explanation in zip(records, explained, strict=True):
        drawn = explanation.overlay()
        assert (read(record.outputs[0]) == drawn).all()
        with Image.open(BytesIO(explanation._repr_png_())) as shown:
            assert (np.asarray(shown) == drawn).all()


def find_files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_large_pictures_are_small_on_the_way_to_the_page(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (3000, 2000), (9, 9, 9)).save(folder / "a.png")
    sizes = []

    def note(rows: Any, grid: Any, *given: Any) -> Any:
        def pass_on() -> Any:
            for row in rows:
                sizes.extend(cell.pixels.shape[1] for cell in row)
                yield row

        return lay_out(pass_on(), grid, *given)

    monkeypatch.setattr(run_sheet, "lay_out", note)
    run(sheet="png")
    assert len(sizes) == 6 and max(sizes) <= plan_grid(2).cell


def test_a_crop_is_that_of_the_original_too(
    small: Classifier, folder: Path, pages: list[Page]
) -> None:
    cropped = replace(small, preprocessing=replace(small.preprocessing, fit="crop"))
    options = from_keywords(
        target_layers="last", save_path=folder.parent / "out", sheet="png", outside="crop",
        method="gradcam,guidedbackprop",
    )  # fmt: skip
    list(carry_out_plan(make_plan(cropped, options), find_sources([folder / "a.png"]), options))
    original, overlay, _, pixels = pages[0].pictures
    with Image.open(folder / "a.png") as picture:
        whole = np.asarray(picture.convert("RGB"))
    # the network sees the middle 40 pixels of 60
    assert (original.pixels == plan_grid(3).fit(whole[:, 10:50])).all()
    assert original.pixels.shape == overlay.pixels.shape == pixels.pixels.shape
