"""Lists what other projects call the weights of networks that timm and torchvision have.

Facts alone, read off the projects' own code: a naming turns a name of the model's into the name
that the weight has elsewhere.  `{query,key,value}` in a name stands for several weights, one below
the other; an empty part is a row of zeros.  Names that a library converts itself are not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
# names that a naming remembers: a large network has about a thousand
MOST_TRANSLATED = 2048


@dataclass(frozen=True)
class Naming:
    """How a project names the weights of one family of networks.

    `translate` returns the project's name for each of the model's; `reorder` has what stands in
    another order there, by a pattern of the model's name; `eps` has what the project's norms add to
    the variance, by a pattern of the norm's name, where the libraries add something else; `differs`
    says in what the project's network is another than the model, if it is, and `instead` names the
    model that is the same, `{}` being the name of this one; `prepare` computes of the file's
    weights what the model has in their place.
    """

    translate: Callable[[Iterable[str]], Mapping[str, str]]
    reorder: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    eps: Mapping[str, float] = field(default_factory=dict)
    differs: Callable[[nn.Module], str] | None = None
    instead: str = ""
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None


def make_translator(
    *renames: tuple[str, str | Callable[[re.Match[str]], str]],
) -> Callable[..., dict[str, str]]:
    """Returns a function that translates names by substitutions, one after the other."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in renames]

    # each file is fitted twice, and networks of a family share their names
    @lru_cache(MOST_TRANSLATED)
    def translate_one(name: str) -> str:
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        return name

    return lambda names: {name: translate_one(name) for name in names}


def _decrement(pattern: str) -> Callable[[re.Match[str]], str]:
    """Returns a replacement in which `{}` is one less than the number that was found."""
    return lambda match: pattern.replace("{}", str(int(match[1]) - 1), 1)


def expand_name(name: str) -> tuple[str, ...]:
    """Lists the weights that a name with braces stands for; "" is a row of zeros."""
    before, brace, rest = name.partition("{")
    if not brace:
        return (name,)
    inner, _, after = rest.partition("}")
    return tuple(part and f"{before}{part}{after}" for part in inner.split(","))


def concatenate(weights: Sequence[Tensor | None]) -> Tensor:
    """Puts weights below each other, zeros in the place of None."""
    given = [weight for weight in weights if weight is not None]
    if len(weights) == 1:
        return given[0]
    return torch.cat([torch.zeros_like(given[0]) if w is None else w for w in weights])


def reshape_like(weight: Tensor, own: Tensor) -> Tensor:
    """Adds and takes away axes of length 1, as between a linear layer and a 1x1 convolution."""
    lengths = [[n for n in tensor.shape if n > 1] for tensor in (weight, own)]
    return weight.reshape(own.shape) if lengths[0] == lengths[1] else weight


def list_child_namings(module: nn.Module) -> Iterator[Naming]:
    """Lists the names in `nn.Sequential(*module.children())`, and the same of a child's children.

    Lightning's examples of transfer learning and fastai's bodies are saved so.
    """
    for path, container in (("", module), *module.named_children()):
        places = {name: str(place) for place, (name, _) in enumerate(container.named_children())}
        if len(places) > 1 and any(name != place for name, place in places.items()):
            yield Naming(partial(_rename_children, path=f"{path}." if path else "", places=places))


def _rename_children(names: Iterable[str], path: str, places: Mapping[str, str]) -> dict[str, str]:
    translated = {}
    for name in names:
        child, dot, rest = name.removeprefix(path).partition(".")
        inside = name.startswith(path) and child in places
        translated[name] = f"{places[child]}{dot}{rest}" if inside else name
    return translated


# MMPretrain, and mmcls before it: mmpretrain/models/backbones and .../heads

