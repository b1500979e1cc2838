"""What a visitor may ask of the server: sizes, times and numbers."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PIXELS = 50_000_000  # what telephones take; three bytes each, in several copies while drawing
MAX_UPLOAD = 32  # MB
TIME_LIMIT = 60.0  # seconds
LONGEST_EDGE = 30_000  # pixels: JPEG, in which overlays are shown, holds no picture much longer


@dataclass(frozen=True)
class Limits:
    """Limits of a picture and of its explanation, and of all visitors together.

    An upload has `upload_seconds` for its body, and any other request `request_seconds`.  More
    `connections`, or pictures of more than `waiting_bytes`, at the same time are turned away.
    """

    max_bytes: int = MAX_UPLOAD * 10**6
    max_pixels: int = MAX_PIXELS
    longest_edge: int = LONGEST_EDGE
    explain_seconds: float = TIME_LIMIT
    request_seconds: float = 10.0
    upload_seconds: float = 30.0
    send_seconds: float = 60.0
    connections: int = 128
    waiting_bytes: int = 8 * MAX_UPLOAD * 10**6
