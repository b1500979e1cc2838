"""Explains a visitor's picture, and makes what the page shows of it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from camcli.engine.device.pass_watch import watch_passes
from camcli.media.output_names import name_output
from camcli.media.pictures.output_formats import find_format
from camcli.media.pictures.write import encode_picture
from camcli.pipeline.stages import explain_batch, prepare
from camcli.records import Box, Source
from camcli.serve.limits import Limits
from camcli.serve.questions import Question
from camcli.serve.uploads import read_upload

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camcli.pipeline.explanation import Explanation
    from camcli.render.overlay import Alpha

SCREEN = 1600  # pixels: the longest edge of the layers that the slider blends
# formats that browsers show; an overlay of another kind is sent as PNG, with the same pixels
TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


def answer(
    question: Question, content: bytes, limits: Limits, check: Callable[[], None]
) -> dict[str, Any]:
    """Explains a picture by the question's first method; `check` raises to give up.

    Raises Refusal for what is no picture, CamvizError for what cannot be explained, and what
    `check` raises.
    """
    picture = read_upload(content, question.name, limits)
    check()
    method = question.methods[0]
    plan = question.model.plan(method, question.layer, question.category)
    with watch_passes(check):
        (explanations,) = explain_batch([prepare(picture, plan)], plan)
    return describe_answer(question, explanations[0])


def describe_answer(question: Question, explanation: Explanation) -> dict[str, Any]:
    """Draws an explanation, and says what it explains, for JSON."""
    options, record, picture = question.model.options, explanation.record, explanation.picture
    alpha = options.alpha if question.alpha is None else question.alpha
    name = name_overlay(question.name, explanation)
    # a legend of concepts has its own size, whatever the picture's
    small = explanation if explanation.concepts else shrink(explanation)

    def draw(explanation: Explanation, share: Alpha) -> NDArray[np.uint8]:
        return explanation.overlay(share, options.colormap, outside=options.outside)

    def draw_layer(share: float) -> str:
        pixels = fit_screen(draw(small, share))
        return _to_base64(encode_picture(pixels, Path("layer.jpg"), picture.profile))

    likeliest = zip(record.top_categories, record.top_labels, record.top_probabilities, strict=True)
    return {
        "overlay": _to_base64(encode_picture(draw(explanation, alpha), name, picture.profile)),
        "type": TYPES[find_format(name)],
        "file": name.name,
        "picture": draw_layer(0.0),
        "heat": draw_layer(1.0),
        "size": picture.size,
        "method": record.method,
        "layers": record.layers,
        "layer_reason": record.layer_reason,
        "category": record.category,
        "label": record.label,
        "probability": record.probability,
        "value": record.value,
        "likeliest": [
            {"category": category, "label": label, "probability": share}
            for category, label, share in likeliest
        ],
        "warnings": record.warnings,
    }


def name_overlay(name: str, explanation: Explanation) -> Path:
    """Names an overlay as the command line does, but for formats that browsers do not show."""
    record = explanation.record
    path = name_output(
        Source(Path(name)), record.method, record.category, record.label, value=record.value
    )
    return path if find_format(path) in TYPES else path.with_suffix(".png")


def shrink(explanation: Explanation) -> Explanation:
    """Returns the explanation on a picture that is no larger than a screen."""
    picture, view = explanation.picture, explanation.view
    shown = fit_screen(picture.canvas)
    across, down = shown.shape[1] / picture.size[1], shown.shape[0] / picture.size[0]
    box = Box(view.left * across, view.top * down, view.right * across, view.bottom * down)
    small = replace(picture, pixels=shown, shown=None)
    return replace(explanation, picture=small, view=box)


def fit_screen(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Makes pixels [h w 3] smaller where they are more than a screen has."""
    if max(pixels.shape) <= SCREEN:
        return pixels
    shown = Image.fromarray(pixels)
    shown.thumbnail((SCREEN, SCREEN), Image.Resampling.BILINEAR)
    return np.asarray(shown)


def _to_base64(content: memoryview) -> str:
    return base64.b64encode(content).decode("ascii")
