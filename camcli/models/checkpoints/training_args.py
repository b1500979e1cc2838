"""Reads the architecture, its arguments and its input, as training scripts save them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from camcli.errors import ConfigError, UnknownName
from camcli.models.preprocessing import change_preprocessing
from camcli.records import Preprocessing

# where scripts keep their arguments, besides the file's own top
PLACES = ("args", "hyper_parameters", "hparams", "config", "cfg")
# under which of their names the architecture stands
NAMES = ("arch", "architecture", "model_name", "model", "backbone")
# a name in a library and nothing else: a file must not have code of the user's run
LIBRARY_NAME = re.compile(r"(?:(?:timm|torchvision)/)?[\w-]+(?:\.[\w-]+)?")
# timm's own repositories bear the names of its models, which need no look at the hub
OWN_REPOSITORY = re.compile(r"^hf[-_]hub:timm/")

PREPROCESSING = ("mean", "std", "interpolation", "crop_pct")
# arguments of timm.create_model that say nothing about the network
NOT_THE_NETWORKS = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
    "scriptable", "features_only",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingArgs:
    """Arguments of the model's constructor and changes of its preprocessing, as it was trained."""

    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


def find_architecture(content: Mapping[Any, Any]) -> str | None:
    """Returns the first name of a model of a library that a checkpoint's content gives."""
    for place in (content, *(_read_arguments(look_up(content, place)) for place in PLACES)):
        for key in NAMES:
            given = look_up(place, key)
            name = OWN_REPOSITORY.sub("", given) if isinstance(given, str) else ""
            if LIBRARY_NAME.fullmatch(name):
                return name
    return None


def read_training_args(content: Mapping[Any, Any]) -> TrainingArgs:
    """Reads the arguments of timm's training script, and of those that descend from it."""
    args = _read_arguments(look_up(content, "args"))
    if "crop_pct" not in args:
        return TrainingArgs()  # other scripts mean other things by the same names
    given = look_up(args, "model_kwargs")
    kwargs = {
        "img_size": _read_input_size(args),
        "global_pool": look_up(args, "gp"),
        "bn_eps": look_up(args, "bn_eps"),
        **(dict(dict.items(given)) if isinstance(given, dict) else {}),
    }
    return TrainingArgs(
        {k: v for k, v in kwargs.items() if v is not None and k not in NOT_THE_NETWORKS},
        {key: args[key] for key in PREPROCESSING if look_up(args, key) is not None},
    )


def apply_training_args(preprocessing: Preprocessing, settings: TrainingArgs) -> Preprocessing:
    """Applies the settings, without those that cannot be applied, such as random interpolation."""
    for key, value in settings.preprocessing.items():
        with suppress(ConfigError, UnknownName):
            preprocessing = change_preprocessing(preprocessing, None, {key: value})
    return preprocessing


def look_up(mapping: Mapping[Any, Any], key: str) -> Any:
    """Looks a key up in what a file holds.

    Not by the mapping's own `get`: a pickle can put anything in place of an OrderedDict's methods.
    """
    return mapping[key] if key in mapping else None  # noqa: SIM401


def _read_arguments(place: object) -> Mapping[Any, Any]:
    kept: Mapping[Any, Any] = (
        place if isinstance(place, Mapping) else getattr(place, "__dict__", {})
    )
    return kept


def _read_input_size(args: Mapping[Any, Any]) -> tuple[int, ...] | None:
    size = look_up(args, "input_size")
    size = look_up(args, "img_size") if size is None else size
    edges = tuple(size)[-2:] if isinstance(size, list | tuple) else (size, size)
    if len(edges) != 2 or not all(isinstance(edge, int) and edge > 0 for edge in edges):
        return None
    return edges
