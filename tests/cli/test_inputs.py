"""What is named reaches the pipeline as sources."""

from __future__ import annotations

import os
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from PIL import Image

from camcli.cli.app import main
from tests.cli.conftest import Asked, Run
from tests.outputs import outputs
from tests.runs.runs import make_sources, run_to_end


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.jpg", "-b.jpg", "[c].jpg", "in/d.jpg"):
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "red").save(path)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def given(asked: Asked, run: Run, *arguments: str) -> list[str]:
    result = run(*arguments)
    assert result.code == 0, result.err
    return [str(source) for source in asked.sources]


@pytest.mark.usefixtures("folder")
def test_every_kind_of_input(asked: Asked, run: Run) -> None:
    Path("list.csv").write_text("path,category\nin/d.jpg,tabby\n")
    assert given(asked, run, ".") == ["-b.jpg", "[c].jpg", "a.jpg", "in/d.jpg"]
    assert given(asked, run, ".", "--no-recursive") == ["-b.jpg", "[c].jpg", "a.jpg"]
    assert given(asked, run, "**/[ad].jpg") == ["a.jpg", "in/d.jpg"]
    assert given(asked, run, "[c].jpg", "in") == ["[c].jpg", "in/d.jpg"]
    assert given(asked, run, "@list.csv", "a.jpg") == ["in/d.jpg", "a.jpg"]
    assert [source.category for source in asked.sources] == ["tabby", ""]
    assert given(asked, run, "-q", "--", "-b.jpg", "a.jpg") == ["-b.jpg", "a.jpg"]


@pytest.mark.usefixtures("folder")
def test_overlays_of_an_earlier_run_are_no_pictures_and_others_manifests_no_hindrance(
    asked: Asked, run: Run
) -> None:
    for name in ("old", "old/in", "shared"):
        Path(name).mkdir()
        Image.new("RGB", (4, 4)).save(f"{name}/mine.jpg")
    run_to_end(Path("old"), make_sources("x.jpg"))
    run_to_end(Path("shared"), make_sources("y.jpg"), shard=(0, 2))
    Path("in/manifest.jsonl").write_text('{"audio_filepath": "d.wav"}\n')
    mine = ["in/d.jpg", "old/mine.jpg", "old/in/mine.jpg", "shared/mine.jpg"]
    assert given(asked, run, ".")[3:] == mine
    assert given(asked, run, "old") == ["old/mine.jpg", "old/x_0.jpg", "old/in/mine.jpg"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "typed",
    [("-",), ("-", "-q"), ("-q", "-"), ("--", "-"), ("explain", "-"), ("--alpha", "1", "-")],
)
def test_a_dash_reads_stdin(
    asked: Asked, run: Run, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...]
) -> None:
    stdin = TextIOWrapper(BytesIO(b"a.jpg\n-b.jpg\ngone.jpg\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert given(asked, run, *typed) == ["a.jpg", "-b.jpg", "gone.jpg"]


WRONG = {
    "-": ("Standard input names no pictures",),
    "@gone.txt": ("List 'gone.txt' does not exist",),
    "*.gif": ("Glob '*.gif' matches no images",),
    "s3::x://y": ("'s3::x://y' does not exist",),
    "nope://x/y.jpg": ("'nope://x/y.jpg' has a protocol that nobody knows",),
    f"memory://{'x' * 3000}.jpg": ("does not exist, or cannot be reached",),
    os.devnull: ("is a device, and no file",),
}


@pytest.mark.usefixtures("folder", "asked")
@pytest.mark.parametrize("typed", WRONG)
def test_inputs_that_are_not_there(run: Run, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"\n")))
    result = run("a.jpg", typed)
    assert (result.code, result.out) == (2, "")
    for words in WRONG[typed]:
        assert words in result.err


@pytest.mark.usefixtures("small_embedded")
def test_paths_from_stdin_keep_their_bytes_and_their_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    name = b"in/\xff\n.jpg"
    Path("in/d.jpg").rename(os.fsdecode(name))
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(name + b"\0gone/e.jpg\0")))
    code = main(["-", "-q", "--target-layers", "features"])
    told = capsysbinary.readouterr()
    assert code == 1, told.err
    assert told.out.startswith(b"camviz-out/in/\xff\n_gradcam_")
    (written,) = outputs(Path("camviz-out/in"))
    assert os.fsencode(written.name).startswith(b"\xff\n_gradcam_")
    assert b"gone/e.jpg" in told.err and b"Traceback" not in told.err
    assert not (folder / "here" / "camviz-out" / "gone").exists()
