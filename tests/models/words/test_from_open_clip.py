"""Models of open_clip: words in the place of classes, its own pixels and probabilities."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import camcli
from camcli.cli.app import main
from camcli.engine.layer_selection import find_default_layer
from camcli.errors import ModelError, UnknownName, UsageError, WeightsError
from camcli.media.network_input import make_view
from camcli.media.pictures.read import make_picture
from camcli.models.load import Classifier
from camcli.models.words import from_open_clip
from tests.checkout import ROOT
from tests.tools.corners import keeps_places

open_clip = pytest.importorskip("open_clip")

PHOTO = ROOT / "demo_images" / "cat_and_coffee.jpg"
WORDS = ["a cat", "an espresso", "a dog"]
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}
TOWERS = {"ViT-B-32": VIT, "RN50": RESNET}


@cache
def load(name: str) -> Classifier:
    kwargs = {"embed_dim": 16, "vision_cfg": TOWERS[name], "text_cfg": TEXT}
    return camcli.load_model(
        f"open_clip:{name}", pretrained=False, model_kwargs=kwargs, device="cpu"
    )


def inputs_of(classifier: Classifier) -> torch.Tensor:
    return make_view(make_picture(PHOTO), classifier.preprocessing).inputs[None]


@pytest.mark.parametrize("name", TOWERS)
def test_pixels_are_those_of_the_librarys_own_transform(name: str) -> None:
    classifier = load(name)
    config = open_clip.get_model_preprocess_cfg(classifier.module)
    kept = {k: config[k] for k in ("mean", "std", "interpolation", "resize_mode")}
    transform = open_clip.image_transform(config["size"], is_train=False, **kept)
    with Image.open(PHOTO) as picture:
        expected = transform(picture.convert("RGB"))[None]
    # a grey level, as for timm's and torchvision's
    step = 1 / 255 / min(classifier.preprocessing.std)
    assert float((inputs_of(classifier) - expected).abs().max()) <= step + 1e-6


@pytest.mark.parametrize("name", TOWERS)
def test_probabilities_are_those_of_clip(name: str) -> None:
    classifier = load(name)
    explanations = list(
        camcli.explain(camcli.prompt(classifier, WORDS, "a photo of {}."), PHOTO, top_k=3)
    )
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    with torch.no_grad():
        given = classifier.module(
            inputs_of(classifier), tokens([f"a photo of {w}." for w in WORDS])
        )
        logits = given["logit_scale"] * given["image_features"] @ given["text_features"].T
    expected = dict(zip(WORDS, logits.softmax(1)[0].tolist(), strict=True))
    assert {e.label: e.probability for e in explanations} == pytest.approx(expected, abs=1e-4)
    assert [e.record.rank for e in explanations] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "layer"),
    [("ViT-B-32", "visual.transformer.resblocks.1"), ("RN50", "visual.layer4")],
)
def test_maps_are_grad_cam_by_hand(name: str, layer: str) -> None:
    classifier = load(name)
    (explanation,) = camcli.explain(
        camcli.prompt(classifier, WORDS), PHOTO, target_layers=layer, target_category="a dog"
    )
    model: Any = classifier.module
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *a: kept.append(a[2]))
    image = model.encode_image(inputs_of(classifier), normalize=True)
    handle.remove()
    text = model.encode_text(open_clip.get_tokenizer("ViT-B-32", context_length=16)(["a dog"]))
    score = model.logit_scale.exp() * (image @ F.normalize(text, dim=1).T).sum()
    (gradients,) = torch.autograd.grad(score, kept)
    maps = kept[0].detach()
    if maps.ndim == 3:
        # behind the class token the patches, row by row
        maps, gradients = (t[:, 1:].mT.unflatten(2, (4, 4)) for t in (maps, gradients))
    expected = (gradients.mean((2, 3), keepdim=True) * maps).sum(1)[0]
    torch.testing.assert_close(
        torch.from_numpy(explanation.heatmap),
        expected,
        rtol=1e-3,
        atol=1e-4 * float(expected.abs().max()),
    )


@pytest.mark.parametrize("method", ["rollout", "genericattention", "gradattention", "legrad"])
def test_attention_of_the_picture_tower_is_read(method: str) -> None:
    compared = camcli.prompt(load("ViT-B-32"), WORDS)
    (explanation,) = camcli.explain(compared, PHOTO, method=method)
    assert explanation.heatmap.shape == (4, 4)
    assert explanation.heatmap.std() > 0


@pytest.mark.parametrize("name", TOWERS)
def test_a_bright_corner_is_seen_where_it_is(name: str) -> None:
    compared = camcli.prompt(load(name), WORDS)
    target = find_default_layer(compared.module, (3, 64, 64), compared.reading)
    assert keeps_places(compared.module, target.name, (3, 64, 64))


def test_one_text_alone_is_explained_by_its_cosine() -> None:
    classifier = load("ViT-B-32")
    (explanation,) = camcli.explain(camcli.prompt(classifier, "a cat"), PHOTO)
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=16)(["a cat"])
    with torch.no_grad():
        given = classifier.module(inputs_of(classifier), tokens)
    expected = float((given["image_features"] * given["text_features"]).sum())
    assert explanation.record.value == pytest.approx(expected, abs=1e-4)
    assert explanation.label == "a cat"
    assert explanation.probability is None


def test_texts_of_siglip_have_probabilities_of_their_own() -> None:
    kwargs = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT, "init_logit_bias": -10.0}
    classifier = camcli.load_model(
        "open_clip:ViT-B-32", pretrained=False, model_kwargs=kwargs, device="cpu"
    )
    explanations = list(camcli.explain(camcli.prompt(classifier, WORDS), PHOTO, top_k=3))
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=16)(WORDS)
    with torch.no_grad():
        given = classifier.module(inputs_of(classifier), tokens)
        cosines = given["image_features"] @ given["text_features"].T
        expected = (given["logit_scale"] * cosines + given["logit_bias"]).sigmoid()[0]
    assert {e.label: e.probability for e in explanations} == pytest.approx(
        dict(zip(WORDS, expected.tolist(), strict=True)), abs=1e-5
    )


def test_contrast_and_references_work_as_with_classes() -> None:
    classifier = load("ViT-B-32")
    (against,) = camcli.explain(
        camcli.prompt(classifier, WORDS), PHOTO, target_category="a cat", contrast="a dog"
    )
    assert against.record.contrast_labels == ("a dog",)
    (alike,) = camcli.explain(camcli.compare_with(classifier, PHOTO), PHOTO)
    assert alike.record.value == pytest.approx(1, abs=1e-5)
    (classless,) = camcli.explain(classifier, PHOTO, method="eigencam")
    assert classless.heatmap.std() > 0


@pytest.mark.parametrize(
    ("texts", "template", "message"),
    [
        (["a cat " * 10], "{}", "longer than the 16 tokens"),
        (["a cat", " "], "{}", "A text is empty"),
        ([], "{}", "Nothing is looked for"),
        (["a cat", "a cat"], "{}", "'a cat' is given twice"),
        (["a cat"], "a photo", r"'a photo' has no \{\}"),
    ],
)
def test_texts_that_cannot_be_taken(texts: list[str], template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        camcli.prompt(load("ViT-B-32"), texts, template)


def test_a_text_that_fits_just_so_is_not_cut() -> None:
    # fourteen words between the tokens of begin and end
    assert camcli.prompt(load("ViT-B-32"), "cat " * 14).num_classes == 1
    with pytest.raises(UsageError, match="longer"):
        camcli.prompt(load("ViT-B-32"), "cat " * 15)


def test_models_that_read_no_words_say_so() -> None:
    classifier = camcli.load_model("timm/test_resnet", pretrained=False, device="cpu")
    with pytest.raises(ModelError, match="reads no words"):
        camcli.prompt(classifier, "a cat")


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    from_open_clip.list_names.cache_clear()
    with pytest.raises(ModelError, match=r"pip install 'camviz\[clip\]'"):
        camcli.load_model("open_clip:ViT-B-32")


def test_names_and_weights_that_are_not_there() -> None:
    with pytest.raises(UnknownName, match="ViT-B-32"):
        camcli.load_model("open_clip:ViT-B-23")
    with pytest.raises(WeightsError, match="open_clip:ViT-B-32/openai"):
        camcli.load_model("open_clip:ViT-B-32")
    with pytest.raises(UnknownName, match="openai"):
        camcli.load_model("open_clip:ViT-B-32/opena")
    with pytest.raises(ModelError, match="has no classifier"):
        camcli.load_model("open_clip:ViT-B-32", pretrained=False, num_classes=5)
    with pytest.raises(
        ModelError, match=r"no model of open_clip: it has no open_clip_config\.json"
    ):
        camcli.load_model("open_clip:local-dir:nowhere")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder as open_clip's own push to the hub leaves it, with weights of a tiny model."""
    from safetensors.torch import save_file

    model = load("ViT-B-32").module
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT}
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "squash"}
    where = tmp_path / "model"
    where.mkdir()
    (where / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}), encoding="utf-8"
    )
    weights = {k: v.contiguous() + 0.01 for k, v in model.state_dict().items()}
    save_file(weights, where / "open_clip_model.safetensors")
    yield where


