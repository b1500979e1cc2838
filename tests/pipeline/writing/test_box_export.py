"""`--boxes`, `--contour` and `--export`: from a hot region to records, lines and files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from camcli.cli.app import complete_boxes, main
from camcli.config import from_keywords
from camcli.errors import ConfigError, UsageError
from camcli.media.annotations import read_annotations
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import run_sources
from camcli.pipeline.distributed import sharding
from camcli.records import Box, HotBox, Preprocessing, Record
from camcli.runs import read_manifest
from camcli.runs.manifest_tail import parse_record
from tests.media.clips import write_video

HEIGHT, WIDTH = 40, 60


class Brightness(nn.Module):
    """Its map for class 0 is red, for class 1 green, as four cells each way see them."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(10)
        self.layer = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.weight[0, 0] = self.layer.weight[1, 1] = 1

    def forward(self, x: Tensor) -> Tensor:
        cells: Tensor = self.layer(self.pool(x))
        return cells.sum((2, 3))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    size = (HEIGHT, WIDTH)
    preprocessing = Preprocessing(size, size, mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash")
    return Classifier(
        Brightness().eval(), "bright", "timm", preprocessing, ("red", "green"), "by hand", 2
    )


def picture(*spots: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A black picture with spots of 10 x 10 pixels: row, column and channel of each."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for row, column, channel in spots:
        pixels[10 * row : 10 * row + 10, 10 * column : 10 * column + 10, channel] = 255
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    (place / "deep").mkdir(parents=True)
    # two red cells at the left, one at the right; a green one
    both = picture((1, 0, 0), (2, 0, 0), (1, 4, 0), (3, 5, 1))
    Image.fromarray(both).save(place / "both.png")
    Image.fromarray(picture((0, 5, 0), (3, 2, 1))).save(place / "deep" / "one.png")
    return place


def explain(classifier: Classifier, folder: Path, **options: Any) -> list[Record]:
    chosen = {"save_path": folder.parent / "out", "target_layers": "layer", **options}
    return list(run_sources(classifier, find_sources([folder]), from_keywords(**chosen)))


def boxes(record: Record) -> list[tuple[float, ...]]:
    return [(h.box.left, h.box.top, h.box.right, h.box.bottom) for h in record.boxes]


def test_the_largest_box_and_all_are_recorded_in_pixels_of_the_picture(
    classifier: Classifier, folder: Path
) -> None:
    (largest, other) = explain(classifier, folder, boxes="largest", box_threshold=0.5)
    # between the centres of cells the map falls linearly: half of it is at a cell's edge, and at
    # each of two corners 4 + 3 + 2 + 1 pixels are colder
    assert boxes(largest) == [(0, 10, 10, 30)]
    assert boxes(other) == [(50, 0, 60, 10)]
    assert largest.boxes[0].area == 180 and largest.box_threshold == 0.5
    (every, _) = explain(classifier, folder, boxes="all", box_threshold=0.5)
    assert boxes(every)[0] == (0, 10, 10, 30)
    assert boxes(every)[1:] == [(40, 10, 50, 20)]
    # more of the map is above a lower share
    (wide, _) = explain(classifier, folder, boxes="largest", box_threshold=0.1)
    assert wide.boxes[0].area > 180


def test_nothing_is_recorded_or_drawn_unasked(classifier: Classifier, folder: Path) -> None:
    (record, _) = explain(classifier, folder)
    assert (record.boxes, record.box_threshold) == ((), None)
    (outlined, _) = explain(classifier, folder, contour=True, format="png")
    assert (outlined.boxes, outlined.box_threshold) == ((), None)


def _white(path: str) -> NDArray[np.bool_]:
    with Image.open(path) as drawn:
        return (np.asarray(drawn.convert("RGB")) == 255).all(2)


def test_what_is_asked_for_is_drawn(classifier: Classifier, folder: Path) -> None:
    plain, boxed, outlined = (
        _white(explain(classifier, folder, alpha=0.0, **options)[0].outputs[0])
        for options in (
            {},
            {"boxes": "largest", "box_threshold": 0.5},
            {"contour": True, "box_threshold": 0.5},
        )
    )
    # the frame, two pixels wide, lies inside the box
    assert boxed[10:30, 0:10].sum() == 20 * 10 - 16 * 6
    assert not boxed[:10].any() and not boxed[30:].any() and not boxed[:, 10:].any()
    # the outline goes round both red regions
    assert outlined[15, 8:11].any() and outlined[15, 40:50].any()
    assert not plain.any()


def test_a_map_without_heat_has_no_box(classifier: Classifier, tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    Image.fromarray(picture()).save(place / "black.png")
    (record,) = explain(classifier, place, boxes="all", export="coco")
    assert record.boxes == () and record.box_threshold == 0.2 and record.warnings
    (written,) = (tmp_path / "out").glob("boxes-*/gradcam.json")
    (known,) = read_annotations(written)
    assert (known.name, known.instances, known.size) == ("black.png", (), (HEIGHT, WIDTH))


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_what_is_exported_reads_back(classifier: Classifier, folder: Path, form: str) -> None:
    explain(
        classifier,
        folder,
        method=("gradcam", "hirescam"),
        target_category=("red", "green"),
        boxes="all",
        box_threshold=0.5,
        export=form,
    )
    (place,) = (folder.parent / "out").glob("boxes-*")
    suffix = ".json" if form == "coco" else ""
    assert sorted(p.name for p in place.iterdir()) == [f"gradcam{suffix}", f"hirescam{suffix}"]
    pictures = {Path(p.name).stem: p for p in read_annotations(place / f"gradcam{suffix}", form)}
    assert sorted(pictures) == ["both", "one"]
    known, _ = pictures["both"].in_pixels((HEIGHT, WIDTH))
    labelled = {(i.label, *(round(e, 6) for e in vars(i.box).values())) for i in known.instances}
    assert labelled == {
        ("red", 0, 10, 10, 30),
        ("red", 40, 10, 50, 20),
        ("green", 50, 30, 60, 40),
    }
    assert "deep/one" in pictures["one"].name or pictures["one"].name == "one.png"


def test_a_run_that_is_done_exports_later_and_one_that_goes_on_all_of_it(
    classifier: Classifier, folder: Path
) -> None:
    explain(classifier, folder, boxes="largest")
    out = folder.parent / "out"
    assert not list(out.glob("boxes-*"))
    Image.fromarray(picture((2, 2, 0))).save(folder / "new.png")
    (broken := folder / "torn.png").write_bytes(b"no picture")
    records = explain(classifier, folder, boxes="largest", export="coco", resume=True)
    assert [Path(r.source).name for r in records if not r.error] == ["new.png"]
    (written,) = out.glob("boxes-*/gradcam.json")
    assert sorted(p.name for p in read_annotations(written)) == [
        "both.png", "deep/one.png", "new.png",
    ]  # fmt: skip
    assert broken.name not in written.read_text()
    assert not list(out.rglob("*.part"))


def test_what_another_run_exported_stays(classifier: Classifier, folder: Path) -> None:
    for threshold in (0.2, 0.5):
        explain(classifier, folder, boxes="all", box_threshold=threshold, export="coco")
    assert len(list((folder.parent / "out").glob("boxes-*/gradcam.json"))) == 2


def test_layers_one_by_one_are_exported_apart(classifier: Classifier, folder: Path) -> None:
    options: dict[str, Any] = {"target_layers": "pool,layer", "layer_fusion": "none"}
    explain(classifier, folder, boxes="all", export="coco", **options)
    names = sorted(p.name for p in (folder.parent / "out").glob("boxes-*/*"))
    assert names == ["gradcam_layer.json", "gradcam_pool.json"]


def test_records_come_back_from_their_lines(classifier: Classifier, folder: Path) -> None:
    records = explain(classifier, folder, boxes="all", box_threshold=0.5)
    out = folder.parent / "out"
    lines = list(read_manifest(out / "manifest.jsonl"))
    assert [parse_record(line, out).boxes for line in lines] == [r.boxes for r in records]
    assert parse_record(lines[0], out).boxes[0] == HotBox(Box(0, 10, 10, 30), 180)
    # lines of earlier versions have none
    old = {
        name: value for name, value in lines[0].items() if name not in ("boxes", "box_threshold")
    }
    assert parse_record(old, out).boxes == ()


def test_sheets_and_videos_have_them_too(classifier: Classifier, tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    Image.fromarray(picture((1, 1, 0))).save(place / "a.png")
    records = explain(
        classifier, place, method="all", boxes="all", contour=True, set={"masks": 4, "samples": 1}
    )
    assert len(records) > 5 and all(record.sheet for record in records)
    assert all(record.box_threshold == 0.2 for record in records)
    assert any(record.boxes for record in records)
    (place / "a.png").unlink()
    write_video(place / "clip.mp4")
    frames = explain(classifier, place, boxes="all", export="coco", save_path=tmp_path / "film")
    assert len(frames) > 1 and all(record.box_threshold == 0.2 for record in frames)
    assert not list((tmp_path / "film").glob("boxes-*"))


def test_what_cannot_be_exported_is_refused(classifier: Classifier, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--export coco writes the boxes .*give --boxes"):
        from_keywords(export="coco")
    with pytest.raises(UsageError, match=r"--box-threshold 0.5 is for --boxes and --contour"):
        from_keywords(box_threshold=0.5)
    with pytest.raises(ConfigError, match="boxes takes largest or all"):
        from_keywords(boxes="img.jpg")
    with pytest.raises(UsageError, match=r"one.png is one file: name a folder"):
        explain(
            classifier, folder / "both.png", boxes="all", export="voc", save_path=Path("one.png")
        )
    Image.fromarray(picture()).save(folder / "both.jpg")
    with pytest.raises(UsageError, match=r"two pictures would write both.xml: give --export coco"):
        explain(classifier, folder, boxes="all", export="voc")
    shared = from_keywords(boxes="all", export="coco")
    with pytest.raises(UsageError, match="several processes share this run: leave it out"):
        sharding.check_can_shard(shared)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["--boxes", "img.jpg"], ["--boxes=largest", "img.jpg"]),
        (["img.jpg", "--boxes"], ["img.jpg", "--boxes=largest"]),
        (["--boxes", "all", "img.jpg"], ["--boxes", "all", "img.jpg"]),
        (["--boxes", "none"], ["--boxes", "none"]),
        (["--boxes=all"], ["--boxes=all"]),
        (["--boxes", "--", "all"], ["--boxes=largest", "--", "all"]),
        (["--", "--boxes"], ["--", "--boxes"]),
    ],
)
def test_boxes_alone_takes_no_picture_for_its_value(
    typed: Sequence[str], completed: Sequence[str]
) -> None:
    assert complete_boxes(typed) == completed


def test_the_command_prints_where_boxes_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(picture((1, 1, 0))).save(tmp_path / "a.png")
    out = str(tmp_path / "out")
    typed = ["--boxes", str(tmp_path / "a.png"), "--contour", "--export", "yolo", "--json"]
    assert main([*typed, "--img-size", "64", "--device", "cpu", "--save-path", out]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["box_threshold"] == 0.2
    (place,) = (tmp_path / "out").glob("boxes-*/gradcam")
    assert f"boxes of pictures: {place}" in printed.err.replace("\n", "")
    assert (place / "data.yaml").exists()
