"""`camviz tune`: what is printed and written, and what is wrong input."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.cli.app import main
from camcli.media.annotations import FORMATS, Instance, PictureAnnotations
from camcli.pipeline.tuning import search
from camcli.records import Box

EDGE = 48
FAST = ["--img-size", "64", "--device", "cpu", "--method", "gradcam,layercam"]
FAST += ["--layers", "_blocks,features"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    place.mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        pixels = draw.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((EDGE, EDGE)).save(place / f"{number}.png")
    return place


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    known = [
        PictureAnnotations(f"{n}.png", (Instance("thing", Box(4, 4, 24, 30)),), (EDGE, EDGE))
        for n in range(4)
    ]
    write = FORMATS["coco"].write
    assert write is not None
    write(known, tmp_path / "boxes.json")
    return tmp_path / "boxes.json"


@pytest.mark.usefixtures("small_embedded")
def test_it_says_what_it_will_do_and_what_the_choice_is_worth(
    folder: Path, boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    typed = ["tune", str(folder), *FAST, "--boxes", str(boxes), "--save-path", str(out)]
    assert main(typed) == 0
    printed = capsys.readouterr()
    assert "candidates: 4 single maps (gradcam, layercam at _blocks, features)" in printed.err
    assert "4 pictures: chosen on 3; held back: 1; at most 8 passes (--budget 6000)" in printed.err
    assert "ranked by boxes, for balanced: the mean of pointing_game, heat_inside" in printed.err
    assert "score \N{UPWARDS ARROW}" in printed.out and "box_iou" in printed.out
    assert "gradcam: gradcam@features" in printed.out and "chosen: --method " in printed.out
    preset = out / "camviz-tune.toml"
    assert f"use it: camviz IMAGE --config {preset}" in printed.out
    assert tomllib.loads(preset.read_text())["model"] == "embedded"
    # one picture tells nothing, and the file says so, too
    if "--method gradcam --target-layers features" not in printed.out:
        assert "the preset is not worth using" in printed.out
        assert "the preset is not worth using" in preset.read_text()
    # an earlier preset stays
    before = preset.read_bytes()
    assert main([*typed, "-q"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out / 'camviz-tune-2.toml'}\n"
    assert preset.read_bytes() == before


@pytest.mark.usefixtures("small_embedded")
def test_without_boxes_it_says_that_faithfulness_ranks_and_what_it_cost(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "torn.png").write_bytes(b"")
    preset = tmp_path / "deep" / "mine.toml"
    typed = ["tune", str(folder), *FAST, "--budget", "1500", "--json"]
    assert main([*typed, "--save-preset", str(preset)]) == 1
    printed = capsys.readouterr()
    assert "ranked by faithfulness, since there are no boxes" in printed.err
    assert "torn.png" in printed.err
    said = json.loads(printed.out)
    assert said["ranked_by"] == "faithfulness" and said["score"] == ["deletion", "insertion"]
    assert 0 < said["passes"] <= said["budget"] == 1500
    assert Path(said["preset"]) == preset and preset.exists()
    assert [Path(f["picture"]).name for f in said["failed"]] == ["torn.png"]
    assert len(said["chosen_on"]) == 2 * len(said["held_back"]) or len(said["held_back"]) == 1
    assert said["worth"][0]["metric"] == "score" and said["verdicts"][0].startswith("chosen: ")
    assert said["ranking"][0]["score"] == pytest.approx(
        (1 - said["ranking"][0]["deletion"] + said["ranking"][0]["insertion"]) / 2
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["1.png"], "1 picture given: tune needs 3 or more"),
        (["1.png", "2.png"], "2 pictures given: tune needs 3 or more"),
        ([], "No image given"),
        (["--method", "scorecam", "."], "scorecam needs more passes"),
        (["--combine", "mean", "."], "No such option: --combine"),
        (["--best-for", "extent", "."], "extent asks what the object covers"),
        (["--budget", "few", "."], "--budget few: takes a whole number of passes from 1"),
        (["--budget", "9", "."], "--budget 9 is too small"),
        (["--label-map", "map.csv", "."], "--label-map is about the objects of --boxes"),
        (["--save-preset", "1.png", "."], "--save-preset 1.png exists already"),
        (["--layers", "a", "--target-layers", "b", "."], "--layers a and --target-layers each"),
        (["--layers", "nothing", "."], "Unknown layer 'nothing'"),
        (["--json", "--quiet", "."], "--json and --quiet each say"),
    ],
)
@pytest.mark.usefixtures("small_embedded")
def test_wrong_input_is_told(
    typed: list[str],
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    size = [] if "--layers" in typed or "--method" in typed else FAST[4:]
    assert main(["tune", *FAST[:4], *size, *typed]) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == [f"{n}.png" for n in range(4)]


@pytest.mark.usefixtures("small_embedded")
def test_what_is_interrupted_leaves_nothing(
    folder: Path, boxes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    measure = search._Search.measure

    def stop(self: search._Search, *given: object) -> None:
        measure(self, *given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(search._Search, "measure", stop)
    assert main(["tune", ".", *FAST, "--boxes", str(boxes)]) == 130
    assert "stopped: no preset is written" in capsys.readouterr().err
    assert not (folder / "camviz-out").exists()


def test_it_is_among_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help-all"]) == 0
    assert "\n  tune        Find the method" in capsys.readouterr().out