_MMPRETRAIN_VIT: Renames = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.", "layers."),
    (r"^(layers\.\d+\.)norm(\d)\.", r"\1ln\2."),
    (r"^(layers\.\d+\.)mlp\.fc1\.", r"\1ffn.layers.0.0."),
    (r"^(layers\.\d+\.)mlp\.fc2\.", r"\1ffn.layers.1."),
    (r"^(layers\.\d+\.)ls1\.gamma$", r"\1attn.gamma1.weight"),
    (r"^(layers\.\d+\.)ls2\.gamma$", r"\1ffn.gamma2.weight"),
    (r"^norm_pre\.", "pre_norm."),
    (r"^norm\.", "ln1."),
    (r"^fc_norm\.", "ln2."),
)
_QKV_BIAS = (r"attn\.qkv\.bias$", "attn.{q_bias,,v_bias}")
_MMPRETRAIN_SWIN: Renames = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.(\d+)\.downsample\.", _decrement("stages.{}.downsample.")),
    (r"^layers\.", "stages."),
    (r"^(stages\.\d+\.blocks\.\d+\.)attn\.", r"\1attn.w_msa."),
    (r"^(stages\.\d+\.blocks\.\d+\.)mlp\.fc1\.", r"\1ffn.layers.0.0."),
    (r"^(stages\.\d+\.blocks\.\d+\.)mlp\.fc2\.", r"\1ffn.layers.1."),
    (r"^norm\.", "norm3."),
)
_MMPRETRAIN_CONVNEXT: Renames = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^(stages\.\d+\.)blocks\.", r"\1"),
    (r"^(stages\.\d+\.\d+\.)conv_dw\.", r"\1depthwise_conv."),
    (r"^(stages\.\d+\.\d+\.)mlp\.fc([12])\.", r"\1pointwise_conv\2."),
    (r"^(stages\.\d+\.\d+\.)mlp\.grn\.weight$", r"\1grn.gamma"),
    (r"^(stages\.\d+\.\d+\.)mlp\.grn\.bias$", r"\1grn.beta"),
    (r"^head\.norm\.", "norm3."),
)


def reorder_unfolded(merged: Tensor) -> Tensor:
    """Puts the channels of 2x2 pixels as Swin's own code has them: by pixel, column by column.

    MMPretrain takes the pixels with nn.Unfold: by channel, row by row within.  [... 4c] -> [... 4c]
    """
    pixels = merged.reshape(*merged.shape[:-1], -1, 2, 2)
    return pixels.movedim(-3, -1).transpose(-3, -2).flatten(-3)


# Hugging Face transformers, as its files have them; its own classes may use other names inside

