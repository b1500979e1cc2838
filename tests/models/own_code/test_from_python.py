"""Models that the user's own code builds: what runs, what is found out, what a mistake is told."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import camcli
from camcli.errors import ConfigError, ModelError, UnknownName
from camcli.models.load import Classifier, load_model
from camcli.models.model_lookup import find_model
from camcli.models.own_code.user_code import find_own_line, is_code
from tests.networks import noise

PARTS = """
from torch import nn

def stage(c_in, c_out):
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU())
"""
NETS = """
import functools
import torch
from torch import nn
from parts import stage

class Net(nn.Module):
    def __init__(self, num_classes=5, width=8, channels=3):
        super().__init__()
        # registered first and called last
        self.fc = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.stages = nn.Sequential(stage(channels, width), stage(width, width))

    def forward(self, x):
        return self.fc(self.stages(x).mean((2, 3)))

class Patches(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.unfold = nn.Unfold(16, stride=16)
        self.proj = nn.Linear(channels * 256, 6)

    def forward(self, x):
        return self.proj(self.unfold(x).transpose(1, 2)).mean(1)

class Sized(Net):
    def __init__(self, img_size=224, num_classes=3):
        super().__init__(num_classes)
        self.img_size = img_size

class Trunk(Net):
    def __init__(self, kind):
        super().__init__(0)
        self.kind = kind

    def forward(self, x):
        maps = self.stages(x)
        pooled = maps.mean((2, 3))
        return {"maps": maps, "tokens": maps.flatten(2).mT, "pair": (pooled, maps),
                "pooled": pooled}[self.kind]

def net(num_classes=5, width=8):
    print("building")
    return Net(num_classes, width)

def plain():
    return Net()

def anything(**options):
    return Net(**options)

def gray():
    return Net(channels=1)

def six():
    return Net(channels=6)

class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(8, 5, 1)
        self.stage = stage(3, 8)

    def forward(self, x):
        return self.head(self.stage(x)).mean((2, 3))

def infrared():
    return Patches(channels=4)

def dino(num_classes=0):
    return nn.Sequential(Net(0, width=8), nn.LayerNorm(8))

def wrapped():
    return nn.DataParallel(Net())

def scripted():
    return torch.jit.trace(Net().eval(), torch.zeros(1, 3, 48, 48))

def half():
    return Net().bfloat16()

def single():
    return nn.Sequential(Net(1), nn.Flatten(0))

def nothing():
    return {"model": Net()}

def recorded():
    return Net().train()

wide = functools.partial(Net, width=16)
made = Net()
"""


@pytest.fixture(autouse=True)
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands in a folder with the user's code, and forgets what was imported from it."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "package"):
        folder.mkdir(exist_ok=True)
        (folder / "nets.py").write_text(NETS)
        (folder / "parts.py").write_text(PARTS)
    text = (tmp_path / "package" / "nets.py").read_text()
    (tmp_path / "package" / "nets.py").write_text(text.replace("from parts", "from .parts"))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        # packages without an __init__ have no file
        own = name.partition(".")[0] in ("helpers", "project", "shared", "zoo")
        if own or str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def load(name: str = "nets.py:net", **options: Any) -> Classifier:
    return load_model(name, **{"img_size": 48, "device": "cpu", **options})


def logits(classifier: Classifier, size: int = 48) -> Tensor:
    with torch.no_grad():
        return classifier.module(noise(2, classifier.in_chans, (size, size)))


# names


@pytest.mark.parametrize(
    "name",
    ["a.py:f", "a/b.py:f", "~/a.py:f", r"C:\a\b.py:f", "a:f", "a.b.c:Net", "a.py", "a.py:"],
)
def test_names_that_mean_code(name: str) -> None:
    assert is_code(name)
    assert find_model(name) == ("python", name)


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "timm/resnet50.a1_in1k",
        "hf-hub:timm/resnet18",
        "hf-hub:resnet18",
        "local-dir:void",
        r"C:\models",
        "a-b:f",
        "a:f.g",
        ":f",
        "a:",
        "",
    ],
)
def test_names_that_do_not(name: str) -> None:
    assert not is_code(name)


# what is built


@pytest.mark.parametrize(
    ("function", "classes"),
    [("net", 5), ("plain", 5), ("Net", 5), ("wide", 5), ("made", 5), ("anything", 5), ("Sized", 3)],
)
@pytest.mark.parametrize("place", ["nets.py", "./package/../nets.py", "package.nets"])
def test_a_function_a_class_or_a_module_is_built(place: str, function: str, classes: int) -> None:
    classifier = load(f"{place}:{function}")
    assert (classifier.origin, classifier.name) == ("python", f"{place}:{function}")
    assert classifier.weights == f"as built by {place}:{function}"
    assert (classifier.num_classes, classifier.labels, classifier.in_chans) == (classes, None, 3)
    assert logits(classifier).shape == (2, classes)
    assert not any(part.training for part in classifier.module.modules())
    assert not any("random" in warning for warning in classifier.warnings)


def test_without_a_size_it_is_imagenets() -> None:
    preprocessing = load(img_size=None).preprocessing
    assert (preprocessing.size, preprocessing.scale) == ((224, 224), (256, 256))
    assert load(img_size=(64, 96)).preprocessing.size == (64, 96)


def test_arguments_reach_the_function() -> None:
    classifier = load(num_classes=7, model_kwargs={"width": 12})
    assert (classifier.num_classes, classifier.module.fc.in_features) == (7, 12)
    assert load("nets.py:anything", num_classes=2, model_kwargs={"width": 4}).num_classes == 2
    assert load("nets.py:Sized").module.img_size == 48
    assert load("nets.py:Sized", img_size=(32, 64)).module.img_size == (32, 64)
    assert load("nets.py:Sized", img_size=None).module.img_size == 224


def test_weights_are_the_same_each_time() -> None:
    torch.testing.assert_close(logits(load()), logits(load()))


def test_the_path_is_put_back_and_the_module_kept() -> None:
    path = sys.path.copy()
    module = load("nets.py:made").module
    assert sys.path == path
    own = sys.modules[type(module).__module__]
    assert own.__file__ == str(Path("nets.py").resolve())
    assert "nets" not in sys.modules
    # what pickle, dataclasses and torch.compile look up
    assert own.Net is type(module)
    assert type(pickle.loads(pickle.dumps(module))) is type(module)


def test_what_it_prints_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    load()
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "building\n")


def test_the_file_is_read_anew_and_files_of_one_name_are_two(project_folder: Path) -> None:
    (project_folder / "other").mkdir()
    changed = NETS.replace("num_classes=5", "num_classes=9").replace("from parts", "from parts9")
    (project_folder / "other" / "nets.py").write_text(changed)
    (project_folder / "other" / "parts9.py").write_text(PARTS)
    first, second = load("nets.py:Net"), load("other/nets.py:Net")
    assert (first.num_classes, second.num_classes) == (5, 9)
    assert type(first.module).__module__ != type(second.module).__module__
    # longer, since Python tells a changed file by its second and its size
    (project_folder / "nets.py").write_text(NETS.replace("num_classes=5", "num_classes=11"))
    assert load("nets.py:Net").num_classes == 11


def test_half_precision_and_training_mode() -> None:
    assert load("nets.py:half").module.fc.weight.dtype == torch.bfloat16
    assert not load("nets.py:recorded").module.training


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_wrappers_are_taken_off_and_torchscript_is_refused() -> None:
    assert type(load("nets.py:wrapped").module).__name__ == "Net"
    with pytest.raises(ModelError, match="is TorchScript, and hooks cannot look inside"):
        load("nets.py:scripted")


# preprocessing


def test_assumed_preprocessing_is_said() -> None:
    plain = load()
    assert plain.preprocessing.mean == (0.485, 0.456, 0.406)
    assert plain.warnings == (
        "preprocessing: ImageNet's mean and std, and a crop of the centre (the edges are cut off)"
        " assumed; change it with --mean, --std, --fit",
    )
    assert (plain.preprocessing.fit, plain.preprocessing.scale) == ("crop", (54, 54))
    (unsized,) = load(img_size=None).warnings
    assert unsized.startswith("preprocessing: 224x224 pixels, ImageNet's mean and std, and a crop")
    assert unsized.endswith("assumed; change it with --img-size, --mean, --std, --fit")
    for said in ({"fit": "crop"}, {"fit": "pad"}, {"preprocessing": {"crop_pct": 1}}):
        (warning,) = load(**said).warnings
        assert warning.endswith("ImageNet's mean and std assumed; change it with --mean, --std")
    given = load(fit="squash", preprocessing={"mean": 0.5, "std": [0.1, 0.2, 0.3]})
    assert (given.preprocessing.mean, given.preprocessing.std) == ((0.5,) * 3, (0.1, 0.2, 0.3))
    assert given.warnings == ()
    (size,) = load(preprocessing={"mean": 0.5, "std": 0.5}, img_size=None, fit="pad").warnings
    assert size == "preprocessing: 224x224 pixels assumed; change it with --img-size"
    (warning,) = load(preprocessing={"mean": 0.5}, fit="pad").warnings
    assert "ImageNet's std assumed; change it with --std" in warning


def test_channels_are_those_of_the_first_convolution_or_of_the_mean() -> None:
    assert load("nets.py:gray").in_chans == 1
    assert load("nets.py:gray").preprocessing.mean == pytest.approx((0.449,), abs=1e-3)
    # a linear layer of 4 * 256 inputs does not say that it takes four channels
    assert load("nets.py:infrared", preprocessing={"mean": (0.1, 0.2, 0.3, 0.4)}).in_chans == 4
    with pytest.raises(ModelError, match=r"not run on a 3x48x48 input .* line \d+: RuntimeError"):
        load("nets.py:infrared")


def test_channels_that_do_not_run_are_not_those_of_the_model() -> None:
    assert load("nets.py:HeadFirst").in_chans == 3
    # three numbers for six channels are meant twice
    six = load("nets.py:six", preprocessing={"mean": (0.1, 0.2, 0.3), "std": 0.5})
    assert (six.in_chans, six.preprocessing.mean) == (6, (0.1, 0.2, 0.3) * 2)
    with pytest.raises(ConfigError, match="mean takes 1 or 3 numbers for this model's input"):
        load(preprocessing={"mean": (0.1, 0.2)})
    with pytest.raises(ConfigError, match="std takes 1 positive number for"):
        load("nets.py:gray", preprocessing={"std": (0.1, 0.2, 0.3)})


# classes


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("maps", r"gives [1, 8, 12, 12] in place of logits"),
        ("tokens", r"gives [1, 144, 8] in place of logits"),
        ("pair", "gives a tuple with 0: [1, 8], 1: [1, 8, 12, 12] in place of logits"),
    ],
)
def test_an_output_that_is_no_logits_has_no_classes(kind: str, message: str) -> None:
    classifier = load("nets.py:Trunk", model_kwargs={"kind": kind})
    assert classifier.num_classes == 0
    assert message in classifier.warnings[-1]
    silent = load("nets.py:Trunk", num_classes=0, model_kwargs={"kind": kind})
    assert (silent.num_classes, len(silent.warnings)) == (0, 1)


def test_an_output_key_names_the_logits() -> None:
    pair: dict[str, Any] = {"model_kwargs": {"kind": "pair"}, "num_classes": 8}
    classifier = load("nets.py:Trunk", output_key="0", **pair)
    assert (classifier.num_classes, classifier.output_key) == (8, "0")
    assert len(classifier.warnings) == 1
    # the model itself is left as it is
    with torch.no_grad():
        assert isinstance(classifier.module(noise(1, 3, (48, 48))), tuple)
    explanations = camcli.explain(classifier, noise(1, 3, (48, 48))[0].abs().clamp(max=1), top_k=2)
    assert len({e.category for e in explanations}) == 2
    with pytest.raises(ModelError, match=r"a tuple with 0: .*, and nothing under the output key 2"):
        load("nets.py:Trunk", output_key=2, **pair)
    with pytest.raises(ModelError, match=r"'resnet18' returns logits and nothing else"):
        load("timm/resnet18", output_key=0)


def test_one_number_a_picture_is_a_value_unless_it_is_said_to_be_a_logit(tmp_path: Path) -> None:
    classifier = load("nets.py:single")
    assert (classifier.num_classes, logits(classifier).shape) == (1, (2,))
    assert (classifier.num_categories, classifier.labels) == (1, None)
    assert classifier.reading.meaning == "value"
    assert "taken for a value, and no class: --outputs logits" in classifier.reading.note
    names = tmp_path / "names.txt"
    names.write_text("healthy\nill\n")
    said: dict[str, Any]
    for said, labels in (
        ({"outputs": "logits"}, ("no", "yes")),
        ({"class_map": names}, ("healthy", "ill")),
    ):
        classifier = load("nets.py:single", **said)
        assert (classifier.num_categories, classifier.labels) == (2, labels)
        assert not classifier.reading.note


def test_what_ends_in_a_norm_has_features() -> None:
    classifier = load("nets.py:dino")
    assert (classifier.num_classes, classifier.labels) == (0, None)
    assert "ends in a LayerNorm: its 8 outputs" in classifier.warnings[-1]
    assert "with --num-classes 8 for classes" in classifier.warnings[-1]
    meant = load("nets.py:dino", num_classes=8)
    assert (meant.num_classes, len(meant.warnings)) == (8, 1)


def test_num_classes_0_says_that_there_are_none() -> None:
    assert load("nets.py:Trunk", model_kwargs={"kind": "pooled"}, num_classes=0).num_classes == 0
    # the function takes no num_classes, and what it builds has some
    assert load("nets.py:plain", num_classes=0).num_classes == 0
    assert load("nets.py:plain", num_classes=5).num_classes == 5


# checkpoints


def test_a_checkpoint_tells_its_number_of_classes(project_folder: Path) -> None:
    trained = load(num_classes=7)
    with torch.no_grad():
        trained.module.fc.bias.fill_(3.0)
    torch.save({"state_dict": trained.module.state_dict()}, project_folder / "a.pth")
    classifier = load(checkpoint=project_folder / "a.pth")
    assert classifier.num_classes == 7
    assert "a.pth" in classifier.weights
    torch.testing.assert_close(logits(classifier), logits(trained))
    with pytest.raises(ModelError, match=r"gives 5 classes, .* has 7: let the function take"):
        load("nets.py:plain", checkpoint=project_folder / "a.pth")


def test_training_arguments_of_an_architecture_of_that_name_are_left(project_folder: Path) -> None:
    args = {"model": "nets", "crop_pct": 0.9, "mean": [0.1] * 3, "gp": "avg", "img_size": 32}
    torch.save({"state_dict": load().module.state_dict(), "args": args}, project_folder / "a.pth")
    assert load(checkpoint=project_folder / "a.pth").preprocessing == load().preprocessing


def test_a_checkpoint_names_no_code_that_would_run(project_folder: Path) -> None:
    (project_folder / "evil.py").write_text("open('ran', 'w')\ndef f(): ...\n")
    state = load_model(device="cpu").module.state_dict()
    for arch in ("evil.py:f", "evil:f"):
        torch.save({"arch": arch, "state_dict": state}, project_folder / "a.pth")
        assert load_model(checkpoint=project_folder / "a.pth", device="cpu").name == "embedded"
    assert not Path("ran").exists()


# mistakes

WRONG: dict[str, tuple[str, type[Exception], str]] = {
    "gone": ("gone.py:net", UnknownName, "Unknown file 'gone.py'"),
    "no dots": ("./nets:net", UnknownName, r"Unknown model .* or package\.module:FUNCTION\."),
    "misspelt": ("netz.py:net", UnknownName, r"Unknown file 'netz\.py'\. Closest: 'nets\.py'"),
    "folder": ("package.py:net", UnknownName, "Unknown file"),
    "no function": ("nets.py", ModelError, "'nets.py' names no function .* FILE.py:FUNCTION"),
    "no name": ("nets.py:my-net", ModelError, "names no function"),
    "function": ("nets.py:nett", UnknownName, r"function of nets.py 'nett'\. Closest: 'net'"),
    "functions": ("nets.py:zzz", UnknownName, r"nets\.py has Net, Patches, Sized"),
    "value": ("nets.py:PI", UnknownName, "Unknown function of nets.py 'PI'"),
    "module": ("packge.nets:net", UnknownName, "Unknown module 'packge.nets'. It is neither in"),
    "inner": ("package.netz:net", UnknownName, "Unknown module 'package.netz'"),
    "no model": ("nets.py:nothing", ModelError, "gave a dict, and not a torch.nn.Module"),
    "arguments": ("nets.py:Trunk", ModelError, "with no arguments: missing .* 'kind'.*KEY=VALUE"),
}


@pytest.mark.parametrize("case", WRONG)
def test_names_and_functions_that_build_nothing(case: str) -> None:
    name, kind, message = WRONG[case]
    Path("nets.py").write_text(NETS + "\nPI = 3.14\n")
    path = sys.path.copy()
    with pytest.raises(kind, match=message):
        load(name)
    assert sys.path == path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model_kwargs": {"widht": 3}},
            "cannot be called with widht=3: got an unexpected keyword",
        ),
        ({"num_classes": 4, "name": "nets.py:plain"}, "gives 5 classes, and --num-classes"),
        ({"num_classes": 4, "name": "nets.py:made"}, "gives 5 classes, and --num-classes"),
        ({"model_kwargs": {"width": 3}, "name": "nets.py:made"}, "cannot be called with width=3"),
        ({"model_kwargs": {"width": -3}}, r"File nets\.py, line \d+: RuntimeError: .*negative"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(**options)


CODE = {
    "import os\nraise SystemExit(3)\n": r"File bad\.py, line 2: SystemExit: 3\.",
    "x = 1\ny = zz\n": r"File bad\.py, line 2: NameError: name 'zz' is not defined\.",
    "def f(:\n": r"File bad\.py, line 1: SyntaxError: invalid syntax\.",
    "import not_installed\n": r"File bad\.py, line 1: ModuleNotFoundError: .*'not_installed'\.",
    "import helper\n": r"File helper\.py, line 3: ZeroDivisionError: division by zero\.",
    "def f():\n  return {}['a']\n": r"File bad\.py, line 2: KeyError: 'a'\.",
    "import torch\ndef f():\n  torch.zeros(2) @ torch.zeros(3)\n": r"File bad\.py, line 3: Runti",
    "from torch.nn import *\nclass f(Module):\n  def forward(self, x):\n    return self.gone\n": (
        r"does not run on a 3x48x48 input .* File bad\.py, line 4: AttributeError: .*'gone'\.$"
    ),
}


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("name", ["bad.py:f", "bad:f"])
def test_errors_of_the_code_are_told_by_line(project_folder: Path, name: str, code: str) -> None:
    (project_folder / "bad.py").write_text(code)
    (project_folder / "helper.py").write_text("\n\nx = 1 / 0\n")
    before = sys.path.copy(), {m for m in sys.modules if "bad" in m}
    with pytest.raises(ModelError, match=CODE[code]) as caught:
        load(name)
    assert caught.value.__cause__ is not None
    assert len(str(caught.value).splitlines()) == 1
    assert sys.path == before[0]
    if "def f" not in code and "class f" not in code:
        assert {m for m in sys.modules if "bad" in m} == before[1]


# as Python would run it: its arguments, what it can import, and as what


TRAIN = """
import argparse, sys
from nets import Net

def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("files", nargs="*")
    return parser.parse_args()

HERE

def build():
    assert sys.argv == ["train.py"], sys.argv
    return Net(width=CALL.width)

if __name__ == "__main__":
    raise RuntimeError("trained")
"""


@pytest.mark.parametrize("when", ["imported", "called"])
def test_arguments_of_the_command_are_not_those_of_the_code(
    project_folder: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TRAIN.replace("HERE", "args = arguments()" if when == "imported" else "")
    text = text.replace("CALL", "args" if when == "imported" else "arguments()")
    (project_folder / "train.py").write_text(text)
    given = ["camviz", "a.png", "--width", "many", "-m", "train.py:build"]
    monkeypatch.setattr(sys, "argv", given)
    assert load("train.py:build").module.fc.in_features == 12
    assert sys.argv is given


def test_arguments_that_are_wanted_are_asked_for_in_the_codes_own_name(
    project_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\n"
    (project_folder / "train.py").write_text(f"{text}p.parse_args()\n")
    given = ["camviz", "a.png"]
    monkeypatch.setattr(sys, "argv", given)
    for name in ("train.py:build", "train:build"):
        message = (
            r"File train\.py, line 4: SystemExit: 2\. It reads arguments and is given none: let "
            r"them have defaults, or put that behind `if __name__ == \"__main__\":`\.$"
        )
        with pytest.raises(ModelError, match=message):
            load(name)
        assert sys.argv is given
        assert capfd.readouterr().err.startswith("usage: train")
    (project_folder / "second.py").write_text("import sys\nfolder = sys.argv[1]\n")
    with pytest.raises(ModelError, match=r"line 2: IndexError: .* It reads arguments and is"):
        load("second.py:build")
    (project_folder / "end.py").write_text("import sys\nsys.exit()\n")
    with pytest.raises(ModelError, match=r"line 2: SystemExit.* It ends the program: put that"):
        load("end.py:build")


@pytest.fixture
def project(project_folder: Path) -> Path:
    """Makes a project whose files import each other from its root, and by their packages."""
    for file, text in {
        "helpers/heads.py": "from torch.nn import Linear as head\n",
        "zoo/parts.py": (project_folder / "parts.py").read_text(),
        "zoo/absolute.py": "from helpers.heads import head\n" + NETS,
        "zoo/relative.py": NETS.replace("from parts", "from .parts"),
        "zoo/above.py": "from ..helpers.heads import head\n" + NETS,
    }.items():
        path = project_folder / "project" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return project_folder / "project"


def test_a_files_folder_and_the_current_one_are_looked_in(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    path = sys.path.copy()
    assert load("zoo/absolute.py:net").num_classes == 5
    assert sys.path == path
    # as Python does, the file's own folder first
    (project / "parts.py").write_text("raise RuntimeError('the wrong parts')\n")
    assert load("zoo/absolute.py:net").num_classes == 5


def _advice(error: ModelError) -> tuple[str, Path]:
    match = re.search(r"As a part of its package it is -m (\S+:net)(?: in (.+))?\.$", str(error))
    assert match
    return match[1], Path(match[2]) if match[2] else Path.cwd()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (".", "zoo/relative.py:net"),
        ("zoo", "relative.py:net"),
        ("zoo", "../zoo/relative.py:net"),
        ("helpers", "../zoo/relative.py:net"),
        ("..", "project/zoo/above.py:net"),
        (".", "zoo/above.py:net"),
        (".", "zoo.above:net"),
        ("zoo", "above.py:net"),
    ],
)
def test_a_relative_import_is_answered_with_the_form_that_works(
    folder: str, name: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / folder)
    with pytest.raises(ModelError, match="attempted relative import") as caught:
        load(name)
    name, place = _advice(caught.value)
    monkeypatch.chdir(place)
    assert load(name).num_classes == 5


def test_code_that_goes_to_another_folder_leaves_the_current_one(project: Path) -> None:
    text = f"import os\nos.chdir(os.path.dirname(__file__))\nopen('parts.py').close()\n{NETS}"
    (project / "zoo" / "going.py").write_text(text)
    here = Path.cwd()
    assert load("project/zoo/going.py:net").num_classes == 5
    assert Path.cwd() == here


def test_a_file_that_lies_beside_the_code_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "zoo" / "sizes.json").write_text("[5]")
    (project / "zoo" / "reading.py").write_text(
        f"import pathlib\npathlib.Path('sizes.json').read_text()\n{NETS}"
    )
    monkeypatch.chdir(project)
    message = f"'sizes.json'. 'sizes.json' lies in {project / 'zoo'}: run camviz in that folder."
    with pytest.raises(ModelError, match=re.escape(message)):
        load("zoo/reading.py:net")
    monkeypatch.chdir(project / "zoo")
    assert load("reading.py:net").num_classes == 5
    (project / "zoo" / "gone.py").write_text("open('gone.json')\n")
    with pytest.raises(ModelError, match=r"'gone\.json'\.$"):
        load("gone.py:net")


def test_no_form_is_advised_where_there_is_none(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "zoo").rename(project / "my-zoo")
    monkeypatch.chdir(project)
    with pytest.raises(ModelError, match=r"with no known parent package\.$"):
        load("my-zoo/relative.py:net")


def test_what_lies_in_a_folder_above_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "zoo")
    message = f"'helpers' lies in {project}: run camviz in that folder."
    with pytest.raises(ModelError, match=re.escape(message)):
        load("absolute.py:net")
    monkeypatch.chdir(project)
    assert load("zoo/absolute.py:net").num_classes == 5


def test_two_projects_may_have_modules_of_one_name(project_folder: Path) -> None:
    for n, folder in enumerate(["one", "two", "three"], 2):
        (project_folder / folder / "shared").mkdir(parents=True)
        # a package without and with an __init__, and a module
        (project_folder / folder / "shared" / "sizes.py").write_text(f"N = {n}\n")
        text = "from shared.sizes import N\n" + NETS.replace("num_classes=5", "num_classes=N")
        (project_folder / folder / "net.py").write_text(text)
    (project_folder / "two" / "shared" / "__init__.py").touch()
    (project_folder / "two" / "parts.py").write_text(PARTS)
    for _ in range(2):
        actual = [load(f"{folder}/net.py:Net").num_classes for folder in ("one", "two", "three")]
        assert actual == [2, 3, 4]
    # the first stays, for those who have it
    assert str(project_folder / "one") in str(sys.modules["shared.sizes"].__file__)


def test_the_line_of_the_users_own_code_is_reported(project_folder: Path) -> None:
    (project_folder / "own.py").write_text(
        f"{NETS}\nclass Bright(Net):\n    def forward(self, x):\n"
        "        if x.min() > 5: raise ValueError('bright')\n        return super().forward(x)\n"
    )
    module = load("own.py:Bright").module
    with pytest.raises(ValueError, match="bright") as caught:
        camcli.heatmaps(module, torch.full((2, 3, 32, 32), 9.0), "eigencam")
    number = 1 + (project_folder / "own.py").read_text().splitlines().index(
        "        if x.min() > 5: raise ValueError('bright')"
    )
    assert find_own_line(caught.value) == f"File own.py, line {number}"
    with pytest.raises(RuntimeError) as elsewhere:
        camcli.heatmaps(
            module, torch.rand(1, 3, 32, 32), target=lambda *_: torch.zeros(2) @ torch.zeros(3)
        )
    assert find_own_line(elsewhere.value) == ""


def test_what_is_installed_is_not_put_aside(project_folder: Path) -> None:
    before = {name: sys.modules[name] for name in ("torch", "json", "camcli", "PIL")}
    for name in before:
        (project_folder / name).mkdir()
        (project_folder / name / "__init__.py").write_text("raise RuntimeError('another')\n")
    assert load().num_classes == 5
    assert {name: sys.modules[name] for name in before} == before
