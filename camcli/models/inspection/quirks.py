"""What measuring cannot decide about models: tables, each row with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

# classes, by module and name, whose layers are never the default, though they have a grid and all
# of the score's gradient; the layer in front is taken instead, and the reason is said of that
# choice
NEVER_DEFAULT: Mapping[str, str] = {
    # fully connected layers as convolutions, which have a grid for inputs above 224 pixels
    "timm.models.vgg.ConvMlp": "belongs to the classifier",
}


def why_never_default(kinds: Iterable[type]) -> str | None:
    """Says why a layer of these classes, or inside one, is never the default; else None."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    return next((NEVER_DEFAULT[name] for name in names if name in NEVER_DEFAULT), None)


# attributes that are switched off while hooks are attached, and who has them: checkpointed layers
# run again in the backward pass without hooks, or pass no gradient back
SWITCHES: Mapping[str, str] = {
    "grad_checkpointing": "timm, whose ResNet then runs the blocks of its stages, never the stages",
    "gradient_checkpointing": "transformers, where it also needs training mode, and its imitators",
    "use_checkpoint": "Swin Transformer's own code, and code that descends from it",
    "with_cp": "OpenMMLab",
    "memory_efficient": "torchvision's DenseNet",
    "device_ids": "DataParallel around a part of the model, which runs copies of it in threads",
}


# attention modules whose fused attention timm leaves off as not tested enough, though it is faster
# on a CPU; and the parts of them that fusing skips.  Fusing Visformer's and XCiT's is not faster
FUSABLE: Mapping[str, Sequence[str]] = {
    "WindowAttention": ("softmax", "attn_drop"),
}


# architectures that take no classifier: they have the same parameters for any number of classes.
# Models that only come without one, such as DINO's, are not listed
NO_CLASSIFIER: Mapping[str, str] = {
    r"(deepseek_vit|gemma4_vit|mobilenetv5|qwen3_vit)_.*_enc": (
        "the encoder of a language model, which takes image tokens from it"
    ),
}


def can_classify(architecture: str) -> bool:
    """Tells whether a timm architecture can classify with fitting weights."""
    return not any(re.fullmatch(pattern, architecture) for pattern in NO_CLASSIFIER)