_TRANSFORMERS_VIT: Renames = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^dist_token$", "embeddings.distillation_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^norm\.", "layernorm."),
    (r"^fc_norm\.", "pooler.layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.qkv\.", ".attention.attention.{query,key,value}."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
)
_TRANSFORMERS_MLP: Renames = (
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_TRANSFORMERS_BEIT: Renames = (
    (r"\.gamma_([12])$", r".lambda_\1"),
    (r"\.attn\.q_bias$", ".attention.attention.query.bias"),
    (r"\.attn\.v_bias$", ".attention.attention.value.bias"),
    (
        r"\.attn\.relative_position_bias_table$",
        ".attention.attention.relative_position_bias.relative_position_bias_table",
    ),
)
# the names inside of transformers 5, which its files do not have
_TRANSFORMERS_5_VIT: Renames = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.rel", ".rel"),
    (r"\.attention\.attention\.(q|v)[a-z]+\.bias$", r".attention.\1_proj.bias"),
    (r"\.attention\.attention\.\{query,key,value\}\.", ".attention.{q_proj,k_proj,v_proj}."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"(layers\.\d+\.)intermediate\.dense\.", r"\1mlp.fc1."),
    (r"(layers\.\d+\.)output\.dense\.", r"\1mlp.fc2."),
)
_TRANSFORMERS_SWIN: Renames = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^layers\.(\d+)\.downsample\.", _decrement("encoder.layers.{}.downsample.")),
    (r"^layers\.", "encoder.layers."),
    (r"\.attn\.qkv\.", ".attention.self.{query,key,value}."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.rel", ".attention.self.rel"),
    (r"^norm\.", "layernorm."),
    (r"^head\.fc\.", "classifier."),
)
_TRANSFORMERS_5_SWIN: Renames = (
    (r"\.attention\.self\.rel", ".attention.relative_position_bias.rel"),
    (r"\.attention\.self\.\{query,key,value\}\.", ".attention.{q_proj,k_proj,v_proj}."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"(blocks\.\d+\.)intermediate\.dense\.", r"\1mlp.fc1."),
    (r"(blocks\.\d+\.)output\.dense\.", r"\1mlp.fc2."),
)
_TRANSFORMERS_REGNET: Renames = (
    (r"^stem\.", "embedder.embedder."),
    (
        r"^s(\d)\.b(\d+)\.",
        lambda match: f"encoder.stages.{int(match[1]) - 1}.layers.{int(match[2]) - 1}.",
    ),
    (r"\.conv([123])\.(?=conv|bn)", _decrement(".layer.{}.")),
    (r"\.downsample\.", ".shortcut."),
    (r"\.conv\.weight$", ".convolution.weight"),
    (r"\.bn\.", ".normalization."),
    (r"^head\.fc\.", "classifier.1."),
)
# what squeezes and excites stands among the layers
_TRANSFORMERS_REGNETY: Renames = (
    (r"\.conv3\.(?=conv|bn)", ".layer.3."),
    (r"\.se\.fc1\.", ".layer.2.attention.0."),
    (r"\.se\.fc2\.", ".layer.2.attention.2."),
    *_TRANSFORMERS_REGNET,
)
_QUERY_VALUE = {"q": "query", "v": "value"}
# scales and offsets beside the layers, a bias for queries and values alone
_TRANSFORMERS_SWINV2: Renames = (
    (r"\.attn\.([qv])_bias$", lambda match: f".attention.self.{_QUERY_VALUE[match[1]]}.bias"),
    (r"\.attn\.logit_scale$", ".attention.self.logit_scale"),
    (r"\.attn\.cpb_mlp\.", ".attention.self.continuous_position_bias_mlp."),
)
_TRANSFORMERS_DINOV2: Renames = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^reg_token$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.qkv\.", ".attention.attention.{query,key,value}."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
)
_TRANSFORMERS_5_DINOV2: Renames = (
    (r"\.attention\.attention\.\{query,key,value\}\.", ".attention.{q_proj,k_proj,v_proj}."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)
# the gated layers of the largest
_TRANSFORMERS_GATED: Renames = (
    (r"\.mlp\.fc1\.", ".mlp.weights_in."),
    (r"\.mlp\.fc2\.", ".mlp.weights_out."),
)


def _drop_unused(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leaves out what no output of timm's is computed of."""
    unused = ("embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias")
    return {name: weight for name, weight in weights.items() if name not in unused}


def _place_registers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds the class token's position to it, as timm does where there are registers."""
    prepared = _drop_unused(weights)
    token, positions = "embeddings.cls_token", "embeddings.position_embeddings"
    if {token, positions, "embeddings.register_tokens"} <= prepared.keys():
        placed = prepared[positions]
        prepared |= {token: prepared[token] + placed[:, :1], positions: placed[:, 1:]}
    return prepared


_TRANSFORMERS_PVTV2: Renames = (
    (r"^patch_embed\.", "encoder.layers.0.patch_embedding."),
    (r"^stages\.(\d+)\.downsample\.", r"encoder.layers.\1.patch_embedding."),
    (r"\.patch_embedding\.norm\.", ".patch_embedding.layer_norm."),
    (r"^stages\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm_\1."),
    (r"(layers\.\d+\.)norm\.", r"\1layer_norm."),
    (r"\.attn\.q\.", ".attention.query."),
    (r"\.attn\.kv\.", ".attention.{key,value}."),
    (r"\.attn\.sr\.", ".attention.spatial_reduction."),
    (r"\.attn\.norm\.", ".attention.layer_norm."),
    (r"\.attn\.proj\.", ".attention.proj."),
    (r"\.mlp\.fc([12])\.", r".mlp.dense\1."),
    (r"\.mlp\.dwconv\.", ".mlp.dwconv.dwconv."),
    (r"^head\.", "classifier."),
)
_TRANSFORMERS_CONVNEXT: Renames = (
    (r"^stem\.0\.", "embeddings.patch_embeddings."),
    (r"^stem\.1\.", "embeddings.layernorm."),
    (r"^(stages\.\d+\.)downsample\.", r"encoder.\1downsampling_layer."),
    (r"^(stages\.\d+\.)blocks\.", r"encoder.\1layers."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"(layers\.\d+\.)norm\.", r"\1layernorm."),
    (r"\.mlp\.fc([12])\.", r".pwconv\1."),
    (r"\.mlp\.grn\.", ".grn."),
    (r"\.gamma$", ".layer_scale_parameter"),
    (r"^head\.norm\.", "layernorm."),
    (r"^head\.fc\.", "classifier."),
)
_TRANSFORMERS_RESNET: Renames = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer(\d)\.", _decrement("encoder.stages.{}.layers.")),
    (r"\.conv(\d)\.", _decrement(".layer.{}.convolution.")),
    (r"\.bn(\d)\.", _decrement(".layer.{}.normalization.")),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
    (r"^fc\.", "classifier.1."),
)
_TRANSFORMERS_EPS = {r"": 1e-12}


# EfficientNet-PyTorch

_EFFICIENTNET_BLOCK = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
# a block that expands nothing
_EFFICIENTNET_FIRST = {
    **_EFFICIENTNET_BLOCK,
    "conv_pw": "_project_conv",
    "bn1": "_bn1",
    "bn2": "_bn2",
}
_EFFICIENTNET_REST = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}


def _translate_efficientnet(names: Iterable[str]) -> dict[str, str]:
    """Numbers the blocks of all stages through, as EfficientNet-PyTorch does."""
    names = tuple(names)
    matches = [re.match(r"blocks\.\d+\.\d+\.", name) for name in names]
    blocks = list(dict.fromkeys(match[0] for match in matches if match))
    expanding = {name.partition("conv_pwl.")[0] for name in names if "conv_pwl." in name}
    translated = {}
    for name, match in zip(names, matches, strict=True):
        block = match[0] if match else ""
        parts = _EFFICIENTNET_BLOCK if block in expanding else _EFFICIENTNET_FIRST
        layer, _, kind = name.removeprefix(block).rpartition(".")
        theirs = (parts if block else _EFFICIENTNET_REST).get(layer, layer)
        place = f"_blocks.{blocks.index(block)}." if block else ""
        translated[name] = f"{place}{theirs}.{kind}"
    return translated


