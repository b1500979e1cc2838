"""Every mistake that a person can make: a short message, the right exit code, nothing behind it."""

from __future__ import annotations

import errno
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants as hub
from PIL import Image
from safetensors.torch import save_file

from camcli.runs.jsonl import STATE
from tests.checkout import ROOT
from tests.cli.conftest import Result, Run

MARKER = "THE_CODE_RAN"
CODE = f"open({MARKER!r}, 'w')"
GOOD = ("cat.jpg", "dog.png")
LONGEST_MESSAGE = 8  # lines


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (CODE,)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that people get wrong."""
    folder = tmp_path_factory.mktemp("things")
    ramp = np.linspace(0, 255, 120 * 90 * 3).reshape(90, 120, 3).astype(np.uint8)
    for name in GOOD:
        Image.fromarray(ramp).save(folder / name)
    Image.new("RGB", (70_000, 2), "red").save(folder / "wide.png")
    (folder / "cut.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:700])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "link.jpg").symlink_to("gone.jpg")
    for name in ("void", "notes", "in_the_way.png"):
        (folder / name).mkdir()
    (folder / "notes" / "a.txt").touch()
    _write_texts(folder)
    _write_checkpoints(folder)
    return folder


def _write_texts(folder: Path) -> None:
    texts = {
        "broken.toml": "model = 'embedded'\nalpha = \n",
        "unknown.toml": "target_layer = 'layer4'\n",
        "wrong.toml": "[preprocessing]\nfit = 'stretch'\n",
        "code.toml": "model = 'user.py:net'\n",
        "user.py": (
            "import torch\ndef net():\n    return torch.nn.Conv2d(3, 4, 0 / 0)\n"
            "def text():\n    return 'net'\n"
        ),
        "two.txt": "cat\ndog\n",
        "far.txt": "0,cat\n1000,dog\n",
        "nothing.txt": "\n",
        "junk.pth": "hello world\n",
        "page.pth": "<html>",
        "empty.pth": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)


def _write_checkpoints(folder: Path) -> None:
    vit = timm.create_model("test_vit").state_dict()
    torch.save({"state_dict": vit}, folder / "vit.pth")
    save_file(vit, folder / "vit.safetensors")
    torch.save({"epoch": 3}, folder / "counts.pth")
    torch.save({"state_dict": vit, "hook": Evil()}, folder / "code.pth")
    torch.save(Evil(), folder / "old_code.pth", _use_new_zipfile_serialization=False)
    (folder / "code.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("vit.pth", "vit.safetensors"):
        content = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(content[: len(content) // 2])


@pytest.fixture
def workplace(things: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands in the folder of things, without a GPU or a network; returns the outputs' folder."""
    monkeypatch.chdir(things)
    # Python's own caches of what it imports are no outputs
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # outputs go to the same disc, but not among the things
    return tmp_path / "out"


def files_in(folder: Path) -> set[str]:
    actual = {path.relative_to(folder) for path in folder.rglob("*")}
    # what a run keeps of itself
    kept = {"manifest.jsonl", "run.json"}
    return {str(p) for p in actual if p.name not in kept and STATE not in p.parts}


def check_is_short(result: Result) -> None:
    assert "Traceback" not in result.err and "bug in camviz" not in result.err
    lines = result.err.splitlines()
    assert lines[0].startswith("camviz: ")
    assert len(lines) <= LONGEST_MESSAGE, result.err


TINY_VIT, TINY_RESNET = "-m test_vit --no-pretrained", "-m test_resnet --no-pretrained"
# named layers where it does not matter, because finding one takes a while
VIT_LAYER = f"{TINY_VIT} --target-layers blocks.-1.norm1"

