"""What a person in Python gets: pictures of any kind in, their explanations out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from camcli.config import from_keywords
from camcli.engine.layer_selection import warn_doubts
from camcli.errors import UnknownName, UsageError
from camcli.media.pictures.read import make_picture
from camcli.models.load import Classifier
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.plan import make_plan
from camcli.pipeline.stages import explain_batch, prepare
from camcli.records import Picture

Item = TypeVar("Item")

# the others would be passed over in silence
EXPLAINING = (
    "target_layers", "layer_fusion", "vit_like", "num_extra_tokens", "target_category", "top_k",
    "threshold", "target", "contrast", "contrast_strength", "set", "aug_smooth", "eigen_smooth",
    "noise_smooth", "noise_sigma", "seed", "batch_size", "precision",
)  # fmt: skip
NOT_EXPLAINING = (
    "What loads a model (device, fit, ...) goes to load_model, what draws (alpha, colormap) to "
    "overlay of an explanation."
)


def explain(
    classifier: Classifier, inputs: Any, method: str | Sequence[str] = "gradcam", **options: Any
) -> Iterator[Explanation]:
    """Explains pictures: paths, PIL pictures, arrays [h w 3] or tensors [3 h w], one or many.

    Options are those of the command line that say what is explained (`top_k=2`,
    `target_category=["tabby"]`, ...).  A model that takes more than pictures goes to `heatmaps`.
    Raises CamvizError, ImageError for an unreadable picture.
    """
    for name in options:
        if name not in EXPLAINING:
            raise UnknownName("option of explain", name, EXPLAINING, NOT_EXPLAINING)
    if isinstance(inputs, Mapping):
        raise UsageError(
            "explain takes pictures, and no dictionary of a model's inputs: camcli.heatmaps("
            "classifier.module, inputs) takes one, and passes on what stands beside the pictures."
        )
    checked = from_keywords(method=method, **options)
    plan = make_plan(classifier, checked)
    warn_doubts(plan.doubts.values())
    items = [inputs] if _is_one_picture(inputs) else inputs
    return (
        explanation
        for group in group_items(items, plan.batch_size)
        for explanations in explain_batch([prepare(make_picture(i), plan) for i in group], plan)
        for explanation in explanations
    )


def _is_one_picture(value: Any) -> bool:
    if isinstance(value, str | Path | Picture) or not isinstance(value, Iterable):
        return True
    # an array or a tensor of several pictures has four dimensions, a list has none
    return getattr(value, "ndim", 4) <= 3


def group_items(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Groups items, at most `size` together."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