def _explain_efficientnet_difference(module: nn.Module) -> str:
    strided = [
        part
        for part in module.modules()
        if isinstance(part, nn.Conv2d) and max(part.stride) > 1 and max(part.kernel_size) > 1
    ]
    if not any(part.padding in ((0, 0), "same") for part in strided):
        return "it was trained with TensorFlow's padding, and this network pads evenly"
    return ""


NAMINGS: Sequence[Naming] = (
    # torch 0.3's DenseNet, and CheXNet's
    Naming(make_translator((r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2."))),
    Naming(
        _translate_efficientnet,
        eps={"": 1e-3},
        differs=_explain_efficientnet_difference,
        instead="tf_{}",
    ),
    # BEiT's code, and what descends from it: no bias of the keys, scales beside the layers
    Naming(make_translator(_QKV_BIAS)),
    Naming(make_translator((r"\.ls([12])\.gamma$", r".gamma_\1"))),
    Naming(make_translator(_QKV_BIAS, (r"\.ls([12])\.gamma$", r".gamma_\1"))),
    Naming(
        make_translator(
            (
                r"^blocks\.\d+\.attn\.relative_position_bias_table$",
                "rel_pos_bias.relative_position_bias_table",
            )
        )
    ),
    Naming(make_translator(*_MMPRETRAIN_VIT, (r"^head\.", "head.layers.head."))),
    Naming(make_translator(*_MMPRETRAIN_VIT, (r"^head\.", "head.fc."))),
    Naming(make_translator(*_MMPRETRAIN_VIT, (r"^head\.", "head.fc."), _QKV_BIAS)),
    Naming(
        make_translator(*_MMPRETRAIN_SWIN),
        reorder={r"\.downsample\.(norm\.(weight|bias)|reduction\.weight)$": reorder_unfolded},
    ),
    Naming(make_translator(*_MMPRETRAIN_CONVNEXT)),
    Naming(
        make_translator(
            *_TRANSFORMERS_VIT, *_TRANSFORMERS_BEIT, *_TRANSFORMERS_MLP, (r"^head\.", "classifier.")
        ),
        eps=_TRANSFORMERS_EPS,
        prepare=_drop_unused,
    ),
    Naming(
        make_translator(
            *_TRANSFORMERS_VIT,
            *_TRANSFORMERS_MLP,
            (r"^head\.", "cls_classifier."),
            (r"^head_dist\.", "distillation_classifier."),
        ),
        eps=_TRANSFORMERS_EPS,
    ),
    Naming(
        make_translator(
            *_TRANSFORMERS_VIT,
            *_TRANSFORMERS_BEIT,
            *_TRANSFORMERS_MLP,
            *_TRANSFORMERS_5_VIT,
            (r"^head\.", "classifier."),
        ),
        eps=_TRANSFORMERS_EPS,
        prepare=_drop_unused,
    ),
    Naming(
        make_translator(
            *_TRANSFORMERS_VIT,
            *_TRANSFORMERS_MLP,
            *_TRANSFORMERS_5_VIT,
            (r"^head\.", "cls_classifier."),
            (r"^head_dist\.", "distillation_classifier."),
        ),
        eps=_TRANSFORMERS_EPS,
    ),
    Naming(make_translator(*_TRANSFORMERS_SWIN, *_TRANSFORMERS_MLP)),
    Naming(make_translator(*_TRANSFORMERS_SWIN, *_TRANSFORMERS_MLP, *_TRANSFORMERS_5_SWIN)),
    Naming(make_translator(*_TRANSFORMERS_SWINV2, *_TRANSFORMERS_SWIN, *_TRANSFORMERS_MLP)),
    *(
        Naming(make_translator(*_TRANSFORMERS_DINOV2, *inside, *gated), prepare=_place_registers)
        for inside in ((), _TRANSFORMERS_5_DINOV2)
        for gated in ((), _TRANSFORMERS_GATED)
    ),
    Naming(make_translator(*_TRANSFORMERS_PVTV2)),
    Naming(make_translator(*_TRANSFORMERS_REGNET)),
    Naming(make_translator(*_TRANSFORMERS_REGNETY)),
    Naming(make_translator(*_TRANSFORMERS_CONVNEXT), eps={r"^head\.norm$": 1e-12}),
    Naming(make_translator(*_TRANSFORMERS_RESNET)),
)