# what is typed behind `camviz cat.jpg`, and what has to be said: what, what was given, what next
WRONG = {
    # names
    "-m resnet5": ("Unknown model 'resnet5'", "'resnet50'"),
    "-m timm/resnet5": ("Unknown model 'resnet5'", "in timm.", "'resnet50'"),
    "-m torchvision/resnt18": ("Unknown model 'resnt18'", "in torchvision.", "'resnet18'"),
    "-m resnet50.b9": ("Unknown pretrained tag 'b9'", "resnet50 has", "a1_in1k"),
    "-m ''": ("--model ''", "takes a name"),
    "-m local-dir:void": ("'local-dir:void' is no timm model", "config.json"),
    "-m resnet18": ("'resnet18' cannot be fetched", "--checkpoint FILE", "embedded"),
    "--target-layers feature": ("Unknown layer 'feature'", "'features'", "--preview-model"),
    "--target-layers _blocks.-17": ("Unknown layer '_blocks.-17'", "'_blocks.1'"),
    "--target-layers ''": ("--target-layers ''", "takes names of layers"),
    "--method gradcm": ("Unknown method 'gradcm'", "'gradcam'", "camviz methods"),
    "--method gradcam,layrcam": ("Unknown method 'layrcam'", "'layercam'"),
    "--method ,": ("--method ,", "takes names of methods"),
    "--target-category espreso": ("Unknown category 'espreso'", "'espresso'", "0 to 999"),
    "--target-category te": ("'te' could be", "849 'teapot'", "give the index"),
    "--target-category 1000": ("There is no category 1000", "0 to 999"),
    "--target-category -1": ("There is no category -1", "0 to 999"),
    "--target-category ,": ("--target-category ,", "takes class indices or names"),
    "--colormap jett": ("Unknown colour map 'jett'", "'jet'", "viridis"),
    "--config resnet5": ("Unknown config 'resnet5'", "'resnet50'", "TOML"),
    "--config gone.toml": ("Unknown config 'gone.toml'", "a TOML file that exists"),
    "--config ''": ("Unknown config ''", "Presets: "),
    "--config void": ("Unknown config 'void'", "Presets: "),
    "--cfg-options alpa=1": ("'alpa'", "'alpha'", "camviz help presets"),
    "--cfg-options preprocessing.fitt=pad": ("'preprocessing.fitt'", "'preprocessing.fit'"),
    "--config unknown.toml": ("unknown.toml", "'target_layer'", "'target_layers'"),
    "--output-dir maps": ("No such option: --output-dir. Here it is --save-path PATH", "--help"),
    "--image_path dog.jpg": ("Here it is no option: camviz IMAGE...", "camviz --help"),
    "-o maps": ("No such option: -o. Here it is --save-path PATH",),
    "--modle resnet50": ("No such option: --modle", "--model", "camviz --help"),
    # values
    "--alpha 2": ("--alpha 2", "from 0 to 1"),
    "--alpha much": ("--alpha much", "from 0 to 1"),
    "--alpha ''": ("--alpha ''", "from 0 to 1"),
    "--top-k 0": ("--top-k 0", "from 1"),
    "--top-k 1001": ("--top-k 1001", "1000 classes"),
    "--top-k 2 --target-category espresso": ("--target-category", "--top-k", "one of them"),
    "--batch-size 0": ("--batch-size 0", "from 1"),
    "--seed x": ("--seed x", "whole number"),
    "--format gif": ("--format gif", "jpg or png"),
    "--fit stretch": ("--fit stretch", "crop, squash or pad"),
    "--mean 0.5,x": ("--mean 0.5,x", "numbers, one a channel"),
    "--mean 0.5,0.5": ("mean takes 1 or 3 numbers",),
    "--std 0": ("--std 0", "numbers above 0"),
    "--save-map png": ("--save-map png", "npy"),
    "--map-size huge": ("--map-size huge", "layer, input or image"),
    "--layer-fusion sum": ("--layer-fusion sum", "mean, max, product, refine or none"),
    "--layer-fusion refine": ("--layer-fusion refine", "two or more", "--target-layers"),
    "--noise-smooth 0": ("--noise-smooth 0", "from 1"),
    "--noise-smooth 2 --noise-sigma -1": ("--noise-sigma -1", "from 0"),
    "--noise-sigma 0.1": ("--noise-sigma is for --noise-smooth N",),
    "--cfg-options preprocessing.fit=stretch": ("preprocessing.fit=stretch", "crop, squash or pad"),
    "--cfg-options preprocessing.mean=1,2": ("mean takes 1 or 3 numbers", "(1.0, 2.0)"),
    "--cfg-options alpha": ("--cfg-options alpha", "takes key=value"),
    "--config wrong.toml": ("wrong.toml", "'stretch'", "crop, squash or pad"),
    "--config broken.toml": ("broken.toml is not valid TOML", "line 2"),
    "--config vit.pth": ("vit.pth is not a text file",),
    "--alpha 2 --top-k 0": ("Several options", "--alpha 2", "--top-k 0"),
    "--json -q": ("--json and --quiet", "one of them"),
    "--model": ("Option '--model' requires an argument",),
    # the user's own code
    "-m user.py": ("'user.py' names no function", "-m FILE.py:FUNCTION"),
    "-m users.py:net": ("Unknown file 'users.py'", "'user.py'"),
    "-m user.py:nett": ("Unknown function of user.py 'nett'", "'net'", "user.py has net, text."),
    "-m use.nets:net": ("Unknown module 'use.nets'", "nor installed"),
    "-m user.py:net": ("'user.py:net' failed", "File user.py, line 3: ZeroDivisionError"),
    "-m user:net": ("'user:net' failed", "File user.py, line 3: ZeroDivisionError"),
    "-m user.py:text": ("'user.py:text' gave a str", "torch.nn.Module"),
    "-m user.py:text --num-classes 2 --model-kwargs depth=3": ("with depth=3", "--model-kwargs"),
    "--config code.toml": ("code.toml", "a preset runs no code", "--model user.py:net"),
    # class maps
    "--class-map two.txt": ("'two.txt' names 2 classes", "1000"),
    "--class-map far.txt": ("'far.txt', line 2", "0 to 999", "not 1000"),
    "--class-map nothing.txt": ("'nothing.txt' is empty",),
    "--class-map gone.txt": ("'gone.txt' cannot be read (No such file or directory)",),
    "--class-map void": ("'void' cannot be read (Is a directory)",),
    "--class-map vit.pth": ("'vit.pth' is no UTF-8 text",),
    # the model
    f"{TINY_VIT} --img-size 30": ("'test_vit' does not take pictures of 30x30", "patch size"),
    "--img-size 0": ("--img-size 0", "height x width"),
    "--img-size 1": ("No layer", "larger than 1x1", "3x1x1"),
    f"{TINY_RESNET} --model-kwargs depth=3": ("cannot build 'test_resnet' with depth=3", "depth"),
    f"{TINY_RESNET} --model-kwargs in_chans=4": ("1 or 3 channels", "takes 4"),
    "--model-kwargs depth": ("--model-kwargs depth", "takes key=value"),
    "--num-classes many": ("--num-classes many", "whole number"),
    f"{TINY_RESNET} --num-classes 0": ("'test_resnet' has no classifier", "--method eigencam"),
    # checkpoints
    "--checkpoint gone.pth": ("There is no checkpoint 'gone.pth'",),
    "--checkpoint ''": ("--checkpoint ''", "takes a file"),
    "--checkpoint void": ("'void' is a folder", "model.safetensors", "name a file in it"),
    "--checkpoint empty.pth": ("'empty.pth' is empty",),
    "--checkpoint junk.pth": ("'junk.pth' is damaged, or no checkpoint", "camviz reads"),
    "--checkpoint page.pth": ("'page.pth' is no checkpoint", "web page"),
    "--checkpoint cut_vit.pth": ("'cut_vit.pth' is damaged",),
    "--checkpoint cut_vit.safetensors": ("'cut_vit.safetensors' is damaged",),
    "--checkpoint counts.pth": ("'counts.pth' holds no weights", "'epoch'", "state_dict"),
    "--checkpoint code.pth": ("'code.pth' asks for", "eval'", "never run", "state_dict"),
    "--checkpoint old_code.pth": ("'old_code.pth' asks for", "eval'", "never run"),
    "--checkpoint code.pkl": ("'code.pkl' is no checkpoint", "never run", "state_dict"),
    "--checkpoint vit.pth": (
        "'vit.pth' does not say its architecture",
        "not the embedded model's",
        "--model",
    ),
    "--checkpoint vit.safetensors -m test_resnet": (
        "'vit.safetensors' does not fit 'test_resnet'",
        "another architecture",
        "missing: conv1",
        "unexpected: blocks.0",
    ),
    # layers and methods
    "--target-layers _fc": (
        "'_fc' puts out [1 1000]",
        "no grid larger than 1x1",
        "--preview-model",
    ),
    f"{TINY_VIT} --target-layers blocks.0.attn.attn_drop": ("was not called in the forward pass",),
    f"{VIT_LAYER} --num-extra-tokens 3": ("101 - 3 extra = 98", "100 = 10x10 with 1 extra"),
    f"{VIT_LAYER} --vit-like --num-extra-tokens 0": ("101 - 0 extra = 101", "with 1 extra"),
    f"{VIT_LAYER} --no-vit-like": ("[1 101 64], which are tokens", "--no-vit-like"),
    "--target-layers features --num-extra-tokens 1": (
        "maps and have no extra tokens",
        "--num-extra-tokens 1",
    ),
    "--num-extra-tokens -1": ("--num-extra-tokens -1", "from 0"),
    "--target logits": ("--target logits", "probability", "counterfactual or contrast"),
    "--target contrast --method eigencam": (
        "contrast asks about a class",
        "eigencam explains no particular class",
    ),
    "--target counterfactual --method gradcam,fem": (
        "counterfactual asks",
        "fem explains no particular class",
    ),
    "--target rest --contrast tabby": ("--contrast or another --target, not both",),
    "--contrast taby": ("Unknown category 'taby'", "'tabby'"),
    "--contrast 1000": ("no category 1000", "0 to 999"),
    "--contrast tabby --target-category tabby": ("'tabby, tabby cat' with itself", "another class"),
    "--contrast-strength 1": ("--contrast-strength is for --contrast CLASSES",),
    "--contrast-strength -1": ("--contrast-strength -1", "from 0"),
    "--contrast tabby lemon": ("'lemon' is no file, but a class", "--contrast tabby,lemon?"),
    "--set sampels=3 --method smoothgradcam++": ("--set sampels=3", "'samples'", "samples=8 (a"),
    "--set samples=x --method smoothgradcam++": ("--set samples=x", "takes a whole number"),
    "--set samples=3": ("Unknown option of gradcam 'samples'", "gradcam has no options"),
    "--set scorecam.max_channels=3": ("is for scorecam", "gradcam is what is asked for"),
    "--set samples": ("--set samples", "takes key=value", "samples=8"),
    "--max-channels 3": ("--max-channels 3", "an option of ablationcam, scorecam"),
    "--output-key 0": ("'embedded' returns logits and nothing else", "--output-key"),
    "--eigen-smooth --method eigencam": ("eigencam makes a map directly", "--eigen-smooth out"),
    # the device
    "--device cuda": ("CUDA was asked for", "none here", "--device cpu"),
    "--device cuda:7": ("CUDA was asked for", "none here"),
    "--device mps": ("MPS was asked for", "none here"),
    "--device tpu": ("--device tpu", "auto, cpu, cuda, cuda:N or mps"),
    # other words: each of them stands behind the picture
    "gone.jpg": ("'gone.jpg' does not exist", "Closest in '.'"),
    "cta.jpg": ("'cta.jpg' does not exist", "'cat.jpg'"),
    "link.jpg": ("'link.jpg' does not exist", "a link to 'gone.jpg'"),
    "void": ("Folder 'void' holds no images", ".jpg"),
    "notes": ("Folder 'notes' holds no images", ".jpg"),
    "''": ("'' names no picture",),
    "features": ("'features' is no file, but a layer", "--target-layers features?"),
    "--target-layers _blocks.14 Blocks.-1": ("'Blocks.-1' is no file", "_blocks.14,Blocks.-1?"),
    "Grad-CAM": ("'Grad-CAM' is no file, but a method", "--method Grad-CAM?"),
    "--method cam layercam": ("'layercam' is no file, but a method", "--method cam,layercam?"),
    "espresso": ("'espresso' is no file, but a class", "--target-category espresso?"),
    "resnet50": ("'resnet50' is no file, but a model", "--model resnet50?"),
    "'tabby cat'": ("'tabby cat' is no file, but a class", "--target-category"),
    "user.py:net": ("'user.py:net' is no file, but a function", "--model user.py:net?"),
    "gone.py": ("'gone.py' does not exist",),
    "gone.py:net": ("'gone.py:net' does not exist",),
    "help": ("'help' is no file", "camviz help"),
}


