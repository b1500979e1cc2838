"""Builds the embedded classifier as it was asked for."""

from __future__ import annotations

from torch import nn

from camcli.errors import ModelError
from camcli.models import embedded
from camcli.models.embedded.network import EfficientNetLite0
from camcli.models.model_spec import BuiltModel, ModelSpec, warn_of_new_head


def build(request: ModelSpec) -> BuiltModel:
    """Builds the network with its own weights or random ones; raises ModelError."""
    if request.model_kwargs:
        raise ModelError(f"The embedded model takes no model_kwargs: {dict(request.model_kwargs)}.")
    labels = embedded.load_labels()
    classes = len(labels) if request.num_classes is None else request.num_classes
    if classes < 1:
        raise ModelError("The embedded model needs at least one class.")
    module = embedded.load_embedded()[0] if request.pretrained else EfficientNetLite0(classes)
    new_head = request.pretrained and classes != len(labels)
    if new_head:
        module._fc = nn.Linear(module._fc.in_features, classes)
    size = request.img_size or (embedded.SIZE, embedded.SIZE)
    return BuiltModel(
        module=module,
        preprocessing=embedded.make_preprocessing(size),
        num_classes=classes,
        weights="embedded" if request.pretrained else "random",
        classifiers=("_fc",),
        labels=labels,
        warnings=(warn_of_new_head(classes),) if new_head else (),
    )
