"""Weights go between networks of transformers and timm that compute the same, or are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from camcli.errors import CheckpointError
from camcli.models import model_lookup
from camcli.models.load import Classifier, load_model
from camcli.models.outputs.logits import select_output
from tests.tiny_transformers import (
    BACKBONES,
    CLASSIFIERS,
    DINO,
    VIT,
    Tiny,
    build_tiny,
    draw_noise,
)

transformers = pytest.importorskip("transformers")

VIT_TIMM = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5}
DINO_TIMM = {**VIT_TIMM, "mlp_ratio": 4}
SWIN_TIMM = {
    "patch_size": 2,
    "embed_dim": 12,
    "depths": (1, 2),
    "num_heads": (2, 2),
    "window_size": 4,
}
CONVNEXT_TIMM = {"depths": (1, 1, 1, 1), "dims": (16, 16, 32, 32)}
BASIC = {"layer_type": "basic", "depths": [1, 1, 1, 1], "hidden_sizes": [64, 128, 256, 512]}
BOTTLENECK = {"depths": [1, 1, 1, 1], "downsample_in_bottleneck": True}
REGNET = {"hidden_sizes": [24, 56, 152, 368], "depths": [1, 1, 4, 7], "groups_width": 8}


@dataclass(frozen=True)
class Twin:
    """A tiny network of transformers, and timm's that computes the same."""

    tiny: Tiny
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    img_size: int | None = 64
    num_classes: int | None = None


REGISTERS = Tiny("Dinov2WithRegistersConfig", DINO, "Dinov2WithRegistersModel")
BEIT = Tiny("BeitConfig", {**VIT, "use_relative_position_bias": True})
TWINS: Mapping[str, Twin] = {
    "vit": Twin(CLASSIFIERS["vit"], "vit_base_patch16_224", VIT_TIMM),
    "deit": Twin(CLASSIFIERS["deit with teacher"], "deit_base_distilled_patch16_224", VIT_TIMM),
    "beit": Twin(BEIT, "beit_base_patch16_224", VIT_TIMM),
    "dinov2": Twin(BACKBONES["dinov2"], "vit_base_patch14_dinov2", DINO_TIMM, num_classes=0),
    "registers": Twin(REGISTERS, "vit_base_patch14_reg4_dinov2", DINO_TIMM, num_classes=0),
    "swin": Twin(CLASSIFIERS["swin"], "swin_tiny_patch4_window7_224", SWIN_TIMM),
    "swinv2": Twin(CLASSIFIERS["swinv2"], "swinv2_tiny_window8_256", SWIN_TIMM),
    "convnext": Twin(CLASSIFIERS["convnext"], "convnext_tiny", CONVNEXT_TIMM, None),
    "convnextv2": Twin(CLASSIFIERS["convnextv2"], "convnextv2_tiny", CONVNEXT_TIMM, None),
    "resnet": Twin(Tiny("ResNetConfig", BASIC), "resnet18", {"layers": (1, 1, 1, 1)}, None),
}
# the others, which take timm's weights where the file names their architecture
TO_TIMM: Mapping[str, Twin] = {
    **TWINS,
    "regnet": Twin(Tiny("RegNetConfig", REGNET), "regnety_002", img_size=None),
    "pvt v2": Twin(
        Tiny("PvtV2Config", {"image_size": 64, "depths": [1, 1, 1, 1]}),
        "pvt_v2_b0",
        {"depths": (1, 1, 1, 1)},
        None,
    ),
}


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def randomise(module: nn.Module) -> nn.Module:
    """Draws all weights, those of norms around 1, so that each layer counts."""
    with torch.no_grad():
        for name, weight in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith("running_var"):
                weight.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                weight.normal_()
            elif not isinstance(weight, nn.Parameter):
                continue
            elif weight.ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5)
            else:
                weight.normal_(float(name.endswith("weight")), 0.3)
    return module.eval()


def save_twin(twin: Twin, folder: Path) -> nn.Module:
    """Saves the network of transformers as it does itself."""
    with torch.random.fork_rng(()):
        torch.manual_seed(0)
        module: Any = randomise(build_tiny(twin.tiny))
    module.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    processor.save_pretrained(folder)
    return module


def save_timm(twin: Twin, file: Path, **beside: Any) -> nn.Module:
    """Saves timm's network by `torch.save` of its state dict, or with what stands beside it."""
    size = {"img_size": twin.img_size} if twin.img_size else {}
    classes = {"num_classes": 4 if twin.num_classes is None else twin.num_classes}
    with torch.random.fork_rng(()):
        torch.manual_seed(0)
        module = randomise(timm.create_model(twin.name, **size, **classes, **twin.arguments))
    weights = module.state_dict()
    torch.save({"state_dict": weights, **beside} if beside else weights, file)
    return module


def load_timm(twin: Twin, folder: Path, **options: Any) -> Classifier:
    return load_model(
        f"timm/{twin.name}",
        checkpoint=folder,
        model_kwargs=twin.arguments,
        img_size=twin.img_size,
        num_classes=twin.num_classes,
        device="cpu",
        **options,
    )


def compute(module: Any, key: str | int | None = None) -> Tensor:
    with torch.no_grad():
        output: Tensor = select_output(module(draw_noise(64)), key)
    return output


def key_of(twin: Twin) -> str:
    return "pooler_output" if twin.num_classes == 0 else "logits"


