"""A model that a person has at hand in Python: what its library and a trial say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from camcli.models.model_lookup import TRANSFORMERS, import_builder
from camcli.models.model_spec import BuiltModel, ModelSpec
from camcli.models.own_code import from_python
from camcli.models.preprocessing import fit_view
from camcli.models.state import check_hookable
from camcli.records import Preprocessing


def build(module: nn.Module, request: ModelSpec, view: Preprocessing | None) -> BuiltModel:
    """Runs a module once, on zeros; it is neither moved nor changed.

    `view` is its preprocessing, where the user has it; a module of timm says its own.  Raises
    ModelError where the module does not run, or hooks cannot look inside.
    """
    module = check_hookable(module)
    own = view or _find_preprocessing(module, request)
    if own:
        request = replace(request, preprocessing={"mean": own.mean, **request.preprocessing})
    built = from_python.describe_module(module, request, own)
    labels = _find_labels(module, built.num_classes)
    if own:
        return replace(built, labels=labels, preprocessing=fit_view(own, built.in_chans))
    what, _ = from_python.say_assumed(request)
    assumed = (f"{what}; say it with preprocessing= and img_size=",) if what else ()
    return replace(built, labels=labels, warnings=(*assumed, *built.warnings))


def _find_preprocessing(module: nn.Module, request: ModelSpec) -> Preprocessing | None:
    if not _is_of_timm(module):
        return None
    view: Preprocessing = import_builder("timm").read_preprocessing(module, request)
    return view


def _find_labels(module: Any, num_classes: int) -> tuple[str, ...] | None:
    """Returns the names of the classes, where the module's library keeps them with it."""
    labels: tuple[str, ...] | None = None
    if _is_of_timm(module):
        labels = import_builder("timm").find_timm_labels(module.pretrained_cfg, num_classes)
    elif _is_of("transformers", module) and num_classes:
        labels = import_builder(TRANSFORMERS).read_labels(module.config, num_classes)
    return labels


def _is_of_timm(module: Any) -> bool:
    return _is_of("timm", module) and isinstance(getattr(module, "pretrained_cfg", None), Mapping)


def _is_of(library: str, module: nn.Module) -> bool:
    return any(base.__module__.partition(".")[0] == library for base in type(module).__mro__)
