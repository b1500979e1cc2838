"""What measurement cannot decide about layers: first-match tables, each row with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
