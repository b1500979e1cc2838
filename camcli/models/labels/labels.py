"""Names of a model's classes, and the class that a user's word means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from camcli.errors import UnknownName, UsageError
from camcli.models.labels.class_map_entries import MOST_DIGITS
from camcli.models.labels.class_maps import read_class_map

Labels = tuple[str, ...]

NO_YES = ("no", "yes")


def choose_labels(
    own: Labels | None, num_classes: int, class_map: Path | None, *, is_value: bool = False
) -> tuple[Labels | None, tuple[str, ...]]:
    """Returns a class map's names, else the model's own, or None where their number does not fit.

    Behind them stands what is to be said of the class map.  A single logit is a no and a yes, a
    value is neither.  Raises ConfigError for a class map that cannot be used.
    """
    if num_classes == 1 and not is_value:
        own, num_classes = NO_YES, 2
    if class_map is not None:
        names, said = read_class_map(class_map, num_classes)
        return tuple(map(_join_lines, names)), said
    fits = own is not None and len(own) == num_classes
    return (tuple(map(_join_lines, own)) if own and fits else None), ()


def _join_lines(name: str) -> str:
    """Puts a space in the place of line ends."""
    return name if name.isprintable() else " ".join(name.split())


def label_name(labels: Labels | None, index: int) -> str:
    """Returns a class's name, or `class 3` where it has none."""
    return (labels[index] if labels else "") or f"class {index}"


def find_timm_labels(pretrained_cfg: Mapping[str, Any], num_classes: int) -> Labels | None:
    """Returns the names in a timm configuration, else those of the ImageNet set of that size."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    names = pretrained_cfg.get("label_names")
    if names:
        described = pretrained_cfg.get("label_descriptions") or {}
        if isinstance(names, Mapping):
            by_index = {int(index): name for index, name in names.items()}
            names = [by_index.get(index, "") for index in range(num_classes)]
        return tuple(str(described.get(name, name)) for name in names)
    subset = infer_imagenet_subset({"num_classes": num_classes})
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else None


def find_category(text: str, labels: Labels | None, num_classes: int) -> int:
    """Returns the class that an index, a name, one of its synonyms or a unique prefix means.

    Raises UnknownName, or UsageError for an index out of range and for a word with several
    meanings.
    """
    if re.fullmatch(rf"\s*[-+]?\d{{1,{MOST_DIGITS}}}\s*", text):
        index = int(text)
        if not 0 <= index < num_classes:
            raise UsageError(f"There is no category {index}: {_describe_range(num_classes)}.")
        return index
    if not labels:
        hint = (
            f"Its classes have no names: {_describe_range(num_classes)}, or give --class-map FILE."
        )
        raise UnknownName("category", text, (), hint)
    wanted = _simplify(text)
    for matches in _MATCHES if wanted else ():
        indices = [index for index, name in enumerate(labels) if matches(name, wanted)]
        if len(indices) == 1:
            return indices[0]
        if indices:
            raise UsageError(
                f"Category {text!r} could be {_list_some(indices, labels)}: give the index."
            )
    synonyms = (synonym.strip() for name in labels for synonym in name.split(","))
    raise UnknownName("category", text, synonyms, f"Or an index: {_describe_range(num_classes)}.")


def _simplify(text: str) -> str:
    return " ".join(text.replace("_", " ").split()).casefold()


def _split_synonyms(name: str) -> Iterator[str]:
    return (_simplify(synonym) for synonym in name.split(","))


# the first that finds anything decides, so that `lion` is the lion although `lionfish` begins so
_MATCHES: tuple[Callable[[str, str], bool], ...] = (
    lambda name, wanted: _simplify(name) == wanted,
    lambda name, wanted: wanted in _split_synonyms(name),
    lambda name, wanted: _simplify(name).startswith(wanted),
    lambda name, wanted: any(synonym.startswith(wanted) for synonym in _split_synonyms(name)),
)


def _describe_range(num_classes: int) -> str:
    return f"the model has the classes 0 to {num_classes - 1}"


def _list_some(indices: Iterable[int], labels: Labels, most: int = 5) -> str:
    named = [f"{index} {labels[index]!r}" for index in indices]
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more
