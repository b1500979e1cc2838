"""Names and labels that would steer a terminal, mark text up or leave a folder, end to end."""

from __future__ import annotations

import inspect
import json
import os
import unicodedata
from pathlib import Path

import pytest
import typer
from PIL import Image

from camcli.cli.app import app
from camcli.cli.printer import Printer
from camcli.config import Options, PreprocessingOptions
from camcli.media.output_names import UNSAFE_CATEGORIES, UNSAFE_CHARACTERS
from camcli.records import Record
from tests.cli.conftest import Run

LABELS = (
    "a/../../../b",
    "..",
    "[red]red[/red][/]",
    "[link=file:///etc/passwd]x[/link]",
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egnp\u2066\u200b",
    "nul\x00nul\x7f\x9b",
    "=cmd()|'/c calc'!A1",
    "{0.__class__} %s $(id) `id`",
)
TINY = ("-m", "timm/test_resnet", "--no-pretrained", "--num-classes", str(len(LABELS)))


@pytest.fixture
def list_typed(tmp_path: Path) -> tuple[str, ...]:
    Image.new("RGB", (40, 30), (90, 20, 200)).save(tmp_path / "a.png")
    class_map = tmp_path / "labels.txt"
    class_map.write_text("\n".join(LABELS), encoding="utf-8")
    return (
        str(tmp_path / "a.png"),
        *TINY,
        *("--class-map", str(class_map), "--device", "cpu"),
        *("--save-path", str(tmp_path / "out"), "--method", "eigencam,gradcam"),
    )


def is_quiet(text: str) -> bool:
    """Tells whether nothing in a text steers a terminal."""
    return all(c.isprintable() for line in text.split("\n") for c in line)


@pytest.mark.parametrize("style", ["", "-q", "--json"])
def test_no_label_reaches_a_terminal_or_a_path_as_it_is(
    run: Run, tmp_path: Path, list_typed: tuple[str, ...], style: str
) -> None:
    result = run(*list_typed, "--top-k", str(len(LABELS)), *([style] if style else []))
    assert result.code == 0, result.err
    assert is_quiet(result.out) and is_quiet(result.err)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    made = [path for path in written if path.name not in ("a.png", "labels.txt")]
    assert len([path for path in made if path.suffix == ".png"]) == len(LABELS) + 1
    for path in made:
        assert path.parent == tmp_path / "out"
        assert not UNSAFE_CHARACTERS & set(path.name)
        assert not {unicodedata.category(c) for c in path.name} & UNSAFE_CATEGORIES
    if not style:
        # shown as they are, where they harm nothing: rich would take the brackets for colours
        assert "[red]red[/red][/]" in result.out
        assert r"\x1b[31mred\x1b]0;title\x07" in result.out
    if style == "--json":
        message = {json.loads(line)["label"] for line in result.out.splitlines()}
        assert set(LABELS) <= message


def test_a_wrong_category_shows_no_label_as_it_is(run: Run, list_typed: tuple[str, ...]) -> None:
    result = run(*list_typed, "--target-category", "\x1b[31mred\n[bold]x")
    assert result.code == 2
    assert is_quiet(result.err) and "[bold]x" in result.err


def test_the_layers_of_a_model_are_shown_with_such_labels(
    run: Run, list_typed: tuple[str, ...]
) -> None:
    result = run(*list_typed[1:], "--preview-model")
    assert result.code == 0 and is_quiet(result.out)


NAMES = (
    "a\nb.png",
    "\x1b[31m[red].png",
    "\udce9.png",
    "-rf.png",
    "\u202egnp.png",
    "猫" * 80 + ".png",
)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("good", [True, False])
def test_no_name_of_a_file_reaches_a_terminal_as_it_is(
    run: Run, tmp_path: Path, name: str, good: bool
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        Image.new("RGB", (40, 30)).save(folder / name)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system has no such names")
    if not good:
        (folder / name).write_bytes(b"no picture")
    out = tmp_path / "out"
    result = run(str(folder), *TINY, "--device", "cpu", "--save-path", str(out))
    assert result.code == (0 if good else 1)
    assert is_quiet(result.out) and is_quiet(result.err)
    pictures = list(out.rglob("*.png")) if out.is_dir() else []
    assert len(pictures) == int(good)
    assert all(len(os.fsencode(path.name)) <= 255 for path in pictures)
    # one line tells of one picture, however many lines its name has
    message = result.out if good else result.err
    assert len([line for line in message.splitlines() if ".png" in line]) == 1


def test_paths_are_bytes_for_programs_and_escaped_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(source="a", outputs=("out/\x1b[31m.png",))
    Printer("paths").record(record)
    assert capsys.readouterr().out == "out/\x1b[31m.png\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Printer("paths").record(record)
    assert capsys.readouterr().out == "out/\\x1b[31m.png\n"


def test_a_warning_of_the_whole_run_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer("json")
    printer.warn(["no places"])
    for source in ("a.png", "b.png"):
        printer.record(Record(source=source, warnings=("no places", "an empty map")))
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "camviz: no places",
        "camviz: a.png: an empty map",
        "camviz: b.png: an empty map",
    ]
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert [r["warnings"] for r in records] == [["no places", "an empty map"]] * 2


def test_a_picture_of_too_many_pixels_is_reported_and_the_others_are_done(
    run: Run, tmp_path: Path
) -> None:
    for name, size in {"a": (40, 30), "b": (41, 30), "c": (30, 40)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    result = run(
        str(tmp_path), *TINY, "--device", "cpu", "--save-path", str(tmp_path / "out"), "-q",
        "--max-pixels", "1.2k",
    )  # fmt: skip
    assert result.code == 1
    assert len(result.out.splitlines()) == 2
    assert "b.png': its 41 x 30 pixels are too many for --max-pixels 1200" in result.err


def test_there_is_no_switch_that_trusts_what_comes_in() -> None:
    command = typer.main.get_command(app)
    names = {*Options.model_fields, *PreprocessingOptions.model_fields}
    for sub_command in command.commands.values():  # type: ignore[attr-defined]
        for parameter in sub_command.params:
            names |= {parameter.name, *parameter.opts, *parameter.secondary_opts}
    assert {"--model", "--max-pixels", "checkpoint"} <= names
    for name in names:
        for word in ("trust", "unsafe", "allow", "insecure", "pickle", "remote"):
            assert word not in name, name


def test_nothing_loads_pickles_or_yaml_with_code() -> None:
    import camcli

    root = Path(inspect.getfile(camcli)).parent
    for file in root.rglob("*.py"):
        if file.name in ("spool.py", "process_pool.py"):
            continue  # they read what their own process wrote, or one that it forked
        text = file.read_text(encoding="utf-8")
        for call in (
            "weights_only=False",
            "pickle.load",
            "yaml.load",
            "yaml.full",
            "yaml.unsafe",
            "jit.load",
            "allow_pickle=True",
        ):
            assert call not in text, (file, call)
