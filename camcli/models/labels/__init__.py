"""Names of classes: a model's own, and those in files as people have them."""

from camcli.models.labels.category_lookup import find_category
from camcli.models.labels.label_matching import LabelMatches, match_labels, read_meanings
from camcli.models.labels.labels import (
    NO_YES,
    Labels,
    are_names,
    choose_labels,
    find_timm_labels,
    label_name,
    read_names,
    shorten_label,
)

__all__ = [
    "NO_YES",
    "LabelMatches",
    "Labels",
    "are_names",
    "choose_labels",
    "find_category",
    "find_timm_labels",
    "label_name",
    "match_labels",
    "read_meanings",
    "read_names",
    "shorten_label",
]
