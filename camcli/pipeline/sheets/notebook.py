"""Shows an explanation in a notebook: the overlay, what it explains, and what its colours mean."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from camcli.pipeline.sheets.items import make_record_bar
from camcli.render.colour_bar import ColourBar, format_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camcli.pipeline.explanation import Explanation

LONGEST_EDGE = 1200  # of what a notebook keeps, in pixels
BAR = "width: 12em; height: 0.7em; vertical-align: middle"


def make_png(explanation: Explanation) -> bytes:
    """Draws the overlay as PNG: its own pixels, or fewer where it is larger than a screen."""
    return _write_png(explanation.overlay())


def make_html(explanation: Explanation) -> str:
    """Draws the overlay, a line that says what it is, a colour bar, and warnings."""
    record = explanation.record
    lines = [escape(describe(explanation))]
    has_bar = not explanation.concepts
    if has_bar and (bar := make_record_bar(record, "jet", 0.5)):
        lines.append(_show_bar(bar))
    lines += [f"<strong>{escape(warning)}</strong>" for warning in record.warnings]
    picture = _embed(make_png(explanation), "max-width: 100%", describe(explanation))
    return f"<figure>{picture}<figcaption>{'<br>'.join(lines)}</figcaption></figure>"


def describe(explanation: Explanation) -> str:
    """Says in a line which picture, class, method and layer a map is of."""
    record = explanation.record
    known = record.label or ("" if record.category is None else f"class {record.category}")
    number = "" if record.probability is None else f" {record.probability:.1%}"
    if record.value is not None:
        number = f" {record.value:.4g}"
    layers = f" at {', '.join(record.layers)}" if record.layers else ""
    parts = (record.source, f"{known}{number}".strip(), f"{record.method}{layers}")
    return ", ".join(part for part in parts if part)


def _show_bar(bar: ColourBar) -> str:
    low, high = format_number(bar.low), format_number(bar.high)
    picture = _embed(_write_png(bar.colours[None]), BAR, f"colours from {low} to {high}")
    return f"{low} {picture} {high}"


def _embed(png: bytes, style: str, words: str) -> str:
    data = b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" style="{style}" alt="{escape(words)}">'


def _write_png(pixels: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_EDGE, LONGEST_EDGE), Image.Resampling.LANCZOS)
    content = BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
