"""Words in the place of classes, for CLIP, SigLIP and their kind of transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import camcli
from camcli.cli.app import main
from camcli.engine.layer_selection import find_default_layer
from camcli.errors import ModelError, UsageError, WeightsError
from camcli.media.network_input import make_view
from camcli.media.pictures.read import make_picture
from camcli.models.load import Classifier
from camcli.utils.warning_filters import ignore_warnings
from tests.checkout import ROOT
from tests.models.test_load import in_hub_cache
from tests.tiny_transformers import CLASSIFIERS, VIT, build_tiny, lay_out
from tests.tiny_words import CONTEXT, MODELS, save_worded
from tests.tools.corners import keeps_places

transformers = pytest.importorskip("transformers")

TEXTS = ("a cat", "an espresso", "a dog")
TEMPLATE = "photo of {}."
MAIN = ("clip", "siglip", "siglip2")
PADDED = ("siglip", "siglip2")


@dataclass(frozen=True)
class Saved:
    """A tiny model as transformers saved it, as it was, and as camviz loads it."""

    folder: Path
    module: Any
    classifier: Classifier


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """Gives a tiny model by its name, made once."""
    made: dict[str, Saved] = {}

    def get(name: str) -> Saved:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            module = save_worded(folder, name)
            made[name] = Saved(folder, module, camcli.load_model(str(folder), device="cpu"))
        return made[name]

    return get


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square photo, of which SigLIP2's processor makes as many patches as there may be."""
    path = tmp_path_factory.mktemp("photo") / "square.png"
    with Image.open(ROOT / "demo_images" / "cat_and_coffee.jpg") as picture:
        picture.convert("RGB").resize((96, 96)).save(path)
    return path


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def tokenize(saved: Saved, texts: list[str], name: str) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved.folder)
    whole = {"padding": "max_length", "max_length": CONTEXT} if name in PADDED else {}
    tokens = tokenizer(texts, return_tensors="pt", **(whole or {"padding": True}))
    return {key: tokens[key] for key in ("input_ids", "attention_mask")}


def process(saved: Saved, photo: Path) -> Any:
    processor = transformers.AutoImageProcessor.from_pretrained(saved.folder)
    with Image.open(photo) as picture:
        return processor(images=picture.convert("RGB"), return_tensors="pt")


def view(saved: Saved, photo: Path) -> Tensor:
    return make_view(make_picture(photo), saved.classifier.preprocessing).inputs[None]


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_are_those_of_transformers(
    saved: Callable[[str], Saved], photo: Path, name: str
) -> None:
    mine = saved(name)
    prompted = camcli.prompt(mine.classifier, TEXTS, TEMPLATE)
    explanations = list(camcli.explain(prompted, photo, top_k=3, method="gradcam"))
    texts = tokenize(mine, [TEMPLATE.replace("{}", text) for text in TEXTS], name)
    with torch.no_grad():
        logits = mine.module(**texts, **process(mine, photo)).logits_per_image[0]
    probabilities = logits.sigmoid() if name in PADDED else logits.softmax(0)
    expected = dict(zip(TEXTS, probabilities.tolist(), strict=True))
    assert {e.label: e.probability for e in explanations} == pytest.approx(expected, abs=1e-5)
    assert [e.record.rank for e in explanations] == [1, 2, 3]
    # of random weights, and yet told apart
    assert len({round(e.probability or 0, 4) for e in explanations}) == 3


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_pixels_are_those_of_the_processor(
    saved: Callable[[str], Saved], photo: Path, name: str
) -> None:
    mine = saved(name)
    torch.testing.assert_close(view(mine, photo), process(mine, photo)["pixel_values"])


@pytest.mark.parametrize("name", MAIN)
def test_maps_are_grad_cam_by_hand(saved: Callable[[str], Saved], photo: Path, name: str) -> None:
    mine = saved(name)
    prompted = camcli.prompt(mine.classifier, TEXTS)
    (explanation,) = camcli.explain(prompted, photo, target_category="a dog")
    target = find_default_layer(prompted.module, (3, 64, 64), prompted.reading)
    kept: list[Tensor] = []
    inputs = {k: v.requires_grad_(v.is_floating_point()) for k, v in process(mine, photo).items()}
    with mine.module.get_submodule(target.name).register_forward_hook(
        lambda *a: kept.append(a[2] if isinstance(a[2], Tensor) else a[2][0])
    ):
        logits = mine.module(**tokenize(mine, list(TEXTS), name), **inputs).logits_per_image
    (gradients,) = torch.autograd.grad(logits[0, 2], kept)
    maps, weights = (lay_out(t, target.layout) for t in (kept[0].detach(), gradients))
    expected = (weights.mean((2, 3), keepdim=True) * maps).sum(1)[0]
    assert expected.shape == (4, 4)
    torch.testing.assert_close(
        torch.from_numpy(explanation.heatmap),
        expected,
        rtol=1e-3,
        atol=1e-3 * float(expected.std()),
    )


