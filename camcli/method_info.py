"""Lists what is said of each method without running it; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GRADIENT = "1 forward, 1 backward"
FORWARD = "1 forward"
TRANSFORMERS = "transformers whose attention can be read"


@dataclass(frozen=True)
class MethodInfo:
    """What a method shows, what it costs for each picture and class, where it works, its paper.

    `asks_class`: its map is another one for another class; `gradients`: it needs a backward pass;
    `options`: their defaults, whose types are those of the options.
    """

    shows: str
    cost: str
    paper: str
    where: str = "any model"
    asks_class: bool = True
    gradients: bool = True
    options: Mapping[str, int | float | str] = field(default_factory=dict)


# a test holds it against the registry
METHOD_INFO: Mapping[str, MethodInfo] = {
    "gradcam": MethodInfo(
        "gradients averaged over the map weight the channels", GRADIENT, "arXiv:1610.02391"
    ),
    "gradcam++": MethodInfo(
        "positive gradients, weighted by their higher derivatives", GRADIENT, "arXiv:1710.11063"
    ),
    "xgradcam": MethodInfo(
        "gradients weighted by the normalised activations", GRADIENT, "arXiv:2008.02312"
    ),
    "layercam": MethodInfo(
        "positive gradients weight each place by itself",
        GRADIENT,
        "doi:10.1109/TIP.2021.3089943",
    ),
    "hirescam": MethodInfo(
        "gradients weight each place by itself, signed", GRADIENT, "arXiv:2011.08891"
    ),
    "gradcamelementwise": MethodInfo(
        "the positive products of gradient and activation", GRADIENT, "arXiv:2011.08891"
    ),
    "smoothgradcam++": MethodInfo(
        "gradcam++ with derivatives averaged over noisy copies of the picture",
        "1 forward; 1 forward, 1 backward a sample",
        "arXiv:1908.01224",
        options={"samples": 8, "sigma": 0.15, "seed": 0},
    ),
    "shapleycam": MethodInfo(
        "gradients less half the curvature, averaged over the map, weight the channels",
        "1 forward, 2 backward",
        "arXiv:2501.06261",
        "what can be differentiated twice",
    ),
    "eigencam": MethodInfo(
        "first principal component of the activations",
        FORWARD,
        "arXiv:2008.00299",
        asks_class=False,
        gradients=False,
    ),
    "eigengradcam": MethodInfo(
        "first principal component of gradient times activation", GRADIENT, "arXiv:2008.00299"
    ),
    "segeigencam": MethodInfo(
        "first principal component of the gradient's size times activation",
        GRADIENT,
        "doi:10.3390/app15137562",
    ),
    "kpcacam": MethodInfo(
        "first kernel principal component of the activations",
        FORWARD,
        "arXiv:2410.00267",
        asks_class=False,
        gradients=False,
        options={"kernel": "sigmoid", "gamma": 0.0},
    ),
    "fem": MethodInfo(
        "where channels rise far above their own mean",
        FORWARD,
        "hal-02963298",
        asks_class=False,
        gradients=False,
        options={"k": 2.0},
    ),
    "dff": MethodInfo(
        "the activations as a few concepts, and the classes that each speaks for",
        "1 forward; what lies behind the layer a concept",
        "arXiv:1806.10206",
        asks_class=False,
        gradients=False,
        options={"concepts": 5},
    ),
    "ablationcam": MethodInfo(
        "the share of the score that goes with a channel weights it",
        "1 forward; what lies behind the layer a channel",
        "WACV 2020",
        gradients=False,
        options={"max_channels": 0},
    ),
    "scorecam": MethodInfo(
        "the score of the picture masked with a channel weights it",
        "1 forward a channel",
        "arXiv:1910.01279",
        gradients=False,
        options={"max_channels": 0},
    ),
    "sscam": MethodInfo(
        "scorecam, averaged over noisy masks",
        "1 forward a channel and sample",
        "arXiv:2006.14255",
        gradients=False,
        options={"samples": 10, "sigma": 2.0, "seed": 0, "max_channels": 0},
    ),
    "iscam": MethodInfo(
        "scorecam, averaged over masks that grow",
        "1 forward a channel and sample",
        "arXiv:2010.03023",
        gradients=False,
        options={"samples": 10, "max_channels": 0},
    ),
    "rise": MethodInfo(
        "how well the class does when random masks leave a pixel to be seen",
        "1 forward a mask",
        "arXiv:1806.07421",
        "any model, as a black box",
        gradients=False,
        options={"masks": 4000, "cells": 7, "probability": 0.5, "seed": 0},
    ),
    "occlusion": MethodInfo(
        "the drop of the score behind a grey square",
        "1 forward a place of the square",
        "arXiv:1311.2901",
        "any model, as a black box",
        gradients=False,
        options={"window": 32, "stride": 16},
    ),
    "cam": MethodInfo(
        "the linear head's own weights",
        GRADIENT,
        "arXiv:1512.04150",
        "average pooling and one linear layer behind the target layer, in either order",
    ),
    "rollout": MethodInfo(
        "attention multiplied through all blocks",
        FORWARD,
        "arXiv:2005.00928",
        TRANSFORMERS,
        asks_class=False,
        gradients=False,
        options={"head_fusion": "mean", "discard_ratio": 0.0},
    ),
    "genericattention": MethodInfo(
        "rollout of attention times its positive gradients",
        GRADIENT,
        "arXiv:2103.15679",
        TRANSFORMERS,
    ),
    "gradattention": MethodInfo(
        "the last block's attention times its positive gradients",
        GRADIENT,
        "arXiv:2103.15679",
        TRANSFORMERS,
    ),
    "legrad": MethodInfo(
        "the positive gradients of each block's own score by its attention",
        "1 forward, 1 backward a block",
        "arXiv:2404.03214",
        TRANSFORMERS,
    ),
    "fullgrad": MethodInfo(
        "all that the picture and every bias put into the score",
        "1 forward (2 for several pictures at once), 1 backward",
        "arXiv:1905.00780",
        "any model; complete for those in straight pieces, as of ReLU and BatchNorm",
    ),
    "guidedbackprop": MethodInfo(
        "gradients of the pixels that stay positive at every rectifier on the way back",
        GRADIENT,
        "arXiv:1412.6806",
        "models with ReLU, GELU, SiLU or their like",
    ),
    "guidedgradcam": MethodInfo(
        "guidedbackprop's pixels times gradcam's map",
        "2 forward, 2 backward",
        "arXiv:1610.02391",
        "models with ReLU, GELU, SiLU or their like",
    ),
    "randomcam": MethodInfo(
        "random weights: the baseline that every method must beat",
        FORWARD,
        "-",
        asks_class=False,
        gradients=False,
        options={"seed": 0},
    ),
}
