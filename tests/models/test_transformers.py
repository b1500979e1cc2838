"""Models of transformers: by architecture, folder and repository, with their processors' view."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants as hub
from huggingface_hub import errors as hub_errors
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import camcli
from camcli.engine.layer_selection import find_default_layer
from camcli.errors import CheckpointError, ModelError, UnknownName, WeightsError
from camcli.media.network_input import make_view
from camcli.models import model_lookup, weight_download
from camcli.models.catalogue import CatalogueEntry, find_models
from camcli.models.load import load_model
from camcli.models.model_lookup import find_model
from camcli.records import Picture
from camcli.utils.warning_filters import ignore_warnings
from tests.checkout import ROOT
from tests.models.test_load import in_hub_cache
from tests.tiny_transformers import (
    BACKBONES,
    CLASSIFIERS,
    VIT,
    Tiny,
    build_tiny,
    compute_gradcam_by_hand,
    draw_noise,
)

transformers = pytest.importorskip("transformers")

NAMES = ("a cat", "a dog", "an owl", "a bat")
PHOTOS = (ROOT / "demo_images" / "china.jpg", ROOT / "demo_images" / "chelsea.png")


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def save_model(folder: Path, tiny: str = "vit", **settings: Any) -> nn.Module:
    """Saves a tiny model with its processor, as training leaves it; the weights are all drawn."""
    names = dict(enumerate(NAMES))
    module = build_tiny(CLASSIFIERS[tiny], id2label=names, **settings)
    module.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    processor.save_pretrained(folder)
    return module


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    folder = tmp_path / "mine"
    return folder, save_model(folder)


def logits(module: Any, edge: int = 64) -> Tensor:
    with torch.no_grad():
        return module(draw_noise(edge)).logits


# names


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("hf:google/vit-base-patch16-224", "hf:google/vit-base-patch16-224"),
        ("hf:gpt2", "hf:gpt2"),
        ("hf:me/mine@v2", "hf:me/mine@v2"),
        ("transformers/vit", "vit"),
    ],
)
def test_names_of_transformers(name: str, plain: str) -> None:
    assert find_model(name) == ("transformers", plain)


def test_a_folder_is_the_model_that_transformers_saved(saved: tuple[Path, nn.Module]) -> None:
    folder, module = saved
    classifier = load_model(str(folder), device="cpu")
    assert (classifier.origin, classifier.name) == ("transformers", str(folder))
    assert classifier.labels == NAMES
    assert classifier.output_key == "logits"
    assert classifier.warnings == ()
    assert type(classifier.module).__name__ == "ViTForImageClassification"
    assert torch.equal(logits(classifier.module), logits(module))
    assert "vit.layers.1.layernorm_before" in dict(classifier.module.named_modules())


def test_a_local_dir_is_the_same(saved: tuple[Path, nn.Module]) -> None:
    classifier = load_model(f"local-dir:{saved[0]}", device="cpu")
    assert (classifier.origin, classifier.labels) == ("transformers", NAMES)


def test_a_folder_named_as_people_type_it(
    saved: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved[0].parent)
    assert find_model("mine") == ("transformers", "mine")
    assert find_model("./mine") == ("transformers", "./mine")


def test_an_architecture_with_random_weights() -> None:
    classifier = load_model(
        "transformers/vit", pretrained=False, model_kwargs=VIT, num_classes=5, device="cpu"
    )
    assert (classifier.name, classifier.num_classes, classifier.weights) == ("vit", 5, "random")
    assert classifier.warnings == ("'vit' has random weights: its maps mean nothing.",)
    assert classifier.preprocessing.size == (64, 64)


def test_an_architecture_has_no_weights_of_its_own() -> None:
    with pytest.raises(WeightsError, match=r"without weights.*hf:ORG/NAME.*--no-pretrained"):
        load_model("transformers/vit", device="cpu")


def test_an_architecture_that_is_none() -> None:
    with pytest.raises(UnknownName, match=r"'vitt'. Closest: 'vit'.*not in transformers"):
        load_model("transformers/vitt", device="cpu")


def test_an_argument_that_a_configuration_has_not() -> None:
    with pytest.raises(UnknownName, match=r"'hidden_sise'. Closest: 'hidden_size'"):
        load_model(
            "transformers/vit", pretrained=False, model_kwargs={"hidden_sise": 8}, device="cpu"
        )


# folders as training leaves them


def test_sharded_weights(tmp_path: Path) -> None:
    module = build_tiny(CLASSIFIERS["vit"])
    module.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    classifier = load_model(str(tmp_path), device="cpu")
    assert torch.equal(logits(classifier.module), logits(module))
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"lacks 'model-.*', which its index names"):
        load_model(str(tmp_path), device="cpu")


def test_a_trainers_checkpoint_without_a_processor(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-500"
    save_model(folder)
    (folder / "preprocessor_config.json").unlink()
    (folder / "trainer_state.json").write_text("{}")
    torch.save({}, folder / "optimizer.pt")
    classifier = load_model(str(folder), device="cpu")
    assert classifier.preprocessing.size == (64, 64)
    (warning,) = classifier.warnings
    assert "no preprocessor_config.json: preprocessing as ViTImageProcessor has it" in warning


def test_pickled_weights_are_looked_through_first(saved: tuple[Path, nn.Module]) -> None:
    folder, module = saved
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    classifier = load_model(str(folder), device="cpu")
    assert torch.equal(logits(classifier.module), logits(module))


class Hostile:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def test_code_in_pickled_weights_does_not_run(
    saved: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved[0]
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"w": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot build"):
        load_model(str(folder), device="cpu")
    assert not (folder / "ran").exists()


def test_weights_in_half_precision_are_explained_in_full(saved: tuple[Path, nn.Module]) -> None:
    folder, module = saved
    module.to(torch.bfloat16).save_pretrained(folder)
    classifier = load_model(str(folder), device="cpu")
    assert {p.dtype for p in classifier.module.parameters()} == {torch.float32}


def test_other_classes_get_a_new_head_and_a_word(saved: tuple[Path, nn.Module]) -> None:
    classifier = load_model(str(saved[0]), num_classes=3, device="cpu")
    assert classifier.num_classes == 3
    assert classifier.labels is None
    assert classifier.warnings == (
        "The classifier for 3 classes is new and has random weights: "
        "maps of its classes mean nothing.",
    )


def test_attention_that_is_chosen_once_is_chosen_so_that_it_can_be_read(tmp_path: Path) -> None:
    build_tiny(CLASSIFIERS["data2vec-vision"]).save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), device="cpu")
    (explanation,) = camcli.explain(classifier, str(PHOTOS[0]), "legrad")
    assert explanation.heatmap.std() > 0


@pytest.mark.parametrize("name", ["clip", "deit with teacher", "swiftformer", "siglip"])
def test_a_new_head_is_told_from_lost_weights(tmp_path: Path, name: str) -> None:
    build_tiny(CLASSIFIERS[name]).save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), num_classes=3, img_size=64, device="cpu")
    assert classifier.num_classes == 3
    assert "The classifier for 3 classes is new" in classifier.warnings[0]


def test_a_backbone_gets_a_new_head_where_classes_are_asked_for(tmp_path: Path) -> None:
    module = build_tiny(BACKBONES["dinov2"])
    module.save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), num_classes=3, device="cpu")
    assert type(classifier.module).__name__ == "Dinov2ForImageClassification"
    assert "The classifier for 3 classes is new" in classifier.warnings[0]
    with torch.no_grad():
        features = classifier.module.dinov2(draw_noise(64)).last_hidden_state
        assert torch.equal(features, module(draw_noise(64)).last_hidden_state)


def test_a_folders_weights_may_come_from_a_checkpoint(
    saved: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    folder, _ = saved
    other = build_tiny(CLASSIFIERS["vit"], seed=5)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    classifier = load_model(str(folder), checkpoint=tmp_path / "other.pt", device="cpu")
    assert torch.equal(logits(classifier.module), logits(other))


def test_a_config_without_labels(saved: tuple[Path, nn.Module]) -> None:
    folder, module = saved
    module.config.id2label = {index: f"LABEL_{index}" for index in range(4)}
    module.save_pretrained(folder)
    classifier = load_model(str(folder), device="cpu")
    assert (classifier.labels, classifier.num_classes) == (None, 4)


@pytest.mark.parametrize(
    ("problem", "meaning", "link"),
    [
        ("single_label_classification", "logits", "softmax"),
        ("multi_label_classification", "independent", "sigmoid"),
        ("regression", "value", "softmax"),
    ],
)
def test_what_the_logits_mean_is_what_they_were_trained_for(
    tmp_path: Path, problem: str, meaning: str, link: str
) -> None:
    save_model(tmp_path, problem_type=problem)
    reading = load_model(str(tmp_path), device="cpu").reading
    assert (reading.meaning, reading.link) == (meaning, link)


def test_logits_under_another_name(tmp_path: Path) -> None:
    module = build_tiny(CLASSIFIERS["pp_lcnet"])
    module.save_pretrained(tmp_path)
    assert "logits" not in module(draw_noise(64))
    classifier = load_model(str(tmp_path), img_size=64, device="cpu")
    assert classifier.output_key == "last_hidden_state"
    (explanation,) = camcli.explain(classifier, str(PHOTOS[0]))
    assert np.isfinite(explanation.heatmap).all()


# repositories of the Hub, and the cache


@pytest.mark.usefixtures("caches")
def test_without_a_network_one_error_names_three_ways_on() -> None:
    with pytest.raises(
        WeightsError, match=r"'hf:a/b' cannot be fetched(.|\n)*1\..*\n.*2\..*\n.*3\."
    ):
        load_model("hf:a/b", device="cpu")


@pytest.mark.usefixtures("caches")
def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set, and they are not in the cache"):
        load_model("hf:a/b", device="cpu")


def test_a_cached_repository_needs_no_network(caches: Path) -> None:
    module = save_model(in_hub_cache(caches, "me/mine"))
    classifier = load_model("hf:me/mine", device="cpu")
    assert (classifier.name, classifier.weights) == ("hf:me/mine", "me/mine")
    assert (classifier.labels, classifier.warnings) == (NAMES, ())
    assert torch.equal(logits(classifier.module), logits(module))


def test_a_cached_revision_needs_no_network(caches: Path) -> None:
    folder = in_hub_cache(caches, "me/mine")
    save_model(folder)
    (folder.parent.parent / "refs" / "v2").write_text("abc")
    assert load_model("hf:me/mine@v2", device="cpu").labels == NAMES


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (hub_errors.GatedRepoError, "it is gated: accept its terms on that page, and log in"),
        (hub_errors.RevisionNotFoundError, "it has no such revision"),
        (hub_errors.RepositoryNotFoundError, "there is none of that name, or it is private"),
    ],
)
@pytest.mark.usefixtures("caches")
def test_what_the_hub_refuses(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], said: str
) -> None:
    def refuse(*_: object) -> str:
        raise kind.__new__(kind)

    monkeypatch.setattr(weight_download, "_find_in_repository", refuse)
    with pytest.raises(WeightsError, match=said):
        load_model("hf:me/private@v3", device="cpu")


def test_a_repository_of_timm_says_how_to_name_it(caches: Path) -> None:
    folder = in_hub_cache(caches, "timm/resnet18.a1_in1k")
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(ModelError, match=r"it is timm's: -m hf-hub:timm/resnet18\.a1_in1k"):
        load_model("hf:timm/resnet18.a1_in1k", device="cpu")


def test_what_the_cache_holds_is_listed(caches: Path) -> None:
    save_model(in_hub_cache(caches, "me/mine"))
    folder = in_hub_cache(caches, "me/other")
    (folder / "config.json").write_text('{"model_type": "dinov2", "image_size": 518}')
    (in_hub_cache(caches, "timm/resnet18") / "config.json").write_text('{"architecture": "a"}')
    mine = CatalogueEntry("hf:me/mine", "transformers", (64, 64), 4, None, "here")
    other = CatalogueEntry("hf:me/other", "transformers", (518, 518), 0, None, "to download")
    assert find_models("hf") == [mine, other]
    assert find_models("hf:me/o") == [other]
    with pytest.raises(UnknownName, match=r"'hf:you'.*hf:ORG/NAME fetches one"):
        find_models("hf:you")


# what is no classifier


@pytest.mark.parametrize(
    ("model_type", "architecture", "said"),
    [
        (
            "detr",
            "DetrForObjectDetection",
            "DetrForObjectDetection, which is for object detection",
        ),
        ("segformer", "SegformerForSemanticSegmentation", "which is for semantic segmentation"),
        ("gpt2", "GPT2LMHeadModel", "a GPT2LMHeadModel, a language model"),
        ("bert", "BertModel", "a BertModel, a language model"),
        ("llava", "LlavaForConditionalGeneration", "which is for conditional generation"),
        ("clip", "CLIPTextModel", "a CLIPTextModel, a language model"),
        ("blip-2", "Blip2ForImageTextRetrieval", "which is for image text retrieval"),
        ("imagegpt", "ImageGPTForImageClassification", "a ImageGPTForImageClassification"),
        ("mine", "MineForImageClassification", "'mine', which transformers .* does not know"),
    ],
)
def test_models_of_other_kinds_say_what_they_are(
    tmp_path: Path, model_type: str, architecture: str, said: str
) -> None:
    config = {"model_type": model_type, "architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=said):
        load_model(str(tmp_path), device="cpu")


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="code out of repositories is never run"):
        load_model(str(tmp_path), device="cpu")


def test_a_folder_without_weights(saved: tuple[Path, nn.Module]) -> None:
    (saved[0] / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"a configuration and no weights: none of model\.saf"):
        load_model(str(saved[0]), device="cpu")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder with none of"):
        load_model(str(tmp_path), device="cpu")


def test_weights_of_another_model(saved: tuple[Path, nn.Module]) -> None:
    save_file({"w": torch.zeros(1)}, saved[0] / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit ViTForImageClassification: vit\..* more"):
        load_model(str(saved[0]), device="cpu")


def test_without_the_extra_the_command_is_named(
    saved: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(model_lookup, "version", find_nothing)
    for name in ("hf:me/mine", "transformers/vit", str(saved[0])):
        with pytest.raises(ModelError, match=r"pip install 'camviz\[transformers\]'"):
            load_model(name, device="cpu")


def test_an_older_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_lookup, "version", lambda _: "5.3.0")
    with pytest.raises(ModelError, match=r"This is transformers 5\.3\.0, and camviz needs 5\.24"):
        load_model("hf:me/mine", device="cpu")


# the processor's view


def crop_of(edge: int, crop: int) -> dict[str, Any]:
    size = {"height": crop, "width": crop}
    return {"size": {"shortest_edge": edge}, "crop_size": size, "do_center_crop": True}


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT", {}),
    "ConvNeXt with crop_pct": ("ConvNext", {"size": {"shortest_edge": 224}}),
    "ConvNeXt whole": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "DeiT": ("DeiT", {}),
    "BEiT with reduced labels": ("Beit", {"do_reduce_labels": True, **crop_of(256, 224)}),
    "SigLIP": ("Siglip", {}),
    "CLIP": ("CLIP", {}),
    "DINOv2": ("Bit", crop_of(256, 224)),
    "EfficientNet": ("EfficientNet", {"include_top": False}),
    "EfficientNet with an offset": (
        "EfficientNet",
        {"rescale_offset": True, "rescale_factor": 1 / 127.5},
    ),
    "MobileViT, blue first": ("MobileViT", {"do_flip_channel_order": True}),
    "LeViT": ("Levit", {}),
    "PoolFormer": ("PoolFormer", {}),
    "neither scaled nor shifted": ("ViT", {"do_rescale": False, "do_normalize": False}),
    "lanczos": ("ViT", {"resample": 1}),
    "a crop beyond the picture": ("Bit", crop_of(200, 224)),
}


@pytest.mark.parametrize("by", ["", "Pil"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_the_processors(name: str, by: str) -> None:
    from camcli.models.preprocessing.measured_view import measure_view

    kind, settings = PROCESSORS[name]
    processor = getattr(transformers, f"{kind}ImageProcessor{by}")(**settings)
    measured = measure_view(processor)
    assert measured.warnings == ()
    # numbers up to 255 have their own rounding
    largest = 255 if settings.get("do_rescale") is False else 1
    for photo in PHOTOS:
        pixels = np.asarray(Image.open(photo).convert("RGB"))
        for turned in (pixels, np.ascontiguousarray(pixels.transpose(1, 0, 2))):
            theirs = processor(images=Image.fromarray(turned), return_tensors="pt")["pixel_values"]
            ours = make_view(Picture(turned), measured.preprocessing).inputs
            assert (ours - theirs[0]).abs().max() <= 1e-6 * largest


def test_the_blue_channel_comes_first_where_the_processor_turns_them() -> None:
    from camcli.models.preprocessing.measured_view import measure_view

    view = measure_view(transformers.MobileViTImageProcessor()).preprocessing
    blue = np.zeros((300, 300, 3), np.uint8)
    blue[..., 2] = 255
    assert make_view(Picture(blue), view).inputs[:, 128, 128].tolist() == [1, 0, 0]


def test_what_a_view_cannot_do_is_said() -> None:
    from camcli.models.preprocessing.measured_view import measure_view

    measured = measure_view(transformers.PerceiverImageProcessor())
    assert "PerceiverImageProcessor does what a view of camviz does not" in measured.warnings[0]
    leaves = measure_view(transformers.CLIPImageProcessor(do_center_crop=False))
    assert "CLIPImageProcessor leaves pictures their shape" in leaves.warnings[0]
    assert leaves.preprocessing.size == (224, 224)


def test_the_processors_settings_become_the_view(saved: tuple[Path, nn.Module]) -> None:
    folder, _ = saved
    processor = transformers.BitImageProcessor(
        image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=2, **crop_of(80, 64)
    )
    processor.save_pretrained(folder)
    view = load_model(str(folder), device="cpu").preprocessing
    assert (view.size, view.scale, view.fit) == ((64, 64), (80, 80), "crop")
    assert (view.mean, view.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (view.interpolation, view.resizer) == ("bilinear", "torchvision")


def test_another_size_interpolates_the_positions(saved: tuple[Path, nn.Module]) -> None:
    folder, module = saved
    classifier = load_model(str(folder), img_size=(96, 128), device="cpu")
    assert classifier.preprocessing.size == (96, 128)
    inputs = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        expected = module(inputs, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(classifier.module(inputs).logits, expected)
    with pytest.raises(ModelError, match=r"does not take pictures of 8x8.*give --img-size"):
        load_model(str(folder), img_size=8, device="cpu")


@pytest.mark.parametrize("name", ["vit", "convnext", "siglip"])
def test_a_photos_map_is_that_of_the_processor_and_the_model(tmp_path: Path, name: str) -> None:
    module = save_model(tmp_path, name)
    (processor := transformers.BitImageProcessor(**crop_of(80, 64))).save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), device="cpu")
    (explanation,) = camcli.explain(classifier, str(PHOTOS[0]), target_category=[1])
    inputs = processor(images=Image.open(PHOTOS[0]), return_tensors="pt")["pixel_values"]
    target = find_default_layer(module, (3, 64, 64), classifier.reading)
    (expected,) = compute_gradcam_by_hand(module, target, inputs, 1).numpy()
    assert explanation.record.layers == (target.name,)
    assert np.abs(explanation.heatmap - expected).max() < 1e-3 * expected.std()
    with torch.no_grad():
        probability = module(inputs).logits.softmax(1)[0, 1]
    assert abs(explanation.record.probability - float(probability)) < 1e-4


def test_layers_are_named_as_transformers_names_them(saved: tuple[Path, nn.Module]) -> None:
    classifier = load_model(str(saved[0]), device="cpu")
    name = "vit.layers.0.layernorm_before"
    (explanation,) = camcli.explain(classifier, str(PHOTOS[0]), target_layers=name)
    assert explanation.record.layers == (name,)
    assert explanation.record.label in NAMES


def test_siglip2_gets_its_picture_made_into_patches(tmp_path: Path) -> None:
    module = build_tiny(CLASSIFIERS["siglip2"])
    module.save_pretrained(tmp_path)
    processor = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=16)
    processor.save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), device="cpu")
    assert classifier.preprocessing.size == (64, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    inputs = make_view(Picture(pixels), classifier.preprocessing).inputs[None]
    with torch.no_grad():
        expected = module(**processor(images=Image.fromarray(pixels), return_tensors="pt")).logits
        torch.testing.assert_close(classifier.module(inputs).logits, expected)


# backbones


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_is_explained_by_methods_without_a_class(tmp_path: Path, name: str) -> None:
    module = build_tiny(BACKBONES[name])
    module.save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), img_size=64, device="cpu")
    assert classifier.num_classes == 0
    methods = ["eigencam"] if "convnext" in name else ["eigencam", "rollout"]
    for explanation in camcli.explain(classifier, str(PHOTOS[0]), methods):
        values = explanation.heatmap
        assert np.isfinite(values).all() and values.std() > 0
        assert explanation.category is None
    with pytest.raises(ModelError, match="has no classifier, so gradcam has no class"):
        list(camcli.explain(classifier, str(PHOTOS[0])))


@pytest.mark.parametrize("name", BACKBONES)
def test_likeness_gives_a_backbone_what_methods_need(tmp_path: Path, name: str) -> None:
    build_tiny(BACKBONES[name]).save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), img_size=64, device="cpu")
    compared = camcli.compare_with(classifier, [PHOTOS[0]])
    assert compared.reading.comparison is not None
    # numbers of the embedding, and not one for each token
    assert compared.reading.comparison.references.shape[1] in (32, 512)
    methods = ["gradcam"] if "convnext" in name else ["gradcam", "genericattention", "legrad"]
    for explanation in camcli.explain(compared, str(PHOTOS[1]), methods):
        assert explanation.heatmap.std() > 0
        assert -1 <= explanation.record.value < 1


def test_tokens_are_averaged_where_a_backbone_pools_none(tmp_path: Path) -> None:
    module = build_tiny(BACKBONES["ijepa"])
    module.save_pretrained(tmp_path)
    classifier = load_model(str(tmp_path), device="cpu")
    with torch.no_grad():
        embedding = classifier.module(draw_noise(64))[classifier.output_key]
        expected = module(draw_noise(64)).last_hidden_state.mean(1)
    torch.testing.assert_close(embedding, expected)


def test_a_pooler_that_was_not_saved_is_never_used(tmp_path: Path) -> None:
    # as DINO's first models are
    module = build_tiny(Tiny("ViTConfig", VIT, "ViTModel"))
    module.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    classifier = load_model(str(tmp_path), device="cpu")
    with torch.no_grad():
        embedding = classifier.module(draw_noise(64))[classifier.output_key]
        expected = module(draw_noise(64)).last_hidden_state[:, 0]
    torch.testing.assert_close(embedding, expected)


def test_a_masked_autoencoder_sees_the_whole_picture_in_its_order(tmp_path: Path) -> None:
    module = build_tiny(BACKBONES["vit_mae"])
    module.save_pretrained(tmp_path)
    inputs = draw_noise(64)
    with torch.no_grad():
        features = load_model(str(tmp_path), device="cpu").module(inputs).last_hidden_state
        module.vit.config.mask_ratio = 0.0
        noise = torch.arange(16.0).repeat(2, 1)
        expected = module.vit(inputs, noise=noise).last_hidden_state
    assert features.shape == (2, 17, 32)
    assert torch.equal(features, expected)


def test_a_classifier_without_its_head_is_a_backbone(saved: tuple[Path, nn.Module]) -> None:
    classifier = load_model(str(saved[0]), num_classes=0, device="cpu")
    assert (classifier.num_classes, type(classifier.module).__name__) == (0, "ViTModel")


# adapters


@pytest.fixture
def adapted(saved: tuple[Path, nn.Module], tmp_path: Path) -> tuple[Path, nn.Module]:
    """An adapter with random weights and a head of its own; and its model, merged."""
    peft = pytest.importorskip("peft")
    base = transformers.AutoModelForImageClassification.from_pretrained(
        saved[0], num_labels=3, ignore_mismatched_sizes=True
    )
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]
    )
    with ignore_warnings():
        model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_()
    with ignore_warnings():
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter", model.merge_and_unload().eval()


def test_an_adapter_is_merged_into_its_base_model(adapted: tuple[Path, nn.Module]) -> None:
    folder, merged = adapted
    classifier = load_model(str(folder), device="cpu")
    assert (classifier.num_classes, classifier.labels) == (3, None)
    assert not any("random" in warning for warning in classifier.warnings)
    assert type(classifier.module).__name__ == "ViTForImageClassification"
    torch.testing.assert_close(logits(classifier.module), logits(merged))


def test_without_peft_an_adapter_says_what_it_needs(
    saved: tuple[Path, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": str(saved[0]), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(1)}, folder / "adapter_model.safetensors")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"an adapter of peft \(LORA\): pip install peft"):
        load_model(str(folder), device="cpu")