@pytest.mark.parametrize("name", MAIN)
def test_a_bright_corner_is_seen_where_it_is(saved: Callable[[str], Saved], name: str) -> None:
    prompted = camcli.prompt(saved(name).classifier, TEXTS)
    target = find_default_layer(prompted.module, (3, 64, 64), prompted.reading)
    assert keeps_places(prompted.module, target.name, (3, 64, 64))


@pytest.mark.parametrize("name", MAIN)
@pytest.mark.parametrize("method", ["rollout", "genericattention", "gradattention", "legrad"])
def test_attention_of_the_picture_tower_is_read(
    saved: Callable[[str], Saved], photo: Path, name: str, method: str
) -> None:
    mine = saved(name)
    before = mine.classifier.module.config.vision_config._attn_implementation
    (explanation,) = camcli.explain(camcli.prompt(mine.classifier, TEXTS), photo, method=method)
    assert explanation.heatmap.shape == (4, 4)
    assert explanation.heatmap.std() > 0
    assert mine.classifier.module.config.vision_config._attn_implementation == before


def test_generic_attention_is_that_of_a_slow_replica(
    saved: Callable[[str], Saved], photo: Path
) -> None:
    """Chefer et al., arXiv:2103.15679 eq. 5 and 6, for the class token of CLIP's picture tower."""
    mine = saved("clip")
    (explanation,) = camcli.explain(
        camcli.prompt(mine.classifier, TEXTS),
        photo,
        method="genericattention",
        target_category="an espresso",
    )
    module = build_tiny(MODELS["clip"].tiny)
    module.set_attn_implementation("eager")
    output = module(
        **tokenize(mine, list(TEXTS), "clip"), **process(mine, photo), output_attentions=True
    )
    attentions = output.vision_model_output.attentions
    gradients = torch.autograd.grad(output.logits_per_image[0, 1], attentions)
    relevance = torch.eye(17)
    for attention, gradient in zip(attentions, gradients, strict=True):
        mean = torch.zeros(17, 17)
        for head in range(2):
            mean += (attention[0, head] * gradient[0, head]).clamp(min=0).detach() / 2
        relevance = relevance + mean @ relevance
    expected = relevance[0, 1:].unflatten(0, (4, 4))
    torch.testing.assert_close(
        torch.from_numpy(explanation.heatmap),
        expected,
        rtol=1e-3,
        atol=1e-3 * float(expected.std()),
    )


def test_legrad_is_that_of_a_slow_replica(saved: Callable[[str], Saved], photo: Path) -> None:
    """Bousselham et al., arXiv:2404.03214: each block is read as CLIP reads its last."""
    mine = saved("clip")
    prompted = camcli.prompt(mine.classifier, TEXTS)
    (explanation,) = camcli.explain(prompted, photo, method="legrad", target_category="a cat")
    module = build_tiny(MODELS["clip"].tiny)
    module.set_attn_implementation("eager")
    output = module(
        **tokenize(mine, list(TEXTS), "clip"),
        **process(mine, photo),
        output_attentions=True,
        output_hidden_states=True,
    )
    tower, expected = output.vision_model_output, torch.zeros(4, 4)
    for attention, tokens in zip(tower.attentions, tower.hidden_states[1:], strict=True):
        pooled = module.vision_model.post_layernorm(tokens[:, 0])
        embedding = F.normalize(module.visual_projection(pooled), dim=1)
        score = module.logit_scale.exp() * (embedding @ output.text_embeds[0]).sum()
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        for head in range(2):
            for row in range(17):
                seen = gradient[0, head, row, 1:].clamp(min=0)
                expected += seen.unflatten(0, (4, 4)) / (2 * 17 * 2)
    torch.testing.assert_close(
        torch.from_numpy(explanation.heatmap),
        expected,
        rtol=1e-3,
        atol=1e-3 * float(expected.std()),
    )


@pytest.mark.parametrize("name", MAIN)
def test_one_text_alone_is_explained_by_its_cosine(
    saved: Callable[[str], Saved], photo: Path, name: str
) -> None:
    mine = saved(name)
    (explanation,) = camcli.explain(camcli.prompt(mine.classifier, "a cat"), photo)
    with torch.no_grad():
        output = mine.module(**tokenize(mine, ["a cat"], name), **process(mine, photo))
        cosine = float((output.image_embeds * output.text_embeds).sum())
    assert explanation.record.value == pytest.approx(cosine, abs=1e-5)
    assert (explanation.label, explanation.probability) == ("a cat", None)


