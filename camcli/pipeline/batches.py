"""Pictures -> batches -> explanations: what a person in Python gets, and what a run is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from camcli.config import from_keywords
from camcli.engine.clock import Clock
from camcli.engine.run import Answer, answer, warn_of
from camcli.errors import UnknownName, UsageError
from camcli.media.geometry import view as view_of
from camcli.media.read import picture_from
from camcli.models.load import Classifier
from camcli.models.model_lock import call_on_model
from camcli.pipeline.batch_results import Told
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.plan import Plan, plan
from camcli.records import Picture, View

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
    todo = plan(classifier, checked)
    warn_of(todo.doubts.values())
    items = [inputs] if _is_one_picture(inputs) else inputs
    return (
        explanation
        for group in batched(items, todo.batch_size)
        for explanations in explain_batch([prepared(picture_from(i), todo) for i in group], todo)
        for explanation in explanations
    )


def _is_one_picture(value: Any) -> bool:
    if isinstance(value, str | Path | Picture) or not isinstance(value, Iterable):
        return True
    # an array or a tensor of several pictures has four dimensions, a list has none
    return getattr(value, "ndim", 4) <= 3


@dataclass(frozen=True)
class Prepared:
    """A picture, what the network sees of it, and the category that a list names for it."""

    picture: Picture
    view: View
    category: int | None = None


def prepared(picture: Picture, todo: Plan) -> Prepared:
    """Makes a picture ready for the network; raises UnknownName for its category."""
    category = todo.category_named(picture.source.category if picture.source else "")
    return Prepared(picture, view_of(picture, todo.classifier.preprocessing), category)


def explain_batch(batch: Sequence[Prepared], todo: Plan) -> Iterator[list[Explanation]]:
    """Explains some pictures in one pass, which is begun at once; a list for each picture.

    A GPU is not waited for until the first of them is asked for.
    """
    inputs = _stacked([p.view.inputs for p in batch], todo.classifier.device)
    choice = todo.choice([p.category for p in batch])
    clock = Clock(todo.classifier.device)
    module = todo.classifier.module
    # between batches, other threads have their turn
    with call_on_model(module):
        found = answer(module, inputs, choice, todo.request, todo.packings)
    clock.stop()
    return _of_pictures(batch, found, clock, todo)


def _of_pictures(
    batch: Sequence[Prepared], found: Answer, clock: Clock, todo: Plan
) -> Iterator[list[Explanation]]:
    there = found if todo.classifier.device.type == "cpu" else found.fetched()
    told = Told(there, todo, clock.seconds / len(batch))
    for row, p in enumerate(batch):
        yield list(told.of(p.picture, p.view, row))


def _stacked(inputs: Sequence[Tensor], device: torch.device) -> Tensor:
    """Lays inputs [3 H W] together on the device.  -> [b 3 H W]"""
    # channels last, as views are and networks want them: nothing is moved around
    views = [one.permute(1, 2, 0) for one in inputs]
    if device.type != "cuda":
        return torch.stack(views).permute(0, 3, 1, 2)
    # pinned memory is fetched by the GPU itself, while the CPU goes on
    like = views[0]
    pinned = torch.empty(len(views), *like.shape, dtype=like.dtype, pin_memory=True)
    together = torch.stack(views, out=pinned).permute(0, 3, 1, 2)
    return together.to(device, non_blocking=True)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Groups items, at most `size` together."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
