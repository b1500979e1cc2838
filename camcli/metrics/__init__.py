"""Pure tensor functions that measure how good maps are; importing this room fills the registry.

A metric takes several maps of one picture, at the picture's size, and returns a value for each
map.  `camcli.registry.METRIC_INPUTS` names everything else that a metric can ask for.
"""

from camcli.metrics.faithfulness import (
    adcc,
    arcc,
    coherency,
    complexity,
    confidence,
    deletion,
    infidelity,
    insertion,
    road,
    saco,
    sensitivity,
)
from camcli.metrics.localization import (
    box_iou,
    grid_pointing_game,
    heat_inside,
    max_box_accuracy,
    pixel_average_precision,
    pointing_game,
)
from camcli.metrics.sanity import equivariance

__all__ = [
    "adcc",
    "arcc",
    "box_iou",
    "coherency",
    "complexity",
    "confidence",
    "deletion",
    "equivariance",
    "grid_pointing_game",
    "heat_inside",
    "infidelity",
    "insertion",
    "max_box_accuracy",
    "pixel_average_precision",
    "pointing_game",
    "road",
    "saco",
    "sensitivity",
]
