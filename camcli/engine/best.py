"""The choices of method `best`: methods, layers and their combination for each kind of network.

Each row holds the measurements on trained networks and photos with boxes that the choice rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from camcli.engine.layer_selection import find_default_layer
from camcli.errors import UsageError
from camcli.method_terms import BEST
from camcli.methods.combine import CombinedMethod
from camcli.models.inspection.anatomy import Anatomy, Kind, measure_anatomy
from camcli.models.outputs.interpretation import OutputReading, apply_output_reading
from camcli.models.state import locks_model
from camcli.records import BestFor, Combination

Place = Literal["last", "earlier", "none"]
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """Means over cases in per cent, with 95 % intervals (mean, low, high), beside those of GradCAM.

    `peak`: the map's maximum lies in a box.  `heat`: the share of heat inside the boxes.
    `pixel_ap`: average precision of the pixels against the boxes.  `box`: the box around the
    largest region above 20 % of the maximum reaches an IoU of 0.5.  The earlier layer on
    Tiny-ImageNet's photos was `blocks.4` of timm's Lite0, which is as good as the one that is
    chosen now.
    """

    on: str
    cases: int
    peak: Interval
    heat: Interval
    pixel_ap: Interval
    box: Interval
    gradcam: tuple[float, float, float, float]


@dataclass(frozen=True)
class BestRow:
    """The best choice for a kind of network and some aims: methods at layers, combined."""

    kind: Kind
    aims: tuple[BestFor, ...]
    parts: tuple[tuple[str, Place], ...]
    combination: Combination
    measured: tuple[Measured, ...]


LITE0_COCO = "EfficientNet-Lite0 on coco128's photos"
LITE0_TINY = "EfficientNet-Lite0 on small objects of Tiny-ImageNet, enlarged"
LITE1_COCO = "EfficientNet-Lite1 on coco128's photos"
LITE2_COCO = "EfficientNet-Lite2 on coco128's photos"
RESNET_TINY = "a ResNet-18 of stride 8 on small objects of Tiny-ImageNet"
VIT_TINY = "a ViT of 6 blocks on small objects of Tiny-ImageNet"
POOLED_TINY = "that ViT's first 5 blocks under a linear head on small objects of Tiny-ImageNet"

LITE0_COCO_GRADCAM = (50.0, 28.9, 46.1, 15.6)
LITE0_TINY_GRADCAM = (53.3, 29.5, 53.5, 3.8)
LITE1_COCO_GRADCAM = (46.8, 31.8, 44.7, 17.0)
LITE2_COCO_GRADCAM = (42.7, 34.8, 45.0, 22.5)
RESNET_TINY_GRADCAM = (62.4, 28.6, 51.9, 15.6)
VIT_TINY_GRADCAM = (19.3, 15.9, 19.6, 4.1)
POOLED_TINY_GRADCAM = (19.4, 12.6, 17.7, 3.0)

TABLE: tuple[BestRow, ...] = (
    BestRow(
        "convolutional",
        ("balanced", "extent"),
        (("gradcamelementwise", "earlier"), ("hirescam", "last")),
        "product",
        (
            Measured(
                LITE0_COCO,
                90,
                (63.3, 54, 73),
                (39.4, 32, 47),
                (52.7, 45, 61),
                (30.0, 21, 40),
                LITE0_COCO_GRADCAM,
            ),
            Measured(
                LITE0_TINY,
                210,
                (69.0, 62, 75),
                (44.7, 41, 49),
                (60.9, 56, 65),
                (41.9, 35, 49),
                LITE0_TINY_GRADCAM,
            ),
            Measured(
                LITE1_COCO,
                94,
                (67.0, 58, 76),
                (42.3, 35, 50),
                (52.8, 45, 60),
                (27.7, 19, 37),
                LITE1_COCO_GRADCAM,
            ),
            Measured(
                LITE2_COCO,
                89,
                (61.8, 51, 72),
                (44.1, 36, 52),
                (49.1, 42, 56),
                (21.3, 13, 31),
                LITE2_COCO_GRADCAM,
            ),
            Measured(
                RESNET_TINY,
                250,
                (65.2, 59, 71),
                (45.4, 42, 49),
                (54.9, 51, 59),
                (32.4, 27, 38),
                RESNET_TINY_GRADCAM,
            ),
        ),
    ),
    BestRow(
        "convolutional",
        ("evidence",),
        (("gradcamelementwise", "earlier"), ("hirescam", "earlier"), ("hirescam", "last")),
        "product",
        (
            Measured(
                LITE0_COCO,
                90,
                (64.4, 55, 75),
                (47.6, 40, 56),
                (44.5, 38, 52),
                (8.9, 3, 16),
                LITE0_COCO_GRADCAM,
            ),
            Measured(
                LITE0_TINY,
                210,
                (65.2, 59, 71),
                (54.6, 50, 59),
                (48.6, 45, 52),
                (7.6, 4, 11),
                LITE0_TINY_GRADCAM,
            ),
            Measured(
                LITE1_COCO,
                94,
                (64.9, 55, 74),
                (49.4, 42, 57),
                (42.5, 37, 48),
                (0.0, 0, 0),
                LITE1_COCO_GRADCAM,
            ),
            Measured(
                LITE2_COCO,
                89,
                (62.9, 52, 73),
                (50.6, 42, 59),
                (41.7, 36, 48),
                (1.1, 0, 3),
                LITE2_COCO_GRADCAM,
            ),
            Measured(
                RESNET_TINY,
                250,
                (65.2, 59, 71),
                (54.5, 50, 59),
                (51.1, 47, 55),
                (10.8, 7, 14),
                RESNET_TINY_GRADCAM,
            ),
        ),
    ),
    BestRow(
        "class token",
        ("balanced", "evidence"),
        (("genericattention", "none"), ("gradcamelementwise", "earlier")),
        "product",
        (
            Measured(
                VIT_TINY,
                295,
                (50.8, 45, 56),
                (37.6, 34, 41),
                (42.1, 39, 45),
                (9.2, 6, 13),
                VIT_TINY_GRADCAM,
            ),
        ),
    ),
    BestRow(
        "class token",
        ("extent",),
        (("gradcamelementwise", "earlier"),),
        "mean",
        (
            Measured(
                VIT_TINY,
                295,
                (49.5, 44, 55),
                (26.4, 24, 29),
                (40.9, 38, 44),
                (16.6, 13, 21),
                VIT_TINY_GRADCAM,
            ),
        ),
    ),
    BestRow(
        "pooled tokens",
        ("balanced", "evidence"),
        (("genericattention", "none"), ("gradcamelementwise", "earlier")),
        "product",
        (
            Measured(
                POOLED_TINY,
                237,
                (48.9, 42, 56),
                (35.3, 31, 39),
                (40.5, 36, 44),
                (11.8, 8, 16),
                POOLED_TINY_GRADCAM,
            ),
        ),
    ),
    BestRow(
        "pooled tokens",
        ("extent",),
        (("gradcamelementwise", "earlier"),),
        "mean",
        (
            Measured(
                POOLED_TINY,
                237,
                (48.9, 43, 56),
                (25.5, 23, 28),
                (40.9, 37, 45),
                (17.3, 12, 22),
                POOLED_TINY_GRADCAM,
            ),
        ),
    ),
)

DESCRIBED: Mapping[Kind, str] = {
    "convolutional": "a convolutional network",
    "hierarchical": "a network of stages with attention",
    "class token": "a transformer with a class token",
    "pooled tokens": "a transformer whose tokens are pooled",
    "mixed tokens": "a network of tokens without readable attention",
}

# no trained network of these kinds was at hand: they take the rows of the kind they resemble most
RESEMBLES: Mapping[Kind, Kind] = {
    "hierarchical": "convolutional",  # stages whose grids halve, and a last grid that is pooled
    "mixed tokens": "convolutional",  # the score depends on every cell of the last grid
}


@dataclass(frozen=True)
class Recipe:
    """Methods, each with the layer that it looks at ("" for none), and how they are combined.

    `measured` holds the measurements of the choice; it is empty if this kind was not measured.
    """

    kind: Kind
    best_for: BestFor
    parts: tuple[tuple[str, str], ...]
    combination: Combination
    measured: tuple[Measured, ...]
    note: str = ""

    @property
    def combined(self) -> CombinedMethod:
        """The combination that is computed."""
        return CombinedMethod(BEST, self.parts, self.combination)

    @property
    def reason(self) -> str:
        """Why this was chosen, and on which data it was measured."""
        return f"{self.best_for}, for {DESCRIBED[self.kind]}; {self._evidence}"

    @property
    def _evidence(self) -> str:
        if not self.measured:
            return f"not measured here ({self.note})"
        more = len(self.measured) - 1
        return f"measured with {self.measured[0].on}" + (f" and {more} others" if more else "")

    def __str__(self) -> str:
        """The choice in a line: `gradcamelementwise@layer3 x hirescam@layer4`."""
        return str(self.combined)


@locks_model
def choose_best(
    module: nn.Module,
    inputs_shape: tuple[int, int, int],
    best_for: BestFor = "balanced",
    reading: OutputReading | None = None,
) -> Recipe:
    """Chooses methods, layers and their combination for a model and inputs (channels, H, W).

    A few passes of noise measure the kind of network and its layers, once for each model.  Raises
    UsageError for an unknown aim, and LayerError for a model without a target layer.

    >>> import timm
    >>> model = timm.create_model("test_resnet").eval()
    >>> print(choose_best(model, (3, 160, 160)))
    gradcamelementwise@layer3 x hirescam@layer4
    """
    if best_for not in get_args(BestFor):
        allowed = ", ".join(get_args(BestFor))
        raise UsageError(f"Method best is best for one of {allowed}, not {best_for!r}.")
    default = find_default_layer(module, inputs_shape, reading)
    with apply_output_reading(module, reading or OutputReading()):
        result = measure_anatomy(module, inputs_shape, default)
    kind = RESEMBLES.get(result.kind, result.kind)
    (row,) = (row for row in TABLE if row.kind == kind and best_for in row.aims)
    parts = tuple(
        (method, _choose_layer(result, place))
        for method, place in row.parts
        if place != "earlier" or result.earlier
    )
    is_measured = kind == result.kind and len(parts) == len(row.parts)
    measured = row.measured if is_measured else ()
    return Recipe(
        result.kind, best_for, parts, row.combination, measured, _explain_choice(result, kind)
    )


def _choose_layer(result: Anatomy, place: Place) -> str:
    return {"last": result.last, "earlier": result.earlier or "", "none": ""}[place]


def _explain_choice(result: Anatomy, kind: Kind) -> str:
    notes = []
    if kind != result.kind:
        notes.append(f"measured for {kind} networks, not for {result.kind}")
    if not result.earlier:
        notes.append("no earlier layer was found")
    return "; ".join(notes)
