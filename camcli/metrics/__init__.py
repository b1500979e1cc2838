"""Pure tensor functions that say how good maps are, one noun a file; importing fills the registry.

A metric takes several maps of one picture, at the picture's size, and gives a value for each of
them.  Whatever it needs besides is named in `camcli.registry.METRIC_INPUTS`.
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
