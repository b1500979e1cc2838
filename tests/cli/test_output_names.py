"""What files are called: typed as a person would who tries several things in one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from camcli.cli.app import main
from camcli.report.stored_heatmaps import read_heatmaps
from camcli.runs import verify_folder
from tests.cli.conftest import Result, Run

PLAIN = "flower_gradcam_3-class_3"


CLASS = ("--target-category", "3")


def typed(camviz: Run, *words: str, model: str = "net") -> Result:
    return camviz(*words, *CLASS, model=model)


def names(folder: Path, pattern: str = "*_*") -> list[str]:
    return sorted(path.name for path in (folder / "camviz-out").glob(pattern))


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "camviz-out" / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


TRIED = {
    ("--colormap", "viridis"): "flower_gradcam_3-class_3_viridis.jpg",
    ("--target-layers", "middle"): "flower_gradcam_middle_3-class_3.jpg",
    ("--target-layers", "middle,last"): "flower_gradcam_middle+last_mean_3-class_3.jpg",
    ("--alpha", "0.3"): "flower_gradcam_3-class_3_alpha0.3.jpg",
    ("--aug-smooth",): "flower_gradcam_3-class_3_aug_smooth.jpg",
    ("--outside", "keep", "--caption"): "flower_gradcam_3-class_3_outside=keep+caption.jpg",
    ("--boxes",): "flower_gradcam_3-class_3_boxes=largest.jpg",
    ("--target-layers", "middle", "--colormap", "hot"): "flower_gradcam_middle_3-class_3_hot.jpg",
}


def test_the_name_says_what_differs(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg")
    for words, name in TRIED.items():
        result = typed(camviz, "flower.jpg", *words)
        assert f"camviz: named {name}: the plain name is another run's (there " in result.err
    assert names(folder) == sorted([f"{PLAIN}.jpg", *TRIED.values()])
    # the same again has the same names, in whatever order
    before = {path: path.read_bytes() for path in (folder / "camviz-out").glob("*.jpg")}
    for words in reversed(list(TRIED)):
        typed(camviz, "flower.jpg", *words)
    after = {path: path.read_bytes() for path in (folder / "camviz-out").glob("*.jpg")}
    assert before == after
    renamed = {Path(line["outputs"][0]).name: line["renamed"] for line in records(folder)}
    assert renamed[f"{PLAIN}.jpg"] == ""
    assert renamed[f"{PLAIN}_viridis.jpg"] == (
        "the plain name is another run's (there colour map jet, here viridis)"
    )


def test_another_model_is_named(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg")
    typed(camviz, "flower.jpg", model="other")
    (new,) = set(names(folder)) - {f"{PLAIN}.jpg"}
    assert new.startswith("flower_gradcam_net.py_other~") and new.endswith("_3-class_3.jpg")


def test_what_no_word_tells_has_a_mark(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg")
    result = typed(camviz, "flower.jpg", "--seed", "7")
    (new,) = set(names(folder)) - {f"{PLAIN}.jpg"}
    assert (
        new.startswith(f"{PLAIN}~") and "(other options, for which the mark stands)" in result.err
    )


def test_gradcam_beside_another_method_is_the_same_picture(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg")
    alone = (folder / "camviz-out" / f"{PLAIN}.jpg").read_bytes()
    typed(camviz, "flower.jpg", "--method", "gradcam,layercam")
    assert names(folder) == [f"{PLAIN}.jpg", "flower_layercam_3-class_3.jpg"]
    assert (folder / "camviz-out" / f"{PLAIN}.jpg").read_bytes() == alone
    # the report has it once
    stored = read_heatmaps(folder / "camviz-out")
    assert [each.record.method for each in stored] == ["gradcam", "layercam"]
    # both runs are whole, and go on
    assert all(file.state == "whole" for file in verify_folder(folder / "camviz-out"))
    for words in ((), ("--method", "gradcam,layercam")):
        assert (
            "1 of 1 were done before" in typed(camviz, "flower.jpg", "--skip-existing", *words).err
        )


def test_a_map_beside_the_same_picture_is_added(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg", "--colormap", "hot")
    typed(camviz, "flower.jpg", "--colormap", "hot", "--save-map", "npy")
    assert names(folder) == [f"{PLAIN}.jpg", f"{PLAIN}.jpg.npy"]
    # a map of another size is another file
    typed(camviz, "flower.jpg", "--colormap", "hot", "--save-map", "npy", "--map-size", "image")
    both = [f"{PLAIN}.jpg", f"{PLAIN}_image.jpg"]
    assert names(folder) == sorted([*both, *(f"{name}.npy" for name in both)])


def test_the_stem_alone_names_a_picture_in_another_format(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg", "--format", "png")
    assert names(folder) == [f"{PLAIN}.png"]
    # but for one that would take another's name
    Image.open(folder / "flower.jpg").save(folder / "flower.png")
    shutil.rmtree(folder / "camviz-out")
    typed(camviz, "flower.jpg", "flower.png", "--format", "png")
    assert names(folder) == ["flower.jpg_gradcam_3-class_3.png", f"{PLAIN}.png"]
    shutil.rmtree(folder / "camviz-out")
    typed(camviz, "flower.jpg", "flower.png")
    assert names(folder) == [f"{PLAIN}.jpg", f"{PLAIN}.png"]


def test_an_input_of_another_run_is_told_by_its_whole_name(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg", "--format", "png")
    Image.open(folder / "flower.jpg").convert("L").save(folder / "flower.png")
    result = typed(camviz, "flower.png", "--format", "png")
    assert "the plain name belongs to another input" in result.err
    Image.open(folder / "flower.jpg").save(folder / "flower.bmp")
    typed(camviz, "flower.bmp", "--format", "png")
    assert "flower.bmp_gradcam_3-class_3.png" in names(folder)


@pytest.mark.parametrize("is_merged", [True, False])
def test_ranks_name_what_differs_as_one_process_does(
    camviz: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, is_merged: bool
) -> None:
    (folder / "photos").mkdir()
    for name in "abc":
        shutil.copy(folder / "flower.jpg", folder / "photos" / f"{name}.jpg")

    def run_ranks(world: int, *words: str) -> str:
        said = ""
        for rank in range(world):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(world))
            said += typed(camviz, "photos", *words).err
        return said

    run_ranks(2)
    if is_merged:
        assert main(["merge", "camviz-out"]) == 0
    assert "named a_gradcam_3-class_3_hot.jpg" in run_ranks(2, "--colormap", "hot")
    assert main(["merge", "camviz-out"]) == 0
    # with other shares, so that the plain name of a picture is one that another rank wrote
    said = run_ranks(3, "--target-layers", "middle")
    assert "named b_gradcam_middle_3-class_3.jpg" in said
    assert main(["merge", "camviz-out"]) == 0
    endings = ("gradcam_3-class_3", "gradcam_3-class_3_hot", "gradcam_middle_3-class_3")
    expected = [f"{letter}_{ending}.jpg" for letter in "abc" for ending in endings]
    assert names(folder) == sorted(expected)
    assert sorted(Path(line["outputs"][0]).name for line in records(folder)) == sorted(expected)


def test_names_stay_when_a_run_goes_on(camviz: Run, folder: Path) -> None:
    photo = Image.open(folder / "flower.jpg")
    (folder / "photos").mkdir()
    for name in "ab":
        photo.save(folder / "photos" / f"{name}.jpg")
    typed(camviz, "photos")
    typed(camviz, "photos", "--colormap", "hot")
    expected = [f"{name}_gradcam_3-class_3{end}.jpg" for name in "ab" for end in ("", "_hot")]
    assert names(folder) == sorted(expected)
    # one is lost, and made again under its name, by the run whose it is
    (folder / "camviz-out" / "b_gradcam_3-class_3_hot.jpg").unlink()
    typed(camviz, "photos", "--colormap", "hot", "--resume")
    assert names(folder) == sorted(expected)


def test_names_are_the_same_in_shards(
    camviz: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "photos").mkdir()
    for name in "abc":
        shutil.copy(folder / "flower.jpg", folder / "photos" / f"{name}.jpg")
    typed(camviz, "photos", "--save-path", "camviz-out")
    whole = names(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        typed(camviz, "photos", "--colormap", "hot")
    hot = [name.replace(".jpg", "_hot.jpg") for name in whole]
    assert names(folder, "*_*.jpg") == sorted([*whole, *hot])
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    # joined, and done again by one process, they are the same
    assert main(["merge", "camviz-out"]) == 0
    typed(camviz, "photos", "--colormap", "hot")
    assert names(folder, "*_*.jpg") == sorted([*whole, *hot])


def test_a_folder_of_an_older_version_keeps_its_names(camviz: Run, folder: Path) -> None:
    typed(camviz, "flower.jpg")
    manifest = folder / "camviz-out" / "manifest.jsonl"
    (line,) = records(folder)
    new = ("colormap", "alpha", "drawing", "recipe", "beside", "renamed")
    manifest.write_text(json.dumps({k: v for k, v in line.items() if k not in new}) + "\n")
    # what it does not say cannot be named
    typed(camviz, "flower.jpg", "--colormap", "viridis")
    (marked,) = set(names(folder)) - {f"{PLAIN}.jpg"}
    assert marked.startswith(f"{PLAIN}~")
    # what it says can
    typed(camviz, "flower.jpg", "--target-layers", "middle")
    assert "flower_gradcam_middle_3-class_3.jpg" in names(folder)
    typed(camviz, "flower.jpg")
    assert len(names(folder)) == 3


def test_a_video_says_what_differs(camviz: Run, folder: Path) -> None:
    frames = [Image.new("RGB", (48, 40), color) for color in ("red", "blue")]
    frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:])
    typed(camviz, "clip.gif", "--frames", ":")
    result = typed(camviz, "clip.gif", "--frames", ":", "--colormap", "hot")
    name = "clip_gradcam_3-class_3_hot.mp4"
    assert names(folder) == ["clip_gradcam_3-class_3.mp4", name]
    assert f"named {name}: the plain name is another run's (there colour map jet" in result.err
