"""Puts the likeness to reference pictures in the place of a model's classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor, nn

from camcli.engine.answer_request import move_to_model
from camcli.errors import ModelError, UsageError
from camcli.keywords import check_keywords
from camcli.media.network_input import make_view
from camcli.media.pictures.read import PictureLike, make_picture
from camcli.media.sources.listing import is_video
from camcli.models.load import Classifier
from camcli.models.outputs.interpretation import declare_reading
from camcli.models.outputs.likeness import Comparison, embed, find_classifier_layer
from camcli.pipeline.picture_api import find_classifier
from camcli.records import Likeness, Source


@check_keywords()
def compare_with(
    classifier: Classifier | nn.Module,
    references: PictureLike | Sequence[PictureLike],
    likeness: Likeness = "cosine",
) -> Classifier:
    """Returns the model with reference pictures in the place of its classes.

    For a picture it puts out the likeness of its embedding to each reference's, a value a
    reference. An explanation shows what raises the likeness, and, below zero, what lowers it. The
    embedding is the input of the classifier at the model's end, or the output of a model without a
    classifier.

    Args:
        classifier: The model, of `load_model`; or any module, which is then loaded first.
        references: One picture or several: paths, PIL pictures, arrays [h w 3] or tensors [3 h w].
        likeness: How embeddings are compared: cosine, or the negative distance l1 or l2; default
            cosine.

    Returns:
        A Classifier whose labels are the names of the references' files. The module is the same.

    Raises:
        ImageError: A reference that cannot be read.
        UsageError: No reference, or an unknown likeness.
        ModelError: A model without an embedding.

    Example:
        >>> import camcli
        >>> model = camcli.compare_with(camcli.load_model(device="cpu"), "demo_images/coffee.png")
        >>> (e,) = camcli.explain(model, "demo_images/coffee.png")
        >>> e.label, round(e.record.value, 3)
        ('coffee.png', 1.0)
    """
    classifier = find_classifier(classifier, "compare_with")
    if likeness not in get_args(Likeness):
        raise UsageError(f"A likeness is one of {', '.join(get_args(Likeness))}, not {likeness!r}.")
    items: Sequence[PictureLike] = (
        references if isinstance(references, list | tuple) else (cast("PictureLike", references),)
    )
    if not items:
        raise UsageError("There is nothing to compare with: name one or more reference pictures.")
    if is_film := [i for i in items if isinstance(i, Source) and is_video(i)]:
        raise UsageError(f"{str(is_film[0])!r} is a video, and references are pictures.")
    pictures = [make_picture(item) for item in items]
    inputs = torch.stack([make_view(p, classifier.preprocessing).inputs for p in pictures])
    layer = _find_layer(classifier, inputs[:1])
    # one at a time, so that a reference does not depend on the others
    embeddings = torch.cat([_embed(classifier, one, layer) for one in inputs[:, None]])
    if likeness == "cosine" and not bool((embeddings.norm(dim=1) > 0).all()):
        raise ModelError(
            f"The embedding of a reference by {classifier.name!r} is all zeros, and an angle to it "
            "is not defined: take another reference, or the likeness l2."
        )
    comparison = Comparison(embeddings, likeness, layer)
    reading = replace(declare_reading("value", classifier.output_key), comparison=comparison)
    return replace(
        classifier,
        reading=reading,
        labels=_name_references(items),
        num_classes=len(items),
    )


def _find_layer(classifier: Classifier, inputs: Tensor) -> str:
    if comparison := classifier.reading.comparison:
        return comparison.layer
    if not classifier.num_classes:
        return ""
    module = classifier.module
    return find_classifier_layer(module, move_to_model(module, inputs), classifier.num_classes)


def _embed(classifier: Classifier, inputs: Tensor, layer: str) -> Tensor:
    moved = move_to_model(classifier.module, inputs)
    return embed(classifier.module, moved, layer, classifier.output_key).cpu()


def _name_references(items: Sequence[PictureLike]) -> tuple[str, ...]:
    """Returns the references' file names, with the folder if file names are the same."""
    paths = [_find_path(item) for item in items]
    names = [path.name if path else f"reference {i}" for i, path in enumerate(paths)]
    return tuple(
        str(path) if path and names.count(name) > 1 else name
        for path, name in zip(paths, names, strict=True)
    )


def _find_path(item: PictureLike) -> Path | None:
    if isinstance(item, Source):
        return item.path
    return Path(item) if isinstance(item, str | os.PathLike) else None
