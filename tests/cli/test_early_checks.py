"""What is wrong without any model is said before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.checkout import ROOT

# what is typed behind `camviz cat.png`, and what has to be said
WRONG = {
    "--colormap virids": ("Unknown colour map 'virids'", "'viridis'"),
    "--method gradcm": ("Unknown method 'gradcm'", "'gradcam'"),
    "--method best,gradcam@layer3": ("names a method's own layer", "--combine product"),
    "--method gradcam --best-for extent": ("--best-for extent belongs to --method best",),
    "--set sampels=3 --method smoothgradcam++": ("'sampels'", "'samples'", "samples=8 (a whole"),
    "--set samples=x --method smoothgradcam++": ("takes a whole number, not 'x'",),
    "--max-channels 3": ("--max-channels 3", "an option of ablationcam, scorecam"),
    "--save-path cat.png": ("cat.png is the picture itself",),
    "--save-path a.gif": ("'a.gif'", "a picture's suffix is one of"),
    "--save-path cat.png/maps": ("cat.png' is a file", "--save-path"),
    "--save-path one.jpg dog.png": ("one.jpg is one file, but 2 pictures",),
    "--save-path one.jpg --format png": ("one.jpg and --format png name two formats",),
    "--format gif": ("--format gif: takes jpg or png",),
    "--target-category ,": ("--target-category ,: takes class indices or names",),
    "--target-category 3 --top-k 2": ("--target-category and --top-k each choose",),
    "--target-category 3 --threshold 0.2": ("--target-category and --threshold each choose",),
    "--target-layers layer4..1": ("--target-layers layer4..1: takes names of layers, such as",),
    "--target-layers .layer4": ("--target-layers .layer4: takes names of layers, such as",),
    "--target-layers layer4.": ("--target-layers layer4.: takes names of layers, such as",),
    "--layer-fusion sum": ("--layer-fusion sum: takes mean, max, product, refine or none",),
    "--device gpu": ("--device gpu: takes auto, cpu, cuda, cuda:N or mps",),
    "--config resnet5": ("Unknown config 'resnet5'", "'resnet50'"),
    "--config broken.toml": ("broken.toml is not valid TOML",),
    "--cfg-options alpa=1": ("'alpa'", "'alpha'"),
    "--alpha 2": ("--alpha 2: takes a number from 0 to 1",),
    "--batch-size 0": ("--batch-size 0: takes a whole number from 1, or auto",),
    "--noise-sigma 0.1": ("--noise-sigma is for --noise-smooth N",),
    "--contrast-strength 1": ("--contrast-strength is for --contrast CLASSES",),
    # matplotlib is hidden in these runs
    "--sheet x.svg": ("A .svg is drawn with matplotlib: pip install", "A .png needs none."),
    "--sheet maps.PDF": ("A .pdf is drawn with matplotlib: pip install",),
    "--sheet pdf": ("A .pdf is drawn with matplotlib: pip install",),
    "--sheet dog.png": ("'dog.png' is there already and no sheet of camviz, and would be lost",),
    "--likeness l1": ("--likeness is for --like",),
    "--like cat.png --text cat": ("--like and --text each stand in the place of classes",),
    "--checkpoint gone.pth": ("There is no checkpoint 'gone.pth'",),
    "--class-map gone.txt": ("'gone.txt' cannot be read (No such file or directory)",),
    "gone.png": ("'gone.png' does not exist", "Closest in '.'"),
    "--save-path .": ("is the folder that is to be explained", "another folder"),
}
SCRIPT = """
import contextlib, importlib.util, io, json, shlex, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
from camcli.cli.app import main
said = {}
for typed in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["." if typed == "--save-path ." else "cat.png", *shlex.split(typed)])
    said[typed] = [code, err.getvalue(), "torch" in sys.modules]
json.dump(said, sys.stdout)
"""

Said = Mapping[str, tuple[int, str, bool]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What the command says to each, and whether torch had been imported by then."""
    folder: Path = tmp_path_factory.mktemp("early")
    for name in ("cat.png", "dog.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "broken.toml").write_text("alpha = \n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(WRONG)),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["broken.toml", "cat.png", "dog.png"]
    answers: Said = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("typed", WRONG)
def test_what_is_wrong_without_a_model_is_said_before_torch_is_imported(
    said: Said, typed: str
) -> None:
    code, message, has_torch = said[typed]
    assert code == 2, message
    for words in WRONG[typed]:
        assert words in message
    assert not has_torch
