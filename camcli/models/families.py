"""What measurement cannot decide about models: tables, each row with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

# "class": the layer's own class; "inside": the class of a module around it; "name": its full name
Subject = Literal["class", "inside", "name"]


@dataclass(frozen=True)
class Row:
    """A pattern that the whole of a class or layer name matches, and what follows from it."""

    subject: Subject
    pattern: str
    reason: str


# layers that have a grid and all of the score's gradient, and are not meant all the same; the
# reasons are said with a view to the layer in front, which is taken instead
NEVER_DEFAULT: tuple[Row, ...] = (
    # a class token's last queries, keys and values still see every patch, but only the norm in
    # front holds the features; blocks around attention (LayerScaleBlockClassAttn) are none
    Row("inside", r"(?!.*(Block|Layer)).*(Attention|Attn).*", "lies inside an attention module"),
    Row("class", r"Identity|Drop(out|Path|Block).*", "only hands it on"),
    Row("class", r".*(Flatten|Permute|Rearrange).*", "only turns it"),
    Row("class", r".*Pool.*", "pools it"),
    # queries fused with the MLP, and classifiers of single tokens, stand outside attention modules
    Row("class", r".*Linear.*", "projects its tokens one by one"),
    # VGG's fully connected layers are convolutions in timm, with a grid on inputs above 224 px
    Row("name", r"(.*\.)?pre_logits(\..*)?", "belongs to the classifier"),
)


def why_never_default(name: str, classes: Sequence[str]) -> str | None:
    """Says why a layer is no default target, or None; `classes` from the outermost to its own."""
    subjects: dict[Subject, Sequence[str]] = {
        "class": classes[-1:],
        "inside": classes[:-1],
        "name": (name,),
    }
    for row in NEVER_DEFAULT:
        if any(re.fullmatch(row.pattern, subject) for subject in subjects[row.subject]):
            return row.reason
    return None


# attributes of modules that are off while a model is watched, and who has them: checkpointed layers
# run again in the backward pass, when no hook is there any more, or hand no gradient back
SWITCHES: Mapping[str, str] = {
    "grad_checkpointing": "timm, whose ResNet then runs the blocks of its stages, never the stages",
    "gradient_checkpointing": "transformers, where it needs training mode too, and its imitators",
    "use_checkpoint": "Swin Transformer's own code, and what descends from it",
    "with_cp": "OpenMMLab",
    "memory_efficient": "torchvision's DenseNet",
    "device_ids": "DataParallel around a part of the model, which runs copies of it in threads",
}


# attention modules whose fused attention timm leaves off, as not tested enough, and which is faster
# on a CPU; with the parts of them that it passes by.  Of the others Visformer's takes as long as it
# is written (0.93 to 0.99), and XCiT's longer (1.01 to 1.08)
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


def takes_classifier(architecture: str) -> bool:
    """Tells whether a timm architecture can classify, with the weights that fit."""
    return not any(re.fullmatch(pattern, architecture) for pattern in NO_CLASSIFIER)
