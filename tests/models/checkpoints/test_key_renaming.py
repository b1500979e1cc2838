"""Weights under the names of other times and projects give the logits of the model they came from.

Each test takes a random model, gives its weights the names that the other project's code has, and
compares what the loaded model says with what the first one says.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torchvision.models.convnext import CNBlockConfig

from camcli.errors import CheckpointError
from camcli.models import from_torchvision
from camcli.models.load import Classifier, load_model
from tests.models.tiny import State
from tests.slow import mark_slow

VIT = ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 4})
BEIT = ("beit_base_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 4})
SWIN = (
    "swin_tiny_patch4_window7_224",
    {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 2)},
)
CONVNEXT = ("convnext_tiny", {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)})
CONVNEXT_2 = ("convnextv2_tiny", {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)})
Names = Callable[[str], str]


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every weight and every moment a number of its own."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=draw)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.5 * noise.tanh())
            elif tensor.ndim > 1:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            else:
                tensor.copy_(
                    0.1 * noise + ("norm" in name or "bn" in name) * name.endswith("weight")
                )
    return model.eval()


def logits(model: nn.Module, size: int) -> Tensor:
    """Counts in double precision, in which rounding hides nothing."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        actual: Tensor = model.double().eval()(images.double())
    model.float()
    return actual


def rename(weights: Mapping[str, Tensor], *renames: tuple[str, Any]) -> State:
    results = {}
    for name, weight in weights.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        results[name] = weight
    return results


def load(folder: Path, content: Any, name: str, **options: Any) -> Classifier:
    torch.save(content, folder / "a.pth")
    return load_model(name, checkpoint=folder / "a.pth", device="cpu", **options)


def assert_same(classifier: Classifier, model: nn.Module, size: int = 224) -> None:
    expected = logits(model, size)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(logits(classifier.module, size), expected, rtol=1e-6, atol=1e-7)


def build_network(kind: tuple[str, Mapping[str, Any]], **more: Any) -> nn.Module:
    name, kwargs = kind
    return randomise(timm.create_model(name, num_classes=7, **kwargs, **more))


# weights in parts


def small() -> nn.Module:
    with torch.random.fork_rng():
        return timm.create_model("test_resnet", num_classes=3)