def assert_same(actual: Tensor, expected: Tensor) -> None:
    spread = float((expected[0] - expected[1]).abs().max())
    assert spread > 0
    assert float((actual - expected).abs().max()) <= 1e-4 * spread


@pytest.mark.parametrize("name", TO_TIMM)
def test_a_folder_of_transformers_goes_into_timms_network(tmp_path: Path, name: str) -> None:
    twin = TO_TIMM[name]
    module = save_twin(twin, tmp_path)
    classifier = load_timm(twin, tmp_path)
    assert (classifier.origin, classifier.warnings) == ("timm", ())
    assert_same(compute(classifier.module), compute(module, key_of(twin)))


@pytest.mark.parametrize("name", TWINS)
def test_timms_weights_go_into_the_network_of_transformers(tmp_path: Path, name: str) -> None:
    twin = TWINS[name]
    save_twin(twin, tmp_path)
    module = save_timm(twin, tmp_path / "timm.pth")
    classifier = load_model(str(tmp_path), checkpoint=tmp_path / "timm.pth", device="cpu")
    assert (classifier.origin, classifier.warnings) == ("transformers", ())
    assert_same(compute(classifier.module, key_of(twin)), compute(module))


def test_a_checkpoint_that_names_its_architecture_goes_by_it(tmp_path: Path) -> None:
    tiny = Tiny("RegNetConfig", {**REGNET, "layer_type": "x"})
    twin = Twin(tiny, "regnetx_002", img_size=None)
    save_twin(twin, tmp_path)
    module = save_timm(twin, tmp_path / "timm.pth", arch="regnetx_002")
    classifier = load_model(str(tmp_path), checkpoint=tmp_path / "timm.pth", device="cpu")
    assert_same(compute(classifier.module, "logits"), compute(module))


# weights whose names and shapes fit networks that compute something else

OTHERS: Mapping[str, Twin] = {
    "another activation": Twin(
        Tiny("ViTConfig", {**VIT, "hidden_act": "relu"}), "vit_base_patch16_224", VIT_TIMM
    ),
    "another approximation of it": Twin(
        Tiny("ViTConfig", {**VIT, "hidden_act": "gelu_new"}), "vit_base_patch16_224", VIT_TIMM
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_network_that_computes_something_else_is_refused(tmp_path: Path, name: str) -> None:
    twin = OTHERS[name]
    save_twin(twin, tmp_path)
    way_on = rf"gives other outputs in '{twin.name}'(.|\n)*Load it with --model {tmp_path}"
    with pytest.raises(CheckpointError, match=way_on):
        load_timm(twin, tmp_path)
    (warning,) = load_timm(twin, tmp_path, strict=False).warnings
    assert "gives other outputs" in warning
    save_timm(twin, tmp_path / "timm.pth")
    with pytest.raises(CheckpointError, match=f"Load it with --model {twin.name}"):
        load_model(str(tmp_path), checkpoint=tmp_path / "timm.pth", device="cpu")


@pytest.mark.slow  # timm's bottlenecks have one width
def test_strides_elsewhere_make_another_network(tmp_path: Path) -> None:
    layers = {"layers": (1, 1, 1, 1)}
    twin = Twin(Tiny("ResNetConfig", BOTTLENECK), "resnet50", layers, None)
    save_twin(twin, tmp_path)
    with pytest.raises(CheckpointError, match="gives other outputs in 'resnet50'"):
        load_timm(twin, tmp_path)


def test_other_norms_add_to_their_variance_what_the_configuration_says(tmp_path: Path) -> None:
    twin = Twin(
        Tiny("ViTConfig", {**VIT, "layer_norm_eps": 0.01}), "vit_base_patch16_224", VIT_TIMM
    )
    module = save_twin(twin, tmp_path)
    assert_same(compute(load_timm(twin, tmp_path).module), compute(module, "logits"))


def test_a_student_without_a_teacher_is_no_network_of_timms(tmp_path: Path) -> None:
    twin = Twin(CLASSIFIERS["deit"], "deit_base_distilled_patch16_224", VIT_TIMM)
    save_twin(twin, tmp_path)
    with pytest.raises(CheckpointError, match=r"missing: head_dist\.weight, head_dist\.bias"):
        load_timm(twin, tmp_path)
    save_timm(twin, tmp_path / "timm.pth")
    with pytest.raises(CheckpointError, match="gives other outputs in"):
        load_model(str(tmp_path), checkpoint=tmp_path / "timm.pth", device="cpu")


def test_a_pooler_that_timm_has_not_is_never_left_random(tmp_path: Path) -> None:
    twin = Twin(Tiny("ViTConfig", VIT, "ViTModel"), "vit_base_patch16_224", VIT_TIMM, 64, 0)
    module = save_twin(twin, tmp_path)
    there: Any = load_timm(twin, tmp_path).module
    with torch.no_grad():
        tokens = there.forward_features(draw_noise(64))
    assert_same(tokens, compute(module, "last_hidden_state"))
    save_timm(twin, tmp_path / "timm.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(str(tmp_path), checkpoint=tmp_path / "timm.pth", device="cpu")


def test_without_transformers_it_is_said_that_nothing_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    save_twin(TWINS["vit"], tmp_path)
    monkeypatch.setattr(model_lookup, "version", find_nothing)
    (warning,) = load_timm(TWINS["vit"], tmp_path).warnings
    assert "what transformers computes with these weights was not compared" in warning
    assert "pip install 'camviz[transformers]'" in warning
