"""What measurement cannot decide about models: tables, each row with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

# classes in which no layer is the default although it has a grid and all of the score's gradient,
# by module and name; each reason is said with a view to the layer in front, which is taken instead
NEVER_DEFAULT: Mapping[str, str] = {
    # fully connected layers written as convolutions, with a grid on inputs above 224 px
    "timm.models.vgg.ConvMlp": "belongs to the classifier",
}


def why_never_default(kinds: Iterable[type]) -> str | None:
    """Says why a layer of and inside of these classes is no default target, or None."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    return next((NEVER_DEFAULT[name] for name in names if name in NEVER_DEFAULT), None)


# attributes of modules that are switched off while hooks are attached, and who has them:
# checkpointed layers run again in the backward pass without hooks, or return no gradient
SWITCHES: Mapping[str, str] = {
    "grad_checkpointing": "timm, whose ResNet then runs the blocks of its stages, never the stages",
    "gradient_checkpointing": "transformers, where it needs training mode too, and its imitators",
    "use_checkpoint": "Swin Transformer's own code, and what descends from it",
    "with_cp": "OpenMMLab",
    "memory_efficient": "torchvision's DenseNet",
    "device_ids": "DataParallel around a part of the model, which runs copies of it in threads",
}


# attention modules whose fused attention timm leaves off as not tested enough, though it is faster
# on a CPU; with the parts of them that it skips.  Visformer's and XCiT's are no faster
FUSABLE: Mapping[str, Sequence[str]] = {
    "WindowAttention": ("softmax", "attn_drop"),
}


# architectures that take no classifier: with any number of classes they have the same parameters.
# What merely comes without one, as DINO's models do, is not among them
NO_CLASSIFIER: Mapping[str, str] = {
    r"(deepseek_vit|gemma4_vit|mobilenetv5|qwen3_vit)_.*_enc": (
        "the encoder of a language model, which takes image tokens from it"
    ),
}


def can_classify(architecture: str) -> bool:
    """Tells whether a timm architecture can classify, with the weights that fit."""
    return not any(re.fullmatch(pattern, architecture) for pattern in NO_CLASSIFIER)