def test_contrast_likeness_and_methods_without_a_class(
    saved: Callable[[str], Saved], photo: Path
) -> None:
    classifier = saved("clip").classifier
    (against,) = camcli.explain(
        camcli.prompt(classifier, TEXTS), photo, target_category="a cat", contrast="a dog"
    )
    assert against.record.contrast_labels == ("a dog",)
    (alike,) = camcli.explain(camcli.compare_with(classifier, photo), photo)
    assert alike.record.value == pytest.approx(1, abs=1e-5)
    (classless,) = camcli.explain(classifier, photo, method="eigencam")
    assert classless.heatmap.std() > 0
    with pytest.raises(ModelError, match=r"no class to explain: say what .* --text \"a cat\""):
        list(camcli.explain(classifier, photo))


def test_another_size_interpolates_the_positions(
    saved: Callable[[str], Saved], photo: Path
) -> None:
    mine = saved("clip")
    large = camcli.load_model(str(mine.folder), img_size=96, device="cpu")
    (explanation,) = camcli.explain(camcli.prompt(large, TEXTS), photo, target_category="a dog")
    assert explanation.heatmap.shape == (6, 6)
    inputs = make_view(make_picture(photo), large.preprocessing).inputs[None]
    with torch.no_grad():
        logits = mine.module(
            pixel_values=inputs,
            interpolate_pos_encoding=True,
            **tokenize(mine, list(TEXTS), "clip"),
        ).logits_per_image
    assert explanation.probability == pytest.approx(float(logits.softmax(1)[0, 2]), abs=1e-5)


