"""Every command and every Python example of README and handbook runs to its end, offline.

The embedded model sees 64 pixels, and a network of few channels stands for it where every method is
run.  Small random networks stand for those of other libraries, whose names have to exist; the files
of weights hold theirs.  What is no command of one machine is listed, with its reason.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import sys
import tomllib
import webbrowser
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import camcli
from camcli.cli.app import main
from camcli.cli.commands import serve
from camcli.cli.commands.help import list_tables, topics
from camcli.metrics.perturbation import imputation
from camcli.models import build, catalogue, embedded, model_lookup
from camcli.models.embedded.build import build as build_embedded
from camcli.models.hugging_face.repository import CachedModel
from camcli.models.known_names import list_architectures, list_timm_names
from camcli.models.load import Classifier
from camcli.models.model_spec import BuiltModel, ModelSpec
from camcli.option_info import OPTION_INFO
from camcli.serve.server import Server
from tests import small_models
from tests.checkout import ROOT
from tests.documented import PAGES, Shown, list_blocks, list_commands, list_python
from tests.media.clips import frame, write_animation, write_video
from tests.media.videos.test_frames import FakeCamera

EDGE = 32
# what says that a model is not found by a plain name
SCHEMES = ("hf:", "open_clip:", "my_models.py:", "package.module:", "runs/", "FOLDER")
# what is given to the pages' placeholders
REPLACED = {
    "100:400": "1:4",
    "cuda:0": "cpu",
    "$PHOTOS": "photos",
    "$OUT": "out",
    "/nfs/photos": "photos",
    "/nfs/out": "out",
}
# what is in a command that cannot run here, and why
NOT_HERE = {
    "--engine ray": "Ray starts processes of its own, which know nothing of what stands for models "
    "here: tests/pipeline/distributed/test_clusters.py runs camviz on it"
}
MOST_NOT_HERE = 3
# words with which a command prints, and writes nothing
PRINTING = {"methods", "metrics", "models", "help", "verify", "summary", "sanity", "completion"}
PRINTING |= {"--preview-model", "serve", "evaluate"}
# words with which a command takes many passes, or looks at what another has written
ON_SMALL_NETWORK = {"all", "tune", "evaluate", "sanity", "rise"}
ON_SMALL_NETWORK |= {"merge", "verify", "report", "summary"}
COMMANDS = [c for c in list_commands() if c.words]
BLOCKS = list(list_python())


def can_run(shown: Shown) -> bool:
    return not any(what in shown.text for what in NOT_HERE)


class StoppedCamera(FakeCamera):
    """A camera that shows pictures until somebody presses Ctrl-C, which ends the film."""

    def grab(self) -> bool:
        self.shown += 1
        if self.shown == 2:
            signal.raise_signal(signal.SIGINT)
        return self.shown < 200


class Net(nn.Sequential):
    """A classifier with as many classes as the embedded one, and two layers."""

    def __init__(self, first: str = "layer3", second: str = "layer4") -> None:
        parts = [
            (first, nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())),
            (second, nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())),
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flat", nn.Flatten()),
            ("head", nn.Linear(8, 1000)),
        ]
        super().__init__(OrderedDict(parts))


def make_network(*names: str) -> Net:
    torch.manual_seed(0)
    return Net(*names).eval()


def make_classifier() -> Classifier:
    preprocessing = {"mean": 0.5, "std": 0.5}
    labels = list(embedded.load_labels())
    network = make_network("_blocks", "features")
    return camcli.load_model(
        network, labels=labels, preprocessing=preprocessing, img_size=EDGE, device="cpu"
    )


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return make_classifier()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files that the pages name."""
    folder = tmp_path_factory.mktemp("place")
    pictures = ["a", "b", "references/r", "val/1", "more/deep/img", "photos/1", "photos/2"]
    for number, name in enumerate([*pictures, "photos/3", *_list_words(".jpg", ".jpeg")]):
        path = (folder / name).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (36, 48, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    Image.new("RGB", (40, 40), "red").save(folder / "more" / "img.png")
    Image.new("RGB", (40, 40), "red").save(folder / "more" / "deep" / "img.png")
    (folder / "list.txt").write_text("a.jpg\nb.jpg\n")
    (folder / "demo_images").symlink_to(ROOT / "demo_images")
    (folder / "classes.txt").write_text("".join(f"class {n}\n" for n in range(1000)))
    _write_models(folder)
    (folder / "camviz-out").mkdir()
    (folder / "camviz-out" / "camviz-tune.toml").write_text('method = "layercam"\n')
    page = ROOT / "camcli" / "docs" / "presets.md"
    begin = "# mine.toml\n"
    (preset,) = (block.partition(begin)[2] for block in list_blocks(page) if begin in block)
    assert tomllib.loads(preset)["model"]
    (folder / "mine.toml").write_text(preset)
    _write_boxes(folder)
    write_video(folder / "clip.mp4", 6)
    write_animation(folder / "pets.gif", [frame(0), frame(1)])
    return folder


def _list_words(*suffixes: str) -> list[str]:
    """Lists the files that commands name of these kinds."""
    words = {word for shown in COMMANDS for word in shown.words if word.endswith(suffixes)}
    return sorted(word for word in words if not re.search(r"[*:]|^demo_images", word))


# code of the user's own, as the pages name it
OWN_MODELS = """
from tests.small_models import make_vit

def t2t_vit_14():
    return make_vit(img_size=224)
"""
OWN_PACKAGE = """
from tests.small_models import make_vit

def build(depth, img_size):
    return make_vit(depth=depth, img_size=img_size)
"""
# files of weights that are not those of a small ResNet of 1,000 classes
OTHER_WEIGHTS: dict[str, Callable[[], nn.Module]] = {
    "timm.pth": small_models.make_vit,
    "t2t.pth": lambda: small_models.make_vit(img_size=224),
    **dict.fromkeys(("before.pth", "after.pth"), lambda: small_models.SmallResNet(classes=4)),
}


def _write_models(folder: Path) -> None:
    """Writes code of models, and weights that fit what is built here."""
    (folder / "my_models.py").write_text(OWN_MODELS)
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text(OWN_PACKAGE)
    (folder / "weights").mkdir()
    for name in ("weights/best.pt", *_list_words(".pth", ".pt", ".tar", ".safetensors")):
        state = OTHER_WEIGHTS.get(name, small_models.SmallResNet)().state_dict()
        saved = {"arch": "resnet50", "state_dict": state} if name.endswith(".tar") else state
        torch.save(saved, folder / name)
    for name in ("FOLDER", "runs/checkpoint-500"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text('{"model_type": "vit"}')
        torch.save(small_models.make_vit().state_dict(), folder / name / "pytorch_model.bin")


def _write_boxes(folder: Path) -> None:
    small, large = (48, 36), (640, 480)
    beside = ("photos/1", "photos/2", "photos/3", "val/1")
    for name, pictures, (width, height) in (
        ("boxes", beside, small),
        ("annotations", beside, small),
        ("instances_val", ("1",), large),
    ):
        known = {
            "images": [
                {"id": number, "file_name": f"{picture}.jpg", "width": width, "height": height}
                for number, picture in enumerate(pictures)
            ],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [
                {"id": number, "image_id": number, "category_id": 1, "bbox": [2, 3, 9, 8]}
                for number in range(len(pictures))
            ],
        }
        (folder / f"{name}.json").write_text(json.dumps(known))


@pytest.fixture
def _in_place(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands among copies of the files, with the standard input and home of a person."""
    for entry in place.iterdir():
        if entry.name != "camviz-out":
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "camviz-out").mkdir()
    for preset in (place / "camviz-out").iterdir():
        (tmp_path / "camviz-out" / preset.name).write_bytes(preset.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\nb.jpg\n")))


@pytest.fixture(scope="module")
def trained() -> BuiltModel:
    """The embedded model, which sees fewer pixels."""
    edge = small_models.EMBEDDED_EDGE
    return build_embedded(ModelSpec(embedded.NAME, img_size=(edge, edge)))


@pytest.fixture
def _small(trained: BuiltModel, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts small networks in the place of what libraries build, and of what takes long."""
    real = build._build

    def build_small(origin: str, request: ModelSpec) -> BuiltModel:
        if origin == "python":
            return real(origin, request)
        if origin == "embedded" and not ON_SMALL_NETWORK & set(shown.words):
            return trained
        if origin in model_lookup.LIBRARIES:
            check_is_known(request.name)
        return small_models.build(request)

    monkeypatch.setattr(build, "_build", build_small)
    # commands end whatever ROAD puts in the holes: tests/metrics/perturbation/test_imputation.py
    monkeypatch.setattr(imputation, "MOST_STEPS", 2)
    for extra in ("open_clip", "transformers"):
        monkeypatch.setitem(model_lookup.BUILDERS, extra, small_models.__name__)
    monkeypatch.setattr(model_lookup, "_check_transformers", lambda: None)


@pytest.fixture
def _cached(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CachedModel("hf:microsoft/resnet-50", 1000, (224, 224), has_weights=True)
    monkeypatch.setattr(catalogue, "list_cached", lambda: [found])


@pytest.fixture
def _fake_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a camera, before which somebody presses Ctrl-C after two pictures."""
    monkeypatch.setattr(cv2, "VideoCapture", StoppedCamera)


@pytest.fixture
def _first_of_all(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process the first of those that a launcher starts."""
    launched = re.search(r"--nproc-per-node (\d+)", shown.text)
    if launched:
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", launched[1])


@pytest.mark.parametrize("shown", [c for c in COMMANDS if can_run(c)], ids=str)
@pytest.mark.usefixtures("_in_place", "_small", "_fake_camera", "_first_of_all")
def test_a_command_runs(
    shown: Shown,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    words = [_replace(word) for word in shown.words]
    if words == ["models", "hf"]:
        request.getfixturevalue("_cached")
    if words[0] == "serve":
        _end_at_once(request.getfixturevalue("monkeypatch"))
    if words[0] in ("merge", "verify", "report", "summary"):
        _run_before(words, request.getfixturevalue("monkeypatch"))
    before = _list_files(tmp_path)
    code = main(words)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.out
    assert PRINTING & set(words) or _list_files(tmp_path) - before


def _list_files(folder: Path) -> set[tuple[str, int]]:
    """Lists files and when they were written, but for links to what was there before."""
    files = (Path(top, name) for top, _, names in os.walk(folder) for name in names)
    return {(str(file), file.lstat().st_mtime_ns) for file in files}


def _replace(word: str) -> str:
    """Puts what is here in the place of what is elsewhere."""
    if "://" in word:
        return "photos/*.jpg" if "*" in word else "photos"
    return REPLACED.get(word, word)


def _end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the server listen at a free port, and answer nobody."""

    def serve_until(self: Server, _: object) -> None:
        assert self.show.models
        self.server_close()

    monkeypatch.setattr(serve, "PORT", 0)
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.setattr(Server, "serve_until", serve_until)


def _run_before(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the run that a command looks at, or the shards that `camviz merge` joins."""
    ranks = ("0", "1") if words[0] == "merge" else ("",)
    for rank in ranks:
        with monkeypatch.context() as patch:
            if rank:
                patch.setenv("RANK", rank)
                patch.setenv("WORLD_SIZE", "2")
            assert main(["photos", "--save-path", words[1], "-q"]) == 0


def check_is_known(model: str) -> None:
    plain_name = model.removeprefix("timm/").removeprefix("torchvision/")
    known = list_timm_names() if "." in plain_name else list_architectures()
    assert plain_name in known or plain_name.startswith(SCHEMES)


def make_transform() -> Any:
    transforms = pytest.importorskip("torchvision.transforms")
    to_edge, centre = transforms.Resize(EDGE), transforms.CenterCrop(EDGE)
    return transforms.Compose([to_edge, centre, transforms.ToTensor()])


class TwoInputs(nn.Module):
    """Takes pictures and ages, by place or by name, and gives logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_network()
        self.age = nn.Linear(1, 1000)

    def forward(self, image: Tensor, ages: Tensor) -> Tensor:
        return self.net(image) + self.age(ages)


class InDictionary(nn.Module):
    """Gives its logits in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_network()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(image), "embedding": image.mean((2, 3))}


@pytest.fixture(scope="module")
def namespace(classifier: Classifier, place: Path) -> Iterator[dict[str, Any]]:
    """What the pages' examples have at hand."""
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, EDGE, EDGE)
    with contextlib.chdir(place):
        explanations = list(camcli.explain(classifier, ["a.jpg", "b.jpg"]))
        methods = ["gradcam", "layercam"]
        one, other = camcli.explain(classifier, "a.jpg", methods, target_category=3)
    yield {
        "camcli": camcli,
        "classifier": classifier,
        "any_module": make_network(),
        "model": make_network(),
        "inputs": inputs,
        "batches": [inputs, inputs],
        "loader": [inputs],
        "batch": inputs,
        "pictures": inputs,
        "ages": torch.rand(2, 1),
        "image": torch.randn(3, EDGE, EDGE),
        "maps": torch.rand(2, EDGE, EDGE),
        "score": lambda images: make_network()(images).softmax(1)[:, 281],
        "photos": ["a.jpg", "b.jpg"],
        "picture": "a.jpg",
        "heatmap": explanations[0].heatmap,
        "explanations": explanations,
        "e": explanations[0],
        "one": one,
        "other": other,
        "transform": make_transform(),
        "loss_of": lambda logits: logits.sum(),
    }


# lines of a page that want another model than those beside them
OTHER_MODELS = {
    'output_key="logits"': InDictionary,
    "(pictures, ages)": TwoInputs,
    '"ages": ages': TwoInputs,
    "labels=": lambda: nn.Sequential(*list(make_network())[:-1], nn.Linear(8, 2)),
}


@pytest.mark.parametrize("shown", BLOCKS, ids=lambda shown: f"{shown.page}: {shown.text[:40]!r}")
@pytest.mark.usefixtures("_in_place")
def test_an_example_runs(
    shown: Shown, namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(model: Any = embedded.NAME, **options: Any) -> Classifier:
        if isinstance(model, str):
            check_is_known(model)
            return make_classifier()
        return real(model, **options)

    real = camcli.load_model
    monkeypatch.setattr(camcli, "load_model", load_model)
    names = dict(namespace)
    for part in _split_statements(shown.text):
        make = next((make for words, make in OTHER_MODELS.items() if words in part), None)
        names["model"] = make().eval() if make else names["model"]
        names["inputs"] = namespace["inputs"][:1] if "targets=[281]" in part else names["inputs"]
        exec(compile(part, shown.page, "exec"), names)


def _split_statements(block: str) -> Iterator[str]:
    import ast

    for node in ast.parse(block).body:
        yield ast.get_source_segment(block, node) or ""


def test_the_pages_that_are_named_are_there() -> None:
    known = {*topics(), *list_tables()}
    for page in PAGES:
        text = " ".join(page.read_text(encoding="utf-8").split())
        named = re.findall(r"camviz help ([a-z][\w/]*)", text)
        assert set(named) <= known, page.name
    named = [topic for said in OPTION_INFO.values() for topic in re.findall(r"help (\w+)", said)]
    assert len(named) > 3 and set(named) <= known


def test_few_commands_do_not_run_here() -> None:
    assert sum(not can_run(shown) for shown in COMMANDS) <= MOST_NOT_HERE
    assert all(any(what in shown.text for shown in COMMANDS) for what in NOT_HERE)


def test_what_is_shown_is_found() -> None:
    pages = {shown.page for shown in COMMANDS}
    assert len(COMMANDS) > 100 and {"README.md", "start.md", "inputs.md", "runs.md"} <= pages
    assert len(BLOCKS) > 12 and {"README.md", "python.md"} <= {shown.page for shown in BLOCKS}