# what is asked of the embedded model that it has not
WRONG_OF_EMBEDDED = {
    "--model-kwargs depth=3": ("embedded model takes no model_kwargs", "depth"),
    "--target-layers _avg_pooling": ("'_avg_pooling' puts out [1 ", "no grid larger than 1x1"),
    "--target-layers features --vit-like": ("--vit-like reads as [b h w c]", "no grid", "224x224"),
    "--method cam --target-layers _blocks.14": (
        "CAM needs a head",
        "'_blocks.14'",
        "--method gradcam",
    ),
}


@pytest.mark.parametrize("typed", WRONG)
@pytest.mark.usefixtures("small_embedded")
def test_wrong_usage_is_reported_and_writes_nothing(run: Run, workplace: Path, typed: str) -> None:
    _check_is_wrong(run, workplace, typed, WRONG[typed])


@pytest.mark.parametrize("typed", WRONG_OF_EMBEDDED)
def test_what_the_embedded_model_has_not(run: Run, workplace: Path, typed: str) -> None:
    _check_is_wrong(run, workplace, typed, WRONG_OF_EMBEDDED[typed])


def _check_is_wrong(run: Run, workplace: Path, typed: str, said: tuple[str, ...]) -> None:
    before = files_in(Path())
    result = run("cat.jpg", "--save-path", str(workplace), *shlex.split(typed))
    assert (result.code, result.out) == (2, ""), result.err
    for words in said:
        assert words in result.err
    check_is_short(result)
    assert not workplace.exists()
    assert files_in(Path()) == before
    assert not Path(MARKER).exists()