@pytest.mark.parametrize(
    ("texts", "template", "message"),
    [
        (["a cat " * 10], "{}", f"longer than the {CONTEXT} tokens that .* reads"),
        (["cat"] * 1, "a " * 10 + "{}", f"longer than the {CONTEXT} tokens"),
        (["a cat", " "], "{}", "A text is empty"),
        ([], "{}", "Nothing is looked for"),
        (["a cat", "a cat"], "{}", "'a cat' is given twice"),
        (["a cat"], "a photo", r"'a photo' has no \{\}"),
    ],
)
def test_texts_that_cannot_be_taken(
    saved: Callable[[str], Saved], texts: list[str], template: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        camcli.prompt(saved("siglip").classifier, texts, template)


@pytest.mark.parametrize(
    ("name", "longest"),
    # tokens of begin and end among them; SigLIP2's tokenizer adds none, and reads letters here
    [("clip", "cat " * 10), ("siglip", "cat " * 10), ("siglip2", "z" * 12)],
)
def test_a_text_that_fits_just_so_is_not_cut(
    saved: Callable[[str], Saved], name: str, longest: str
) -> None:
    assert camcli.prompt(saved(name).classifier, longest).num_classes == 1
    with pytest.raises(UsageError, match="longer than the 12 tokens"):
        camcli.prompt(saved(name).classifier, f"{longest}z")


def test_a_folder_without_a_tokenizer_says_what_it_lacks(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    folder = shutil.copytree(saved("clip").folder, tmp_path / "mine")
    (folder / "tokenizer.json").unlink()
    # half of a tokenizer would read each letter as a word
    (folder / "vocab.json").write_text('{"a": 0}', encoding="utf-8")
    classifier = camcli.load_model(str(folder), device="cpu")
    with pytest.raises(ModelError, match=r"has no tokenizer, .*tokenizer\.json has to be there"):
        camcli.prompt(classifier, "a cat")
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"tokenizer of .* cannot be loaded"):
        camcli.prompt(classifier, "a cat")


def test_a_classifier_reads_no_words(tmp_path: Path) -> None:
    build_tiny(CLASSIFIERS["clip"]).save_pretrained(tmp_path)
    classifier = camcli.load_model(str(tmp_path), device="cpu")
    with pytest.raises(ModelError, match="a CLIPForImageClassification, which reads no words"):
        camcli.prompt(classifier, "a cat")
    random = camcli.load_model(
        "transformers/vit", pretrained=False, model_kwargs=VIT, num_classes=2, device="cpu"
    )
    with pytest.raises(ModelError, match="'vit' is a ViTForImageClassification, which reads no"):
        camcli.prompt(random, "a cat")


def test_a_model_that_compares_otherwise_is_refused(
    saved: Callable[[str], Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = transformers.CLIPModel.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = whole(*args, **kwargs)
        output.logits_per_image = output.logits_per_image.square()
        return output

    monkeypatch.setattr(transformers.CLIPModel, "forward", forward)
    classifier = camcli.load_model(str(saved("clip").folder), device="cpu")
    with pytest.raises(ModelError, match="otherwise than by the cosine of their embeddings"):
        camcli.prompt(classifier, TEXTS)


def test_classes_may_be_asked_for_in_the_place_of_words(saved: Callable[[str], Saved]) -> None:
    classifier = camcli.load_model(str(saved("clip").folder), num_classes=3, device="cpu")
    assert type(classifier.module).__name__ == "CLIPForImageClassification"
    assert "The classifier for 3 classes is new" in classifier.warnings[0]


def test_a_cached_repository_needs_no_network(caches: Path) -> None:
    folder = in_hub_cache(caches, "me/mine")
    save_worded(folder, "clip")
    classifier = camcli.load_model("hf:me/mine", device="cpu")
    assert camcli.prompt(classifier, TEXTS).labels == TEXTS
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"The tokenizer's files of 'hf:me/mine' cannot be"):
        camcli.prompt(classifier, TEXTS)


def test_an_adapters_texts_are_read_by_its_base_models_tokenizer(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    base = transformers.CLIPModel.from_pretrained(saved("clip").folder)
    with ignore_warnings(), torch.random.fork_rng(()):
        model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["v_proj"]))
        for name, parameter in model.named_parameters():
            if "lora" in name:
                torch.nn.init.normal_(parameter)
        model.save_pretrained(tmp_path / "adapter")
        merged = model.merge_and_unload().eval()
    classifier = camcli.load_model(str(tmp_path / "adapter"), device="cpu")
    comparison = camcli.prompt(classifier, TEXTS).reading.comparison
    with torch.no_grad():
        texts = merged.get_text_features(**tokenize(saved("clip"), list(TEXTS), "clip"))
    assert comparison is not None
    torch.testing.assert_close(comparison.references, F.normalize(texts.pooler_output, dim=1))


def test_weights_of_a_file_reach_both_towers(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    other = {k: v * 1.5 for k, v in load_file(saved("clip").folder / "model.safetensors").items()}
    torch.save(other, tmp_path / "other.pt")
    classifier = camcli.load_model(
        str(saved("clip").folder), checkpoint=tmp_path / "other.pt", device="cpu"
    )
    assert all(torch.equal(w, other[k]) for k, w in classifier.module.named_parameters())


def test_pictures_in_batches_are_those_alone(saved: Callable[[str], Saved], photo: Path) -> None:
    prompted = camcli.prompt(saved("siglip2").classifier, TEXTS)
    together = list(camcli.explain(prompted, [photo] * 3, batch_size=3))
    (alone,) = camcli.explain(prompted, photo)
    for one in together:
        np.testing.assert_allclose(one.heatmap, alone.heatmap, rtol=1e-3, atol=1e-6)


def test_a_folder_of_pictures_from_the_command_line(
    saved: Callable[[str], Saved],
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for name in ("one.png", "two.png"):
        shutil.copy(photo, pictures / name)
    argv = [str(pictures), "-m", str(saved("clip").folder), "--device", "cpu", "--json"]
    texts = ["--text", "a cat", "--text", "an espresso", "--template", TEMPLATE, "--top-k", "2"]
    assert main([*argv, *texts, "--save-path", str(out)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["label"] for line in lines[:2]] == [line["label"] for line in lines[2:]]
    assert sum(line["probability"] for line in lines) == pytest.approx(2, abs=1e-5)
    manifest = (out / "manifest.jsonl").read_text(encoding="utf-8")
    assert all(f'"{text}"' in manifest for text in ("a cat", "an espresso"))
    assert main([*argv, *texts, "--save-path", str(out), "--resume"]) == 0
    assert "2 of 2 were done before" in capsys.readouterr().err
    others = ["--text", "a cat", "--text", "a dog", "--template", TEMPLATE, "--top-k", "2"]
    assert main([*argv, *others, "--save-path", str(out), "--resume"]) == 2
    assert "text" in capsys.readouterr().err
    assert (out / "manifest.jsonl").read_text(encoding="utf-8") == manifest
    assert main(["report", str(out)]) == 0
    assert "4 heatmaps of 2 pictures" in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    assert main([*argv, "--text", "a cat " * 10]) == 2
    assert "shorten it" in capsys.readouterr().err


def test_words_are_evaluated_as_classes_are(
    saved: Callable[[str], Saved], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = saved("siglip")
    argv = ["evaluate", str(photo), "-m", str(mine.folder), "--device", "cpu", "--no-plots"]
    texts = ["--text", "a cat", "--text", "a dog", "--target-category", "a dog"]
    wanted = ["--method", "gradcam", "--metrics", "deletion", "--disagreements", "0"]
    assert main([*argv, *texts, *wanted, "--save-path", str(tmp_path)]) == 0
    capsys.readouterr()
    lines = (tmp_path / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
    with torch.no_grad():
        tokens = tokenize(mine, ["a dog"], "siglip")
        logits = mine.module(**tokens, **process(mine, photo)).logits_per_image
    for line in map(json.loads, lines):
        assert line["label"] == "a dog"
        assert line["probability"] == pytest.approx(float(logits.sigmoid()), abs=1e-5)
