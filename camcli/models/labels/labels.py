"""Chooses the names of a model's classes: a class map's, a checkpoint's, or its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from camcli.errors import ConfigError, UsageError
from camcli.models.labels.class_map_entries import ClassMap
from camcli.models.labels.class_map_json import read_data
from camcli.models.labels.class_maps import read_class_map

Labels = tuple[str, ...]

NO_YES = ("no", "yes")
# a class's name in ImageNet's folders
SYNSET = re.compile(r"n\d{8}")


def choose_labels(
    own: Labels | None,
    num_classes: int,
    class_map: Path | None,
    *,
    stored: Mapping[str, Any] | None = None,
    is_value: bool = False,
) -> tuple[Labels | None, tuple[str, ...]]:
    """Returns a class map's names, else those stored with the weights, else the model's own.

    There are none where their number does not fit.  Behind them stands what is to be said of the
    class map, or of what is stored.  A single logit is a no and a yes, a value is neither.  Raises
    ConfigError for a class map that cannot be used.
    """
    if num_classes == 1 and not is_value:
        own, num_classes = NO_YES, 2
    if class_map is not None:
        names, notes = read_class_map(class_map, num_classes)
        return tuple(map(_join_lines, names)), notes
    fitting = tuple(map(_join_lines, own)) if own and len(own) == num_classes else None
    if not stored:
        return fitting, ()
    keys = ", ".join(stored)
    named = read_stored_names(stored, num_classes)
    if named is None:
        said = (
            f"What the checkpoint says of its classes ({keys}) does not name each of the "
            f"{num_classes} in one order, and is not used: name them with --class-map."
        )
        return fitting, (said,)
    # a folder of ImageNet is named by synsets, which the model's own names say in words
    if fitting and all(SYNSET.fullmatch(name) for name in named):
        return fitting, ()
    said = f"The classes have the checkpoint's names ({keys}); --class-map gives others."
    return tuple(map(_join_lines, named)), (said,)


def are_names(stored: Mapping[str, Any], num_classes: int) -> bool:
    """Tells whether what stands beside weights names the classes, a no and a yes of one logit."""
    return read_stored_names(stored, 2 if num_classes == 1 else num_classes) is not None


def read_stored_names(stored: Mapping[str, Any], num_classes: int) -> Labels | None:
    """Reads names that stand beside weights; None unless they name each class, in one order."""
    known = ClassMap(Path(), num_classes)
    try:
        names, _ = read_data(stored, known)
    except ConfigError:
        return None
    return names if all(names) else None


def read_names(
    given: Iterable[str] | Mapping[int, str], num_classes: int, *, is_value: bool = False
) -> Labels:
    """Reads the names that a person has at hand: one for each class, or some by index.

    A single logit is a no and a yes.  Raises UsageError.
    """
    count = 2 if num_classes == 1 and not is_value else num_classes
    if isinstance(given, str | PathLike):
        raise UsageError(f"labels are names of classes; a file of them goes to class_map: {given}.")
    if isinstance(given, Mapping):
        wrong = [index for index in given if index not in range(count)]
        if wrong:
            raise UsageError(
                f"labels name the class {wrong[0]!r}: the indices are 0 to {count - 1}."
            )
        names = [given.get(index, "") for index in range(count)]
    else:
        names = list(given)
    if len(names) != count:
        raise UsageError(f"labels are {len(names)} names, and the model has {count} classes.")
    if odd := [name for name in names if not isinstance(name, str)]:
        raise UsageError(f"labels are names, and {odd[0]!r} is a {type(odd[0]).__name__}.")
    return tuple(_join_lines(str(name)) for name in names)


def _join_lines(name: str) -> str:
    """Puts a space in the place of line ends."""
    return name if name.isprintable() else " ".join(name.split())


def label_name(labels: Labels | None, index: int) -> str:
    """Returns a class's name, or `class 3` where it has none."""
    return (labels[index] if labels else "") or f"class {index}"


def shorten_label(label: str) -> str:
    """Returns a label's first synonym: `tabby` of `tabby, tabby cat`."""
    return label.partition(",")[0].strip() or label


def find_timm_labels(pretrained_cfg: Mapping[str, Any], num_classes: int) -> Labels | None:
    """Returns the names in a timm configuration, else those of the ImageNet set of that size."""
    from timm.data.imagenet_info import infer_imagenet_subset

    names = pretrained_cfg.get("label_names")
    if names:
        described = pretrained_cfg.get("label_descriptions") or {}
        if isinstance(names, Mapping):
            by_index = {int(index): name for index, name in names.items()}
            names = [by_index.get(index, "") for index in range(num_classes)]
        return tuple(str(described.get(name, name)) for name in names)
    subset = infer_imagenet_subset({"num_classes": num_classes})
    return _read_imagenet_labels(subset) if subset else None


@cache
def _read_imagenet_labels(subset: str) -> Labels:
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(subset).label_descriptions())
