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
        (("pyproject.toml", "--method", "gradcm"), 2, "err", "'gradcam'"),
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


@pytest.mark.parametrize(
    ("model", "not_needed"),
    [
        # sympy comes with torch's tracing, which takes half a second
        (["embedded"], ["timm", "torchvision", "sympy", "huggingface_hub"]),
        pytest.param(
            ["torchvision/squeezenet1_1", "--no-pretrained"], ["timm"], marks=pytest.mark.slow
        ),
        (["squeezenet1_1", "--no-pretrained"], ["timm"]),
    ],
)
def test_a_run_imports_what_its_model_needs(
    model: list[str], not_needed: list[str], tmp_path: Path
) -> None:
    code = (
        "import sys; from camcli.cli.app import main; code = main(sys.argv[1:]); "
        f"print(code, sorted(set({not_needed}) & set(sys.modules)))"
    )
    picture = str(ROOT / "demo_images" / "coffee.png")
    command = [picture, "--save-path", str(tmp_path), "--device", "cpu", "-m", *model]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, cwd=ROOT
    )
    imported = done.stdout.splitlines()[-1]
    is_excused = imported == "0 ['sympy']" and needs_sympy_on_meta_device()
    assert imported == "0 []" or is_excused, done.stderr


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


def test_from_picture_to_heatmap(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    done = camviz("demo_images/coffee.png", str(bad), "--save-path", str(tmp_path / "out"), "-q")
    assert done.returncode == 1
    (path,) = done.stdout.splitlines()
    assert Path(path).is_file() and Path(path).parent == tmp_path / "out"
    assert Path(path).name.startswith("coffee_gradcam_")
    assert "bad.jpg" in done.stderr


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    command = ["demo_images/cat_and_coffee.jpg", "--method", "gradcam++,randomcam,eigencam", "-q"]
    names = []
    for folder in ("one", "two"):
        done = camviz(*command, "--save-map", "npy", "--save-path", str(tmp_path / folder))
        assert done.returncode == 0, done.stderr
        names.append([Path(line).name for line in done.stdout.splitlines()])
    assert names[0] == names[1]
    assert len(names[0]) == 6
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


def _interrupt(process: subprocess.Popen[str], until: str) -> None:
    """Sends Ctrl-C, and returns when standard error says something."""
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while until not in (line := process.stderr.readline()):
        assert line


def _rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    # communicate() would pass over what is read ahead with a line
    with process:
        assert process.stdout is not None and process.stderr is not None
        return process.stdout.read(), process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_finishes_what_is_begun(many: Path, number: signal.Signals) -> None:
    process = _start(many, "-b", "1")
    process.send_signal(number)
    out, err = _rest(process)
    assert process.returncode == 130
    assert "finishing what is in flight" in err and "--resume" in err
    assert err.splitlines()[-1] == "camviz: interrupted"
    assert "Traceback" not in err
    written = outputs(many.parent / "out")
    # the first line is read already
    assert len(written) == 1 + len(out.splitlines()) < 300
    for path in written:
        with Image.open(path) as picture:
            picture.load()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_second_interruption_stops_at_once(many: Path) -> None:
    process = _start(many, "--method", "rise", "--set", "masks=100", "-b", "1")
    _interrupt(process, until="finishing")
    process.send_signal(signal.SIGINT)
    _, err = _rest(process)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "camviz: interrupted"
    assert not [path for path in (many.parent / "out").iterdir() if ".part" in path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_an_interruption_at_the_very_end_is_passed_over(many: Path) -> None:
    process = _start(many, "-b", "1")
    _interrupt(process, until="camviz: interrupted")
    process.send_signal(signal.SIGINT)
    _, err = _rest(process)
    assert process.returncode == 130
    assert not err