UNWRITABLE = {
    "two.txt": ("'two.txt' is a file", "--save-path"),
    "two.txt/out": ("'two.txt/out'", "two.txt' is a file", "--save-path"),
    "two.txt/a.png": ("two.txt' is a file", "--save-path"),
    "in_the_way.png": ("'in_the_way.png'", "Is a directory", "--save-path"),
    "a.gif": ("'a.gif'", "a picture's suffix is one of", ".png"),
    "": ("--save-path ''", "takes a file or a folder"),
    "\0": ("--save-path",),
}


@pytest.mark.parametrize("target", UNWRITABLE)
@pytest.mark.usefixtures("workplace", "small_embedded")
def test_a_target_that_cannot_be_written(run: Run, target: str) -> None:
    before = files_in(Path())
    result = run("cat.jpg", "--save-path", target, "--target-layers", "features")
    assert (result.code, result.out) == (2, ""), result.err
    for words in UNWRITABLE[target]:
        assert words in result.err
    check_is_short(result)
    assert files_in(Path()) == before


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("cat.jpg dog.png --save-path one.png", ("one.png is one file", "2 pictures", "a folder")),
        ("cat.jpg --top-k 3 --save-path one.png", ("one.png is one file", "3 pictures")),
        ("cat.jpg --save-path one.jpg --format png", ("one.jpg", "--format png", "two formats")),
        ("{0} --save-path {0}", ("is the folder that is to be explained", "another folder")),
        ("cat.jpg --save-path ./cat.jpg", ("cat.jpg is the picture itself", "another file")),
        ("cat.jpg {0}/cat.jpg", ("would write the same files", "--save-path")),
    ],
)
@pytest.mark.usefixtures("small_embedded")
def test_outputs_that_would_meet(
    run: Run, workplace: Path, typed: str, message: tuple[str, ...]
) -> None:
    workplace.mkdir()
    (workplace / "cat.jpg").write_bytes(Path("cat.jpg").read_bytes())
    before, pixels = files_in(Path()), Path("cat.jpg").read_bytes()
    result = run(*(word.format(workplace) for word in shlex.split(typed)))
    assert (result.code, result.out) == (2, "")
    for words in message:
        assert words in result.err
    check_is_short(result)
    assert files_in(Path()) == before
    assert Path("cat.jpg").read_bytes() == pixels


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
@pytest.mark.usefixtures("small_embedded")
def test_a_write_that_is_cut_off_leaves_no_half(
    run: Run,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    problem: BaseException,
    code: int,
    message: str,
) -> None:
    def write(_: int, content: memoryview) -> int:
        assert len(content) > 1000  # no line of the manifest
        raise problem

    monkeypatch.setattr(os, "write", write)
    result = run("cat.jpg", "--save-path", str(workplace), "--target-layers", "features")
    assert (result.code, result.out) == (code, "")
    assert message in result.err.splitlines()[-1]
    check_is_short(result)
    assert files_in(workplace) == set()


