"""What the maps of a set say together: where each class's heat lies, and what is unlike it."""

from camcli.report.summary.class_summaries import ClassSummary, summarise_classes
from camcli.report.summary.clusters import HOW_TO_INSTALL, can_cluster
from camcli.report.summary.map_geometry import measure_placement, resample_heat, share_heat
from camcli.report.summary.tables import (
    SORT_KEYS,
    check_sort_key,
    round_map,
    sort_summaries,
    to_csv,
    to_object,
    to_row,
)

__all__ = [
    "HOW_TO_INSTALL",
    "SORT_KEYS",
    "ClassSummary",
    "can_cluster",
    "check_sort_key",
    "measure_placement",
    "resample_heat",
    "round_map",
    "share_heat",
    "sort_summaries",
    "summarise_classes",
    "to_csv",
    "to_object",
    "to_row",
]
