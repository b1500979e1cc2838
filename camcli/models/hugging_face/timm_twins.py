"""Which network of timm a configuration of transformers describes, for those that timm has too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from camcli.models.model_spec import ModelSpec

Arguments = dict[str, Any]
# timm's ResNets have these channels alone
BASIC, BOTTLENECK = [64, 128, 256, 512], [256, 512, 1024, 2048]


def find_timm_twin(config: Any, num_classes: int | None) -> ModelSpec | None:
    """Names timm's network for a configuration, and the arguments that make it as large.

    None where timm has none, or this table does not know it.
    """
    describe = TWINS.get(config.model_type)
    described = describe(config) if describe else None
    if described is None:
        return None
    name, arguments = described
    size = arguments.pop("img_size", None)
    edges = None if size is None else (size, size) if isinstance(size, int) else tuple(size)
    return ModelSpec(name, False, num_classes, edges, arguments)


def _describe_vit(config: Any) -> Arguments:
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": _get_ratio(config),
    }


def _get_ratio(config: Any) -> float:
    if hasattr(config, "intermediate_size"):
        return float(config.intermediate_size / config.hidden_size)
    return float(config.mlp_ratio)


def _describe_swin(config: Any) -> Arguments:
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depths": tuple(config.depths),
        "num_heads": tuple(config.num_heads),
        "window_size": config.window_size,
    }


def _describe_convnext(config: Any) -> Arguments:
    return {"depths": tuple(config.depths), "dims": tuple(config.hidden_sizes)}


def _describe_resnet(config: Any) -> tuple[str, Arguments] | None:
    is_basic = config.layer_type == "basic"
    if config.embedding_size != BASIC[0] or config.hidden_sizes != (
        BASIC if is_basic else BOTTLENECK
    ):
        return None
    return "resnet18" if is_basic else "resnet50", {"layers": tuple(config.depths)}


def _describe_dinov2(config: Any, name: str) -> tuple[str, Arguments] | None:
    # the gated layers of the largest are wider than the configuration says
    return None if config.use_swiglu_ffn else (name, _describe_vit(config))


TWINS: Mapping[str, Callable[[Any], tuple[str, Arguments] | None]] = {
    "vit": lambda config: ("vit_base_patch16_224", _describe_vit(config)),
    "deit": lambda config: ("deit_base_distilled_patch16_224", _describe_vit(config)),
    "beit": lambda config: ("beit_base_patch16_224", _describe_vit(config)),
    "dinov2": lambda config: _describe_dinov2(config, "vit_base_patch14_dinov2"),
    "dinov2_with_registers": lambda config: _describe_dinov2(
        config, "vit_base_patch14_reg4_dinov2"
    ),
    "swin": lambda config: ("swin_tiny_patch4_window7_224", _describe_swin(config)),
    "convnext": lambda config: ("convnext_tiny", _describe_convnext(config)),
    "convnextv2": lambda config: ("convnextv2_tiny", _describe_convnext(config)),
    "resnet": _describe_resnet,
    "swinv2": lambda config: ("swinv2_tiny_window8_256", _describe_swin(config)),
}
