"""Tiny random models of every class of transformers that classifies pictures, and of backbones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.inspection.layout import Layout
from camcli.models.inspection.target_layers import TargetLayer

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Tiny:
    """A configuration's class, what makes it tiny, the class to build and the input's edge."""

    config: str
    settings: Settings = field(default_factory=dict)
    model: str = ""
    edge: int = 64

    @property
    def class_name(self) -> str:
        return self.model or self.config.replace("Config", "ForImageClassification")


WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VIT = {**WIDTH, "intermediate_size": 48, "image_size": 64, "patch_size": 16}
ANY_SIZE = {key: value for key, value in VIT.items() if key != "image_size"}
TOWER = {"vision_config": VIT, "text_config": {**WIDTH, "intermediate_size": 48, "vocab_size": 64}}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32]}
SWIN = {"image_size": 64, "patch_size": 2, "embed_dim": 12, "depths": [1, 2], "num_heads": [2, 2]}
PVT = {
    "image_size": 64,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 16, 32],
    "num_attention_heads": [1, 1, 2, 2],
}
LEVIT = {
    "image_size": 224,
    "hidden_sizes": [16, 32, 32],
    "depths": [1, 1, 1],
    "num_attention_heads": [2, 2, 2],
    "key_dim": [8, 8, 8],
}
PERCEIVER = {
    "num_latents": 3,
    "d_latents": 16,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
}
DINO = {**WIDTH, "image_size": 64, "patch_size": 16}

CLASSIFIERS: Mapping[str, Tiny] = {
    "beit": Tiny("BeitConfig", VIT),
    "beit with positions": Tiny(
        "BeitConfig",
        {**VIT, "use_relative_position_bias": True, "use_absolute_position_embeddings": True},
    ),
    "bit": Tiny("BitConfig", {**STAGES, "embedding_size": 16, "num_groups": 4}),
    "clip": Tiny("CLIPConfig", TOWER),
    "convnext": Tiny("ConvNextConfig", STAGES),
    "convnextv2": Tiny("ConvNextV2Config", STAGES),
    "cvt": Tiny(
        "CvtConfig", {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]}
    ),
    # it chooses its attention when it is built
    "data2vec-vision": Tiny("Data2VecVisionConfig", {**VIT, "attn_implementation": "eager"}),
    "deit": Tiny("DeiTConfig", VIT),
    "deit with teacher": Tiny("DeiTConfig", VIT, "DeiTForImageClassificationWithTeacher"),
    "dinov2": Tiny("Dinov2Config", DINO),
    "dinov2_with_registers": Tiny("Dinov2WithRegistersConfig", DINO),
    "donut-swin": Tiny("DonutSwinConfig", {**SWIN, "window_size": 4}),
    "efficientnet": Tiny(
        "EfficientNetConfig",
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320},
        edge=128,
    ),
    "focalnet": Tiny(
        "FocalNetConfig",
        {
            "image_size": 64,
            "embed_dim": 12,
            "depths": [1, 1],
            "hidden_sizes": [12, 24],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
    ),
    "hgnet_v2": Tiny(
        "HGNetV2Config",
        {
            "embedding_size": 8,
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [16, 16, 32, 32],
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 16, 16, 32],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [16, 16, 32, 32],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
        },
        edge=128,
    ),
    "hiera": Tiny(
        "HieraConfig",
        {
            "image_size": [64, 64],
            "embed_dim": 12,
            "num_heads": [1, 1, 2, 2],
            "depths": [1, 1, 1, 1],
            "masked_unit_size": [8, 8],
        },
        edge=64,
    ),
    "ijepa": Tiny("IJepaConfig", VIT),
    "levit": Tiny("LevitConfig", LEVIT, edge=224),
    "levit with teacher": Tiny(
        "LevitConfig", LEVIT, "LevitForImageClassificationWithTeacher", edge=224
    ),
    "metaclip_2": Tiny("MetaClip2Config", TOWER),
    "mobilenet_v1": Tiny("MobileNetV1Config", {"depth_multiplier": 0.25}, edge=128),
    "mobilenet_v2": Tiny("MobileNetV2Config", {"depth_multiplier": 0.25}, edge=128),
    "mobilevit": Tiny(
        "MobileViTConfig",
        {
            "image_size": 128,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
        },
        edge=128,
    ),
    "mobilevitv2": Tiny(
        "MobileViTV2Config",
        {"image_size": 128, "base_attn_unit_dims": [16, 24, 32], "width_multiplier": 0.25},
        edge=128,
    ),
    "perceiver learned": Tiny(
        "PerceiverConfig", {**PERCEIVER, "image_size": 64}, "PerceiverForImageClassificationLearned"
    ),
    "perceiver fourier": Tiny(
        "PerceiverConfig", PERCEIVER, "PerceiverForImageClassificationFourier", edge=224
    ),
    "perceiver conv": Tiny(
        "PerceiverConfig", PERCEIVER, "PerceiverForImageClassificationConvProcessing", edge=224
    ),
    "poolformer": Tiny("PoolFormerConfig", STAGES),
    "pp_lcnet": Tiny("PPLCNetConfig", {"scale": 0.25, "class_expand": 32}, edge=224),
    "pvt": Tiny("PvtConfig", PVT),
    "pvt_v2": Tiny("PvtV2Config", PVT),
    "regnet": Tiny("RegNetConfig", {**STAGES, "embedding_size": 16, "groups_width": 4}),
    "resnet": Tiny("ResNetConfig", {**STAGES, "embedding_size": 16}),
    "segformer": Tiny("SegformerConfig", {k: v for k, v in PVT.items() if k != "image_size"}),
    "siglip": Tiny("SiglipConfig", TOWER),
    "siglip2": Tiny(
        "Siglip2Config",
        {
            **TOWER,
            "vision_config": {
                **{k: v for k, v in VIT.items() if k != "image_size"},
                "num_patches": 16,
            },
        },
    ),
    "swiftformer": Tiny(
        "SwiftFormerConfig",
        {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 16, 16, 32]},
    ),
    "swin": Tiny("SwinConfig", {**SWIN, "window_size": 4}),
    "swinv2": Tiny("Swinv2Config", {**SWIN, "window_size": 4}),
    "textnet": Tiny("TextNetConfig", {"image_size": [64, 64]}),
    "vit": Tiny("ViTConfig", VIT),
    "vit_msn": Tiny("ViTMSNConfig", VIT),
}
# architectures of the same mapping that no picture alone goes into, and why
OTHERS: Mapping[str, str] = {
    "dinat": "needs natten, which is compiled for one version of torch",
    "imagegpt": "takes colours as words, one after another",
    "shieldgemma2": "a language model that is asked about a picture",
    "timm_wrapper": "timm's own networks, which camviz loads with timm",
}
BACKBONES: Mapping[str, Tiny] = {
    "dinov2": Tiny("Dinov2Config", DINO, "Dinov2Model"),
    "dinov3_vit": Tiny("DINOv3ViTConfig", {**VIT, "num_register_tokens": 2}, "DINOv3ViTModel"),
    "dinov3_convnext": Tiny("DINOv3ConvNextConfig", STAGES, "DINOv3ConvNextModel"),
    "ijepa": Tiny("IJepaConfig", VIT, "IJepaModel"),
    "vit_mae": Tiny(
        "ViTMAEConfig",
        {
            **VIT,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 16,
        },
        "ViTMAEForPreTraining",
    ),
    "siglip": Tiny("SiglipConfig", TOWER, "SiglipModel"),
    "clip": Tiny("CLIPConfig", TOWER, "CLIPModel"),
}


def build_tiny(tiny: Tiny, seed: int = 0, **settings: Any) -> Any:
    """Builds a tiny model whose weights are so strong that what lies far apart is told apart."""
    import transformers

    config = getattr(transformers, tiny.config)(**{"num_labels": 4, **tiny.settings, **settings})
    with torch.random.fork_rng(()):
        torch.manual_seed(seed)
        module: nn.Module = getattr(transformers, tiny.class_name)._from_config(config)
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0, parameter[0].numel() ** -0.5)
    return module.eval()


def compute_gradcam_by_hand(
    module: Any, target: TargetLayer, inputs: Tensor, category: int
) -> Tensor:
    """Computes Grad-CAM with one hook and one call of autograd.  [b 3 H W] -> [b h w]"""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    with torch.enable_grad():
        with module.get_submodule(target.name).register_forward_hook(keep):
            output = module(inputs.clone().requires_grad_())
        logits = output["logits"] if "logits" in output else output["last_hidden_state"]
        (gradient,) = torch.autograd.grad(logits[:, category].sum(), outputs[-1])
    maps, weights = (lay_out(tensor, target.layout) for tensor in (outputs[-1].detach(), gradient))
    return (weights.mean((2, 3), keepdim=True) * maps).sum(1)


def lay_out(output: Tensor, layout: Layout) -> Tensor:
    """Lays what a layer puts out as maps.  -> [b c h w]"""
    if layout.kind == "nchw":
        return output
    if layout.kind == "nhwc":
        return output.permute(0, 3, 1, 2)
    assert layout.kind == "tokens", layout
    h, w = layout.grid
    tokens = output[:, layout.prefix : layout.prefix + h * w]
    if layout.order:
        tokens = tokens[:, list(layout.order)]
    return tokens.mT.unflatten(2, (h, w))


def draw_noise(edge: int, b: int = 2) -> Tensor:
    return torch.randn(b, 3, edge, edge, generator=torch.Generator().manual_seed(1))
