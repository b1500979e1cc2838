"""The command as people start it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from camcli.models.embedded.weights import PACKAGE
from tests.checkout import ROOT
from tests.outputs import outputs

HEAVY = ("torch", "timm", "torchvision", "numpy", "cv2", "av", "PIL", "pydantic")


def camviz(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "camcli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **environ},
    )


@pytest.mark.parametrize(
    ("arguments", "code", "stream", "message"),
    [
        ((), 2, "err", "--target-layers"),
        (("--help",), 0, "out", "--target-layers"),
        (("--version",), 0, "out", "camviz 0."),
        (("--nope",), 2, "err", "camviz: No such option: --nope"),
        (("nowhere.jpg",), 2, "err", "'nowhere.jpg' does not exist"),
        (("methods",), 0, "out", "gradcam++"),
        (("help", "presets"), 0, "out", "--cfg-options"),
    ],
)
def test_main_paths(arguments: tuple[str, ...], code: int, stream: str, message: str) -> None:
    done = camviz(*arguments)
    shown = {"out": done.stdout, "err": done.stderr}
    assert done.returncode == code, done.stderr
    assert message in shown.pop(stream)
    assert shown.popitem()[1] == ""
    assert "Traceback" not in done.stderr and "\x1b" not in done.stdout + done.stderr


def test_no_color_is_honoured_where_colour_is_forced() -> None:
    assert "\x1b[1m" in camviz("nowhere.jpg", FORCE_COLOR="1").stderr
    forced = camviz("methods", FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b[3" not in forced


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    code = (
        "import sys; from camcli.cli.app import main; main(sys.argv[1:]); "
        f"print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stderr.strip() == "[]"


# what a run has no use for that draws no sheet, compares no models and exports no boxes
UNASKED = {
    "matplotlib", "yaml", "xml", "pyexpat", "camcli.render.colour_bar",
    "camcli.render.sheet_painting", "camcli.render.sheet_vectors",
    "camcli.pipeline.sheets.arrangement", "camcli.pipeline.sheets.run_sheet",
    "camcli.pipeline.comparison.model_comparison", "camcli.render.terminal.encodings",
}  # fmt: skip
# models one after the other, each with what is not imported until then
NOT_NEEDED = (
    # sympy comes with torch's tracing, which takes half a second
    (
        "embedded",
        {"timm", "torchvision", "sympy", "huggingface_hub", "safetensors", PACKAGE, *UNASKED},
    ),
    ("squeezenet1_1 --no-pretrained --img-size 64", {"timm"}),
    ("torchvision/squeezenet1_1 --no-pretrained --img-size 64", {"timm"}),
)


def test_a_run_imports_what_its_model_needs(tmp_path: Path) -> None:
    picture = str(ROOT / "demo_images" / "coffee.png")
    typed = [picture, "-q", "--save-path", str(tmp_path), "--device", "cpu"]
    code = (
        "import sys; from camcli.cli.app import main\n"
        f"for model, names in {NOT_NEEDED}:\n"
        f"    code = main([*{typed}, '-m', *model.split()])\n"
        "    print(code, sorted(names & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    first, *others = [line for line in done.stderr.splitlines() if line.startswith("0 ")]
    is_excused = first == "0 ['sympy']" and needs_sympy_on_meta_device()
    assert first == "0 []" or is_excused, done.stderr
    assert others == ["0 []", "0 []"], done.stderr


def needs_sympy_on_meta_device() -> bool:
    """Tells whether torch imports it where a module is built without numbers, as torch 2.7 does."""
    code = (
        "import sys, torch; torch.empty(1, device='meta').uniform_(); print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout == "True\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    # the pipe's reader is gone before the first line is written
    command = f"({shlex.quote(sys.executable)} -m camcli methods; echo code $? >&2) | true"
    done = subprocess.run(
        ["sh", "-c", f"sleep 0.1; {command}"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr in ("code 1\n", "code 0\n")


def test_file_names_that_are_not_utf8_come_out_as_they_went_in() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "camcli", b"no\xffwhere.jpg"],
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"camviz: ") and b"\\udcff" in done.stderr


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    command = ["demo_images/cat_and_coffee.jpg", str(bad), "-q", "--save-map", "npy"]
    methods = ["gradcam++", "randomcam", "eigencam"]
    names = []
    for folder in ("one", "two"):
        out = tmp_path / folder
        done = camviz(*command, "--method", ",".join(methods), "--save-path", str(out))
        assert done.returncode == 1 and "bad.jpg" in done.stderr
        assert "Traceback" not in done.stderr
        paths = [Path(line) for line in done.stdout.splitlines()]
        assert all(path.is_file() and path.parent == out for path in paths)
        names.append([path.name for path in paths])
    assert names[0] == names[1]
    assert len(names[0]) == 6
    for method in methods:
        assert sum(name.startswith(f"cat_and_coffee_{method}_") for name in names[0]) == 2
    for name in names[0]:
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


# Ctrl-C


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(300):
        Image.new("RGB", (32, 24), (n % 256, 9, 200)).save(folder / f"{n:03}.png")
    return folder


def _start(many: Path, *more: str) -> subprocess.Popen[str]:
    """Starts a run, and returns when the first heatmap is there."""
    out = str(many.parent / "out")
    command = [sys.executable, "-m", "camcli", str(many), "-q", "--save-path", out, *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, cwd=ROOT, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    """Reads standard error until it says something, and returns all of it."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def _rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    # communicate() would pass over what is read ahead with a line
    with process:
        assert process.stdout is not None and process.stderr is not None
        return process.stdout.read(), process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_an_interrupted_run_finishes_what_is_begun(many: Path) -> None:
    process = _start(many, "-b", "1")
    process.send_signal(signal.SIGINT)
    said = _read_until(process, "camviz: interrupted")
    # one more at the very end is passed over
    process.send_signal(signal.SIGINT)
    out, more = _rest(process)
    assert process.returncode == 130
    assert "finishing what is in flight" in said and "--resume" in said
    assert "Traceback" not in said and not more
    written = outputs(many.parent / "out")
    # the first line is read already
    assert len(written) == 1 + len(out.splitlines()) < 300
    for path in written:
        with Image.open(path) as picture:
            picture.load()


@pytest.mark.slow  # tests/pipeline/test_shutdown.py has it in process
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_second_interruption_stops_at_once(many: Path) -> None:
    process = _start(many, "--method", "rise", "--set", "masks=40", "-b", "1")
    # as `kill` and clusters say it: either signal may be the first
    process.send_signal(signal.SIGTERM)
    _read_until(process, "finishing")
    process.send_signal(signal.SIGINT)
    _, err = _rest(process)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "camviz: interrupted"
    assert not [path for path in (many.parent / "out").iterdir() if ".part" in path.name]