def test_a_folder_is_loaded_with_its_weights_and_its_view(folder: Path) -> None:
    classifier = camcli.load_model(f"open_clip:local-dir:{folder}", device="cpu")
    assert classifier.preprocessing.fit == "squash"
    assert classifier.preprocessing.std == (0.25, 0.25, 0.25)
    for name, weight in load("ViT-B-32").module.state_dict().items():
        torch.testing.assert_close(classifier.module.state_dict()[name], weight + 0.01)


def test_a_tower_of_another_size(folder: Path) -> None:
    classifier = camcli.load_model(f"open_clip:local-dir:{folder}", img_size=96, device="cpu")
    (explanation,) = camcli.explain(camcli.prompt(classifier, WORDS), PHOTO)
    assert classifier.preprocessing.size == (96, 96)
    assert explanation.heatmap.shape == (6, 6)


def test_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(PHOTO), "-m", f"open_clip:local-dir:{folder}", "--device", "cpu", "--json"]
    texts = ["--text", "a cat, or a kitten", "--text", "an espresso", "--template", "a photo of {}"]
    assert main([*argv, *texts, "--top-k", "2", "--save-path", str(tmp_path / "out")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["label"] for line in lines} == {"a cat, or a kitten", "an espresso"}
    assert sum(line["probability"] for line in lines) == pytest.approx(1, abs=1e-5)
    assert main([*argv, "--text", "a cat", "--like", str(PHOTO)]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main([*argv, "--template", "a photo of {}"]) == 2
    assert "--template is for --text" in capsys.readouterr().err


def test_the_texts_are_encoded_once_and_pictures_in_batches() -> None:
    prompted = camcli.prompt(load("ViT-B-32"), WORDS)
    together = list(camcli.explain(prompted, [PHOTO] * 3, batch_size=3))
    (alone,) = camcli.explain(prompted, PHOTO)
    for one in together:
        np.testing.assert_allclose(one.heatmap, alone.heatmap, rtol=1e-3, atol=1e-6)
