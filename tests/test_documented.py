"""Every command and every Python example of README and handbook is understood, offline.

Those of the default model run to their end, with a tiny network in its place where the map is not
the point; those of other models run until the model would be loaded, whose name has to exist.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tomllib
import webbrowser
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import camcli
from camcli.cli.app import main
from camcli.cli.commands import serve
from camcli.cli.commands.help import list_tables, topics
from camcli.models import catalogue, embedded, load
from camcli.models.hugging_face.repository import CachedModel
from camcli.models.known_names import list_architectures, list_timm_names
from camcli.models.load import Classifier
from camcli.option_info import OPTION_INFO
from camcli.pipeline.distributed import ray_backend
from camcli.serve.server import Server
from tests.checkout import ROOT
from tests.documented import PAGES, Shown, list_blocks, list_commands, list_python
from tests.media.clips import frame, write_animation, write_video

EDGE = 32
# what says that a model is not found by a plain name
SCHEMES = ("hf:", "open_clip:", "my_models.py:", "package.module:", "runs/", "FOLDER")
# what is given to the pages' placeholders
REPLACED = {
    "100:400": "1:4",
    "$PHOTOS": "photos",
    "$OUT": "out",
    "/nfs/photos": "photos",
    "/nfs/out": "out",
}
# commands of which the model that they load is all that can be had here
UNTIL_LOADED = ("evaluate", "tune", "sanity", "--camera")
COMMANDS = [c for c in list_commands() if c.words]
BLOCKS = list(list_python())


class ModelAsked(BaseException):
    """Raised in the place of loading a model."""


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
    for name in ("weights/best.pt", *_list_words(".pth", ".pt", ".tar", ".safetensors")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "FOLDER").mkdir()
    (folder / "classes.txt").write_text("".join(f"class {n}\n" for n in range(1000)))
    (folder / "my_models.py").write_text("def t2t_vit_14():\n    raise AssertionError\n")
    (folder / "runs" / "checkpoint-500").mkdir(parents=True)
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


def _write_boxes(folder: Path) -> None:
    small, large = (48, 36), (640, 480)
    for name, picture, (width, height) in (
        ("boxes", "photos/1", small),
        ("annotations", "val/1", small),
        ("instances_val", "1", large),
    ):
        known = {
            "images": [{"id": 1, "file_name": f"{picture}.jpg", "width": width, "height": height}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 9, 8]}],
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


@pytest.fixture
def _tiny(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a tiny network in the place of the embedded one, and none in that of others."""

    def load_model(name: str = embedded.NAME, **_: Any) -> Classifier:
        if name != embedded.NAME or _["checkpoint"] is not None:
            raise ModelAsked(name)
        return classifier

    def run_on_ray(*_: Any) -> None:
        raise ModelAsked("resnet50")

    monkeypatch.setattr(load, "load_model", load_model)
    monkeypatch.setattr(ray_backend, "run_on_ray", run_on_ray)


@pytest.fixture
def _stops_at_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_model(name: str, **_: Any) -> Classifier:
        raise ModelAsked(name)

    monkeypatch.setattr(load, "load_model", load_model)


@pytest.fixture
def _cached(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CachedModel("hf:microsoft/resnet-50", 1000, (224, 224), has_weights=True)
    monkeypatch.setattr(catalogue, "list_cached", lambda: [found])


@pytest.mark.parametrize("shown", COMMANDS, ids=str)
@pytest.mark.usefixtures("_in_place", "_tiny")
def test_a_command_runs(
    shown: Shown, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    words = [_replace(word) for word in shown.words]
    if set(words) & set(UNTIL_LOADED):
        request.getfixturevalue("_stops_at_loading")
    if words == ["models", "hf"]:
        request.getfixturevalue("_cached")
    if words[0] == "serve":
        _end_at_once(request.getfixturevalue("monkeypatch"))
    if words[0] in ("merge", "verify", "report", "summary"):
        _run_before(words, request.getfixturevalue("monkeypatch"))
    try:
        code = main(words)
    except ModelAsked as asked:
        check_is_known(str(asked))
        return
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.out


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


def test_what_is_shown_is_found() -> None:
    pages = {shown.page for shown in COMMANDS}
    assert len(COMMANDS) > 100 and {"README.md", "start.md", "inputs.md", "runs.md"} <= pages
    assert len(BLOCKS) > 12 and {"README.md", "python.md"} <= {shown.page for shown in BLOCKS}