UNREADABLE = {
    "empty.jpg": "it is empty",
    "text.jpg": "it is no image",
    "two.txt": "it is no image",
    "cut.jpg": "it is truncated or damaged",
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.usefixtures("small_embedded")
def test_a_picture_that_cannot_be_read(run: Run, workplace: Path, name: str) -> None:
    result = run(name, "--save-path", str(workplace), "--target-layers", "features")
    assert (result.code, result.out) == (1, "")
    assert f"Cannot read {name!r}: {UNREADABLE[name]}" in result.err
    check_is_short(result)
    assert not files_in(workplace)


@pytest.mark.usefixtures("small_embedded")
def test_the_good_pictures_are_written_all_the_same(run: Run, workplace: Path) -> None:
    result = run(*UNREADABLE, *GOOD, "-q", "--batch-size", "2", "--save-path", str(workplace))
    assert result.code == 1
    written = [Path(line) for line in result.out.splitlines()]
    assert [path.name.split("_")[0] for path in written] == ["cat", "dog"]
    assert files_in(workplace) == {path.name for path in written}
    assert result.err.count("Cannot read") == len(UNREADABLE)
    check_is_short(result)


@pytest.mark.usefixtures("small_embedded")
def test_a_picture_too_large_for_its_format_does_not_end_the_run(run: Run, workplace: Path) -> None:
    typed = ("wide.png", "dog.png", "--format", "jpg", "-q", "--save-map", "npy")
    result = run(*typed, "--save-path", str(workplace))
    assert result.code == 1
    assert "Cannot write " in result.err and "wide_gradcam_" in result.err
    assert "at most 65500 pixels" in result.err and "--format png" in result.err
    assert files_in(workplace) == {Path(line).name for line in result.out.splitlines()}
    assert all(name.startswith("dog_") for name in files_in(workplace))
    check_is_short(result)


@pytest.mark.usefixtures("small_embedded")
def test_a_folder_is_not_explained_with_what_was_written_into_it(
    run: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.mkdir()
    monkeypatch.chdir(workplace)
    Image.new("RGB", (40, 30), "red").save("a.png")
    first, second = (run(".", "-q", "--target-layers", "features") for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert first.out == second.out
    assert len(first.out.splitlines()) == 1


@pytest.mark.parametrize("choosing", ["--target-category 3", "--top-k 2"])
def test_a_model_without_classes_has_none_to_choose(
    run: Run, workplace: Path, choosing: str
) -> None:
    typed = f"cat.jpg {TINY_RESNET} --num-classes 0 --method eigencam {choosing} --save-path"
    result = run(*typed.split(), str(workplace))
    assert result.code == 2
    assert "'test_resnet' has no classes" in result.err and "--target-category" in result.err
    assert not workplace.exists()


def test_bare_command(run: Run) -> None:
    result = run()
    assert (result.code, result.out) == (2, "")
    assert "Usage: camviz" in result.err


@pytest.mark.parametrize(
    ("typed", "code", "kind"),
    [
        ("gone.jpg", 2, "SourceError"),
        ("cat.jpg --checkpoint code.pth", 2, "CheckpointError"),
        ("cat.jpg --alpha 2", 2, "ConfigError"),
        ("cat.jpg -m user.py:net", 2, "ModelError"),
    ],
)
@pytest.mark.usefixtures("workplace")
def test_debug_shows_the_traceback(run: Run, typed: str, code: int, kind: str) -> None:
    result = run(*typed.split(), "--debug")
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("Traceback") and f"errors.{kind}: " in result.err
    assert result.err.splitlines()[-1].startswith("camviz: ")
    assert not Path(MARKER).exists()


# a run that fails when torch is there: tests/cli/test_subprocess.py
def test_as_people_start_it(workplace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "camcli", "void", "--save-path", str(workplace)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no images" in done.stderr
    check_is_short(Result(done.returncode, done.stdout, done.stderr))
    assert not files_in(workplace)
