"""Whatever is typed for an option, the command runs or says what is wrong: it is no bug."""

from __future__ import annotations

import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.cli.options import Flags
from tests.cli.conftest import Run

# what is typed: nothing, spaces, numbers of every size, names of every shape, and other syntax
TEXTS = (
    "", " ", "a", "A b", "-", "--", "-1", "-x", "@x", "@/dev/null", "~", "~nobody", "~/x", "/", ".",
    "..", "/dev/null", "/dev/full", "a" * 300, "a/" * 3000, "\ud800", "\udcff.toml", "\n",
    "\x1b[31m", "1e3",
    "猫", "None", "none", "null", "true", "False", "nan", "-inf", "inf", "0", "1", "2", "7", "-0.0",
    "0.5", "5e-324", "1e-300", "1e300", "1e400", "9" * 400, "9" * 5000, "0x10", "1_000",
    "1,2", "1,,2", ",", "1x2", "0x0", "x", "1x2x3", ":", "5:2", "1:", ":1", "1:2:3", "9" * 30 + ":",
    "[", "]", "[]", "[[]]", "[1,2]", "{", "{}", "(", '"', "'", "a=b", "=", "a=", "=b", "a.b=c",
    "a.b.c.d=1", "model=", "set.x=[" * 50, "preprocessing=1", "preprocessing.mean=1e400", "%s",
    "auto", "all", "run", "cuda:99999999999999999999", "cuda:-1", "50M", "1e5G", "999999999999G",
    "x.py:f", ":f", "x:y", "os:getcwd", "a.b:c", "hf-hub:", "hf-hub:/", "timm/", "torchvision/",
    "memory://x", "file:///dev/null", "nothing://x", "1;2", "gradcam", "image", "..,..", "{0}",
)  # fmt: skip
SWITCHES = {f.name for f in fields(Flags) if "bool" in str(f.type) or f.type == "Switch"}
# they open a device, start a cluster, compile, and end a program that prints
LEFT_OUT = {"camera", "engine", "ray_workers", "compile", "version", "debug"}


# all pictures below these would be listed
FOLDERS = {"/", "..", "~"}


def line(draw: random.Random) -> list[str]:
    """One to three options with a value each."""
    words: list[str] = []
    for field in draw.sample(fields(Flags), draw.choice((1, 1, 2, 3))):
        if field.name in LEFT_OUT:
            continue
        option = f"--{field.name.replace('_', '-')}"
        value = draw.choice(TEXTS)
        if field.name in SWITCHES:
            words.append(option)
        elif draw.random() < 0.3 and "=" not in value:
            words.append(f"{option}={value}")
        else:
            words += [option, value]
    return words


def check(run: Run, words: list[str]) -> None:
    result = run(*words)
    said = (words, result.err[-600:])
    assert result.code in (0, 1, 2), said
    assert "bug in camviz" not in result.err and "Traceback" not in result.err, said


def check_lines(run: Run, image: str, seeds: range) -> None:
    for seed in seeds:
        draw = random.Random(seed)
        named = draw.choice(sorted(set(TEXTS) - FOLDERS))
        check(run, [draw.choice((image, image, named)), *line(draw)])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return str(tmp_path / "in.png")


@pytest.mark.usefixtures("asked")
def test_random_values_are_taken_or_refused(run: Run, image: str) -> None:
    check_lines(run, image, range(60))


def test_a_picture_is_explained_or_a_random_value_refused(run: Run, picture: str) -> None:
    check_lines(run, picture, range(10))


@pytest.mark.slow
@pytest.mark.usefixtures("asked")
def test_many_random_values(run: Run, image: str) -> None:
    check_lines(run, image, range(60, 4000))


@pytest.mark.slow
def test_many_random_values_of_runs(run: Run, picture: str) -> None:
    check_lines(run, picture, range(10, 400))


@pytest.mark.parametrize("number", ["5e-324", "1e-300", "1e-45", "1e-7", "1e300", "1.7e308"])
@pytest.mark.parametrize("key", ["mean", "std", "crop_pct"])
def test_numbers_at_the_ends_of_arithmetic(run: Run, picture: str, key: str, number: str) -> None:
    check(run, [picture, "--cfg-options", f"preprocessing.{key}={number}"])


@pytest.mark.parametrize("prefix", ["", "timm/", "torchvision/", "hf-hub:", "local-dir:"])
def test_a_models_name_that_is_longer_than_a_files_can_be_is_reported(
    run: Run, picture: str, prefix: str
) -> None:
    result = run(picture, "--model", prefix + "a" * 300)
    assert result.code == 2 and result.err.startswith("camviz: ")
    assert "bug in camviz" not in result.err and "a" * 20 in result.err