def convolutions(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def prune_network(model: nn.Module) -> None:
    for part in convolutions(model):
        prune.l1_unstructured(part, "weight", 0.3)


def in_old_weight_norm(model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for part in convolutions(model):
            weight_norm(part)
        weight_norm(model.get_submodule("fc"), "bias", dim=None)  # type: ignore[type-var]


def in_weight_norm(model: nn.Module) -> None:
    for part in convolutions(model):
        parametrizations.weight_norm(part)


def in_old_spectral_norm(model: nn.Module) -> None:
    for part in convolutions(model):
        spectral_norm(part)


def in_spectral_norm(model: nn.Module) -> None:
    for part in convolutions(model):
        parametrizations.spectral_norm(part)


def prune_in_weight_norm(model: nn.Module) -> None:
    in_old_weight_norm(model)
    for part in convolutions(model):
        prune.random_unstructured(part, "weight_v", 0.3)


@pytest.mark.parametrize(
    "keep",
    [
        prune_network,
        in_old_weight_norm,
        in_weight_norm,
        in_old_spectral_norm,
        in_spectral_norm,
        prune_in_weight_norm,
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_weights_in_parts_are_put_together(
    tmp_path: Path, keep: Callable[[nn.Module], None], prefix: str
) -> None:
    model = randomise(small())
    keep(model)
    if "spectral" in keep.__name__:
        model.train()(torch.randn(2, 3, 64, 64))  # moves the singular vectors on
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 4 and tensor.shape[1:] == (1, 1, 1):
            tensor.mul_(1.5)  # magnitudes that are not the directions' own
    weights = {prefix + name: weight.clone() for name, weight in model.state_dict().items()}
    assert set(weights) != set(small().state_dict())
    classifier = load(tmp_path, weights, "test_resnet")
    assert classifier.warnings == ()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = model.eval()(images)
        actual = classifier.module(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_parametrization_that_the_file_does_not_say_is_refused(tmp_path: Path) -> None:
    model = small()
    for part in convolutions(model):
        parametrizations.orthogonal(part)
    with pytest.raises(CheckpointError, match=r"parametrized.*remove_parametrizations"):
        load(tmp_path, model.state_dict(), "test_resnet")


def test_a_mask_of_another_shape_is_no_mask(tmp_path: Path) -> None:
    weights = small().state_dict()
    weights["fc.weight_orig"] = weights.pop("fc.weight")
    weights["fc.weight_mask"] = torch.ones(96)
    with pytest.raises(CheckpointError, match=r"missing: fc\.weight"):
        load(tmp_path, weights, "test_resnet")


# names of older versions


@pytest.mark.parametrize(
    "name", mark_slow(["densenet121", "torchvision/densenet121"], ["densenet121"])
)
def test_densenet_of_torch_03_as_chexnet_saved_it(tmp_path: Path, name: str) -> None:
    model = torchvision.models.densenet121()
    model.classifier = nn.Sequential(nn.Linear(1024, 14), nn.Sigmoid())  # type: ignore[assignment]
    randomise(model)
    weights = {
        "module.densenet121." + k: w for k, w in model.state_dict().items() if "batches" not in k
    }
    old = rename(weights, (r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2"))
    classifier = load(tmp_path, {"state_dict": old, "epoch": 6, "best_loss": 0.1}, name)
    (note,) = classifier.warnings
    assert "took classifier.0 for the model's classifier" in note
    model.classifier = model.classifier[0]  # type: ignore[index]
    assert_same(classifier, model, 64)


def test_torchvisions_older_transformer_is_renamed_by_its_own_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(_: str, **__: Any) -> nn.Module:
        return torchvision.models.VisionTransformer(224, 32, 2, 2, 32, 64, num_classes=3)

    monkeypatch.setattr(from_torchvision, "get_model", small)
    model = randomise(small(""))
    old = rename(
        model.state_dict(),
        (r"^", "module."),
        (r"mlp\.0\.", "mlp.linear_1."),
        (r"mlp\.3\.", "mlp.linear_2."),
    )
    classifier = load(tmp_path, {"model": old}, "torchvision/vit_b_32")
    assert classifier.warnings == ()
    assert_same(classifier, model)


# other projects

TO_MMPRETRAIN_VIT = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.(\d+)\.norm(\d)", r"layers.\1.ln\2"),
    (r"^blocks\.(\d+)\.mlp\.fc1", r"layers.\1.ffn.layers.0.0"),
    (r"^blocks\.(\d+)\.mlp\.fc2", r"layers.\1.ffn.layers.1"),
    (r"^blocks\.(\d+)\.ls1\.gamma", r"layers.\1.attn.gamma1.weight"),
    (r"^blocks\.(\d+)\.ls2\.gamma", r"layers.\1.ffn.gamma2.weight"),
    (r"^blocks\.", "layers."),
    (r"^norm\.", "ln1."),
    (r"^fc_norm\.", "ln2."),
    (r"^(?!head)", "backbone."),
)


@pytest.mark.parametrize("kwargs", [{}, {"init_values": 0.1}, {"global_pool": "avg"}])
@pytest.mark.parametrize("head", ["head.layers.head.", "head.fc."])
def test_mmpretrains_vit(tmp_path: Path, kwargs: dict[str, Any], head: str) -> None:
    name, small = VIT
    model = build_network(VIT, **kwargs)
    theirs = rename(model.state_dict(), *TO_MMPRETRAIN_VIT, (r"^head\.", head))
    classifier = load(
        tmp_path, {"meta": {}, "state_dict": theirs}, name, model_kwargs=small | kwargs
    )
    assert_same(classifier, model)


def unfold(weight: Tensor) -> Tensor:
    """Gives merged pixels the order of nn.Unfold, one channel's four pixels row by row."""
    width = weight.shape[-1] // 4
    place = {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3}  # of pixels (row, column) in Swin's code
    order = [
        place[row, column] * width + channel
        for channel in range(width)
        for row in range(2)
        for column in range(2)
    ]
    return weight[..., order]


def test_mmpretrains_swin_merges_patches_in_another_order(tmp_path: Path) -> None:
    name, small = SWIN
    model = build_network(SWIN)
    theirs = rename(
        {k: unfold(w) if ".downsample." in k else w for k, w in model.state_dict().items()},
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^layers\.(\d+)\.downsample", lambda m: f"stages.{int(m[1]) - 1}.downsample"),
        (r"^layers\.", "stages."),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1", ".ffn.layers.0.0"),
        (r"\.mlp\.fc2", ".ffn.layers.1"),
        (r"^norm\.", "norm3."),
        (r"^(?!head)", "backbone."),
    )
    theirs["backbone.stages.0.blocks.0.attn.w_msa.relative_position_index"] = torch.zeros(49, 49)
    classifier = load(tmp_path, {"state_dict": theirs}, name, model_kwargs=small)
    assert_same(classifier, model)


def test_the_order_of_unfold_is_pytorchs_own() -> None:
    images = torch.randn(1, 3, 2, 2)
    pixels = [images[:, :, y, x] for x in (0, 1) for y in (0, 1)]  # Swin's own order
    expected = nn.functional.unfold(images, 2)[..., 0]
    torch.testing.assert_close(unfold(torch.cat(pixels, 1)), expected)


@pytest.mark.parametrize("kind", [CONVNEXT, CONVNEXT_2])
def test_mmpretrains_convnext(tmp_path: Path, kind: tuple[str, dict[str, Any]]) -> None:
    model = build_network(kind)
    theirs = rename(
        model.state_dict(),
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"\.blocks\.", "."),
        (r"conv_dw", "depthwise_conv"),
        (r"mlp\.fc", "pointwise_conv"),
        (r"mlp\.grn\.weight", "grn.gamma"),
        (r"mlp\.grn\.bias", "grn.beta"),
        (r"head\.norm", "norm3"),
        (r"^(?!head)", "backbone."),
    )
    classifier = load(tmp_path, {"state_dict": theirs}, kind[0], model_kwargs=kind[1])
    assert classifier.warnings == ()
    assert_same(classifier, model)


def with_split_biases(weights: State) -> State:
    """Takes the bias of the keys away, as BEiT's code has none."""
    results: State = {}
    for name, weight in weights.items():
        if name.endswith("qkv.bias"):
            third = len(weight) // 3
            weight[third : 2 * third] = 0
            results[name.replace("qkv.bias", "q_bias")] = weight[:third].clone()
            results[name.replace("qkv.bias", "v_bias")] = weight[2 * third :].clone()
        else:
            results[name] = weight
    return results


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_biases_and_scales_as_beits_code_names_them(
    tmp_path: Path, scaled: bool, split: bool
) -> None:
    name, small = VIT
    kwargs = {"init_values": 0.1} if scaled else {}
    model = build_network(VIT, **kwargs)
    weights = with_split_biases(model.state_dict()) if split else model.state_dict()
    theirs = rename(weights, (r"ls([12])\.gamma", r"gamma_\1"))
    classifier = load(tmp_path, {"model": theirs}, name, model_kwargs=small | kwargs)
    assert classifier.warnings == ()
    assert_same(classifier, model)


@pytest.mark.parametrize("shared", [False, True])
def test_beit_with_its_tables_of_positions(tmp_path: Path, shared: bool) -> None:
    name, small = BEIT
    model = build_network(BEIT)
    weights = dict(model.state_dict())
    table = "blocks.{}.attn.relative_position_bias_table"
    if shared:
        weights[table.format(1)].copy_(weights[table.format(0)])
        weights["rel_pos_bias.relative_position_bias_table"] = weights.pop(table.format(0))
        del weights[table.format(1)]
        weights["rel_pos_bias.relative_position_index"] = torch.zeros(197, 197, dtype=torch.int64)
    else:
        weights["blocks.0.attn.relative_position_index"] = torch.zeros(197, 197, dtype=torch.int64)
    classifier = load(tmp_path, {"module": weights}, name, model_kwargs=small)
    assert_same(classifier, model)


def test_shared_positions_never_replace_those_of_the_blocks(tmp_path: Path) -> None:
    name, small = BEIT
    weights = dict(build_network(BEIT).state_dict())
    table = "relative_position_bias_table"
    weights[f"rel_pos_bias.{table}"] = torch.randn_like(weights[f"blocks.0.attn.{table}"])
    with pytest.raises(CheckpointError, match=r"unexpected: rel_pos_bias"):
        load(tmp_path, weights, name, model_kwargs=small)


def as_efficientnet_pytorch(model: nn.Module) -> State:
    """Names weights in the order in which EfficientNet-PyTorch declares them, which is timm's."""
    results: State = {}
    blocks = [b for stage in model.get_submodule("blocks") for b in stage]  # type: ignore[union-attr]
    places = {id(p): i for i, b in enumerate(blocks) for p in b.state_dict(keep_vars=True).values()}
    expanding = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand"]
    layers = {
        True: [*expanding, "_project_conv", "_bn2"],
        False: [*expanding[2:], "_project_conv", "_bn2"],
    }
    for place, block in enumerate(blocks):
        leaves = [leaf for leaf in block.modules() if leaf._parameters]
        for leaf, theirs in zip(leaves, layers[len(leaves) == 8], strict=True):
            results |= {f"_blocks.{place}.{theirs}.{k}": w for k, w in leaf.state_dict().items()}
    outside = {k: w for k, w in model.state_dict(keep_vars=True).items() if id(w) not in places}
    return results | rename(
        outside,
        (r"^bn1\.", "_bn0."),
        (r"^bn2\.", "_bn1."),
        (r"^conv", "_conv"),
        (r"^classifier", "_fc"),
    )


def test_efficientnet_pytorch(tmp_path: Path) -> None:
    name = "tf_efficientnet_b0"
    model = build_network((name, {}))
    theirs = as_efficientnet_pytorch(model)
    assert {"_blocks.0._se_reduce.bias", "_blocks.15._project_conv.weight"} < theirs.keys()
    classifier = load(tmp_path, theirs, name)
    assert classifier.warnings == ()
    assert_same(classifier, model, 64)


@pytest.mark.parametrize("name", ["timm/efficientnet_b0", "torchvision/efficientnet_b0"])
def test_efficientnet_pytorch_pads_in_another_way_than_these(tmp_path: Path, name: str) -> None:
    theirs = as_efficientnet_pytorch(timm.create_model("efficientnet_b0", num_classes=3))
    with pytest.raises(CheckpointError, match=r"padding.*\n.* --model tf_efficientnet_b0\.$"):
        load(tmp_path, theirs, name)


# one network in two libraries


SMALL_IN_TORCHVISION: Mapping[str, Callable[..., nn.Module]] = {
    "vit_b_16": lambda classes: torchvision.models.VisionTransformer(
        224, 16, 2, 4, 48, 192, num_classes=classes
    ),
    "swin_t": lambda classes: torchvision.models.SwinTransformer(
        [4, 4], 8, [1, 2, 1, 1], [1, 2, 2, 2], [7, 7], num_classes=classes
    ),
    "convnext_tiny": lambda classes: torchvision.models.ConvNeXt(
        [*starmap(CNBlockConfig, [(8, 16, 1), (16, 24, 1), (24, 32, 2), (32, None, 1)])],
        num_classes=classes,
    ),
}
SMALL_IN_TIMM: Mapping[str, tuple[str, dict[str, Any]]] = {
    "vit_b_16": ("vit_base_patch16_224", VIT[1]),
    "swin_t": SWIN,
    "convnext_tiny": CONVNEXT,
}


@pytest.fixture
def small_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes both libraries build the large networks small."""
    create = timm.create_model

    def get_model(name: str, num_classes: int = 1000, **_: Any) -> nn.Module:
        return SMALL_IN_TORCHVISION[name](num_classes)

    def create_model(name: str, **options: Any) -> nn.Module:
        return create(name, **options, **dict(SMALL_IN_TIMM.values())[name])

    monkeypatch.setattr(from_torchvision, "get_model", get_model)
    monkeypatch.setattr(timm, "create_model", create_model)


@pytest.mark.parametrize("name", list(SMALL_IN_TORCHVISION))
@pytest.mark.parametrize("prefix", ["", "module.net."])
@pytest.mark.usefixtures("small_in_both")
def test_the_other_librarys_weights(tmp_path: Path, name: str, prefix: str) -> None:
    timms = SMALL_IN_TIMM[name][0]
    torchvisions = randomise(SMALL_IN_TORCHVISION[name](3))
    for model, target in (
        (torchvisions, f"timm/{timms}"),
        (randomise(timm.create_model(timms, num_classes=3)), f"torchvision/{name}"),
    ):
        weights = {prefix + k: w for k, w in model.state_dict().items()}
        classifier = load(tmp_path, {"model": weights}, target)
        assert classifier.warnings == ()
        assert_same(classifier, model)


@pytest.mark.parametrize(
    ("torchvisions", "timms"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        pytest.param("mnasnet0_5", "mnasnet_050", marks=pytest.mark.slow),
        pytest.param("regnet_y_400mf", "regnety_004", marks=pytest.mark.slow),
    ],
)
def test_the_other_librarys_weights_in_both_directions(
    tmp_path: Path, torchvisions: str, timms: str
) -> None:
    with torch.random.fork_rng():
        model = randomise(torchvision.models.get_model(torchvisions, num_classes=3))
    present = load(tmp_path, model.state_dict(), f"timm/{timms}")
    assert_same(present, model, 64)
    back = load(tmp_path, present.module.state_dict(), f"torchvision/{torchvisions}")
    assert_same(back, model, 64)
    assert present.warnings == back.warnings == ()


def test_a_network_that_only_looks_the_same_is_refused(tmp_path: Path) -> None:
    # torchvision's adds 1e-3 to the variances, timm's 1e-5
    with torch.random.fork_rng():
        model = randomise(torchvision.models.mobilenet_v3_small(num_classes=3))
    message = (
        r"weights of torchvision/mobilenet_v3_small.* --model torchvision/mobilenet_v3_small\.$"
    )
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, model.state_dict(), "mobilenetv3_small_100")


# trained without classes


def as_moco(model: nn.Module, fc: nn.Module) -> State:
    backbone = {k: w for k, w in model.state_dict().items() if not k.startswith("fc.")}
    backbone |= {f"fc.{k}": w for k, w in fc.state_dict().items()}
    actual = {f"module.encoder_q.{k}": w for k, w in backbone.items()}
    actual |= {f"module.encoder_k.{k}": 0.9 * w for k, w in backbone.items()}
    return actual | {"module.queue": torch.randn(8, 16), "module.queue_ptr": torch.zeros(1)}


def as_simclr(model: nn.Module, fc: nn.Module) -> State:
    backbone = {k: w for k, w in model.state_dict().items() if not k.startswith("fc.")}
    backbone |= {f"fc.{k}": w for k, w in fc.state_dict().items()}
    return {f"backbone.{k}": w for k, w in backbone.items()}


def as_byol(model: nn.Module, fc: nn.Module) -> State:
    actual = {f"online_network.{k}": w for k, w in model.state_dict().items()}
    actual |= {f"target_network.{k}": 0.9 * w for k, w in model.state_dict().items()}
    return actual | {f"predictor.{k}": w for k, w in fc.state_dict().items()}


def as_lucidrains_byol(model: nn.Module, fc: nn.Module) -> State:
    actual = {f"net.{k}": w for k, w in model.state_dict().items()}
    actual |= {f"online_encoder.net.{k}": w for k, w in model.state_dict().items()}
    return actual | {f"online_predictor.net.{k}": w for k, w in fc.state_dict().items()}


def as_barlow_twins(model: nn.Module, fc: nn.Module) -> State:
    actual = {f"module.backbone.{k}": w for k, w in model.state_dict().items() if k[:3] != "fc."}
    return actual | {f"module.projector.{k}": w for k, w in fc.state_dict().items()}


LINEAR = nn.Linear(96, 16)
MLP = nn.Sequential(nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 16))


@pytest.mark.parametrize(
    ("save", "projection"),
    [
        (as_moco, LINEAR),
        (as_moco, MLP),
        (as_simclr, MLP),
        (as_byol, MLP),
        (as_lucidrains_byol, MLP),
        (as_barlow_twins, MLP),
        (as_barlow_twins, LINEAR),
    ],
)
def test_a_projection_is_no_classifier(
    tmp_path: Path, save: Callable[..., State], projection: nn.Module
) -> None:
    model = randomise(small())
    weights = save(model, projection)
    with pytest.raises(CheckpointError, match=r"--num-classes 0") as caught:
        load(tmp_path, {"state_dict": weights}, "test_resnet")
    assert "--no-strict" not in str(caught.value)
    classifier = load(tmp_path, {"state_dict": weights}, "test_resnet", num_classes=0)
    assert classifier.num_classes == 0
    model.fc = nn.Identity()  # type: ignore[assignment]
    assert_same(classifier, model, 64)
    careless = load(tmp_path, {"state_dict": weights}, "test_resnet", strict=False)
    assert careless.num_classes == 1000
    assert any("has random weights: maps" in warning for warning in careless.warnings)


# children in a row


@pytest.mark.parametrize("prefix", ["feature_extractor.", "model.0.", "0."])
def test_children_of_a_network_in_a_row(tmp_path: Path, prefix: str) -> None:
    with torch.random.fork_rng():
        model = randomise(torchvision.models.resnet18(num_classes=10))
    body = nn.Sequential(*list(model.children())[:-1])
    neighbour = prefix.replace("feature_extractor", "classifier").replace("0.", "1.")
    weights = {prefix + k: w for k, w in body.state_dict().items()}
    weights |= {neighbour + k: w for k, w in model.fc.state_dict().items()}
    content = {"state_dict": weights, "pytorch-lightning_version": "2.4"}
    classifier = load(tmp_path, content, "resnet18")
    (note,) = classifier.warnings
    assert f"took {neighbour.strip('.')} for the model's fc" in note
    assert_same(classifier, model, 64)


def test_a_head_of_fastai_is_another_classifier(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        body = nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
        norm, linear = nn.BatchNorm1d, nn.Linear
        head = nn.Sequential(nn.Flatten(), norm(1024), linear(1024, 512), norm(512), linear(512, 3))
    with pytest.raises(CheckpointError, match=r"classifier of its own: .*FILE\.py:FUNCTION"):
        load(tmp_path, {"model": nn.Sequential(body, head).state_dict()}, "resnet18")


# transformers

HUGGING_FACE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "num_labels": 3,
}


def by_transformers(kind: str, folder: Path, **options: Any) -> nn.Module:
    """Saves a random model of transformers, and returns it."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    config = getattr(transformers, f"{kind}Config")(**options)
    model: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    randomise(model)
    model.save_pretrained(folder)  # type: ignore[operator]
    return model


class Logits(nn.Module):
    """A model of transformers whose output is the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images).logits
        return logits


@pytest.mark.parametrize(
    ("kind", "options", "target"),
    [
        ("ViT", HUGGING_FACE, ("vit_base_patch16_224", VIT[1])),
        ("Beit", HUGGING_FACE | {"use_relative_position_bias": True}, BEIT),
        (
            "Swin",
            {
                "embed_dim": 8,
                "depths": [1, 2, 1, 1],
                "num_heads": [1, 2, 2, 2],
                "window_size": 7,
                "num_labels": 3,
            },
            SWIN,
        ),
        (
            "ConvNext",
            {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "num_labels": 3},
            CONVNEXT,
        ),
        (
            "ConvNextV2",
            {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "num_labels": 3},
            CONVNEXT_2,
        ),
        (
            "ResNet",
            {"layer_type": "basic", "depths": [2] * 4, "hidden_sizes": [64, 16, 24, 32]}
            | {"num_labels": 3},
            ("resnet18", {"channels": (64, 16, 24, 32)}),
        ),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_what_transformers_saved_in_timms_network(
    tmp_path: Path, kind: str, options: Any, target: tuple[str, Any], inside: bool
) -> None:
    model = by_transformers(kind, tmp_path, **options)
    file = tmp_path
    if inside:  # under the names that the class has, which the file has not
        file = tmp_path / "a.pth"
        torch.save(model.state_dict(), file)
    classifier = load_model(target[0], checkpoint=file, model_kwargs=target[1], device="cpu")
    assert_same(classifier, Logits(model))


@pytest.mark.parametrize("kind", ["ViT", "Beit", "Swin", "Dinov2"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_transformers_saved_in_its_own_class(tmp_path: Path, kind: str, wrapped: bool) -> None:
    options = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "num_labels": 3}
    options = options if kind == "Swin" else HUGGING_FACE
    model = by_transformers(kind, tmp_path, **options)
    made = f"transformers.{kind}ForImageClassification(transformers.{kind}Config(**{options}))"
    (tmp_path / "mine.py").write_text(
        "import torch, transformers\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        self.net = {made}\n"
        "    def forward(self, x):\n"
        "        return self.net(x)\n"
        f"def build():\n    return {'Net()' if wrapped else made}\n"
    )
    file = tmp_path
    if wrapped:
        weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
        file = tmp_path / "a.pth"
        torch.save({f"net.{k}": w for k, w in weights.items()}, file)
    name = f"{tmp_path / 'mine.py'}:build"
    classifier = load_model(name, checkpoint=file, output_key="logits", device="cpu")
    assert not any("Checkpoint" in warning for warning in classifier.warnings)
    actual = classifier.module.state_dict()
    expected = model.state_dict()
    prefix = "net." if wrapped else ""
    assert all(torch.equal(actual[prefix + k], w) for k, w in expected.items())


# the order of the weights


class Plain(nn.Module):
    """A network of one's own: the names say nothing but an order."""

    def __init__(self, names: tuple[str, ...], classes: int = 3) -> None:
        super().__init__()
        widths = [3, 8, 8, 8]
        for name, (before, after) in zip(names, pairwise(widths), strict=False):
            self.add_module(name, nn.Conv2d(before, after, 3, padding=1, stride=2))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(after))
        self.add_module(names[3], nn.Linear(8, classes))

    def forward(self, images: Tensor) -> Tensor:
        *layers, last = self.children()
        for layer in layers:
            images = layer(images)
        actual: Tensor = last(images.relu().mean((2, 3)))
        return actual


OWN = """
import torch
from tests.models.checkpoints.test_key_renaming import Plain
def build(num_classes=3):
    return Plain(("conv1", "conv2", "conv3", "fc"), num_classes)
"""


def load_own(folder: Path, content: Any, **options: Any) -> Classifier:
    (folder / "mine.py").write_text(OWN)
    return load(folder, content, f"{folder / 'mine.py'}:build", **options)


def test_unknown_names_are_taken_by_their_order_and_that_is_said(tmp_path: Path) -> None:
    model = randomise(Plain(("a1", "a2", "a3", "z"), classes=5))
    classifier = load_own(tmp_path, model.state_dict())
    assert any("20 weights were taken by their order" in w for w in classifier.warnings)
    assert_same(classifier, model, 64)


def test_a_number_for_every_weight_is_an_order(tmp_path: Path) -> None:
    model = randomise(Plain(("conv1", "conv2", "conv3", "fc")))
    weights = {
        f"net.{place}.{name.rpartition('.')[2]}": weight
        for place, (name, weight) in enumerate(model.state_dict().items())
    }
    assert_same(load_own(tmp_path, weights), model, 64)


@pytest.mark.parametrize(
    "names",
    [
        ("b", "c", "a", "z"),  # c or a, which comes first?
        ("a2", "a1", "a3", "z"),
        ("a10", "a9", "a11", "z"),
    ],
)
def test_an_order_that_names_do_not_confirm_is_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(CheckpointError, match="another architecture"):
        load_own(tmp_path, randomise(Plain(names)).state_dict())


def test_an_alphabetical_order_is_none(tmp_path: Path) -> None:
    weights = dict(sorted(randomise(Plain(("a1", "a2", "a3", "z"))).state_dict().items()))
    message = (
        r"(?s)in the order of these names, as safetensors keeps .* torch\.save\(model\.state_dict"
    )
    with pytest.raises(CheckpointError, match=message):
        load_own(tmp_path, weights)
    # the same weights as the model has them
    (tmp_path / "mine.py").write_text(OWN)
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_model(f"{tmp_path / 'mine.py'}:build", checkpoint=tmp_path / "a.safetensors")


def test_an_alphabetical_order_of_other_shapes_is_of_another_architecture(tmp_path: Path) -> None:
    weights = dict(sorted(randomise(Plain(("a1", "a2", "a3", "z"))).state_dict().items()))
    weights["a1.weight"] = torch.randn(8, 3, 5, 5)
    weights["a2.weight"] = torch.randn(8, 8, 5, 5)
    weights["a3.weight"] = torch.randn(8, 8, 5, 5)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_own(tmp_path, weights)


def test_moments_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = randomise(Plain(("a1", "a2", "a3", "z"))).state_dict()
    for name, weight in weights.items():
        if name.endswith("running_var"):
            weight.mul_(1e6)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_own(tmp_path, weights)


def test_names_that_are_known_are_never_passed_over(tmp_path: Path) -> None:
    # fc_norm in the place of norm has its shape, and pools in another way
    name, small = VIT
    weights = build_network(VIT, global_pool="avg").state_dict()
    message = r"(?s)missing: norm\.weight.* --model-kwargs global_pool=avg\.$"
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, weights, name, model_kwargs=small)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"init_values": 0.1}, "init_values=1e-05"),
        ({"global_pool": "avg", "init_values": 0.1}, "global_pool=avg --model-kwargs init_values"),
        ({"class_token": False, "global_pool": "avg"}, "class_token=False"),
        ({"qkv_bias": False}, "qkv_bias=False"),
        ({"reg_tokens": 4}, "reg_tokens=4"),
        ({"patch_size": 8}, "patch_size=8"),
    ],
)
def test_the_argument_that_helps_is_named(
    tmp_path: Path, kwargs: dict[str, Any], message: str
) -> None:
    name, small = VIT
    weights = build_network(VIT, **kwargs).state_dict()
    with pytest.raises(CheckpointError, match=f"--model-kwargs .*{message}") as caught:
        load(tmp_path, weights, name, model_kwargs=small)
    assert "--no-strict" not in str(caught.value)


def test_a_layer_that_timm_dropped_is_not_left_out_in_silence(tmp_path: Path) -> None:
    name, small = VIT
    weights = build_network(VIT).state_dict() | {"pre_logits.fc.weight": torch.randn(48, 48)}
    weights["pre_logits.fc.bias"] = torch.zeros(48)
    with pytest.raises(CheckpointError, match=r"unexpected: pre_logits"):
        load(tmp_path, weights | {"mask_token": torch.zeros(1)}, name, model_kwargs=small)
