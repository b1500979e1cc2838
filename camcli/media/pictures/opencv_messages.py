"""Silences OpenCV's messages where an exception says the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

_QUIET = threading.Lock()
SILENT = 0
# OpenCV 5 has moved its settings there
_LOGGING: Any = getattr(cv2.utils, "logging", cv2)


@contextmanager
def silence_opencv() -> Iterator[None]:
    """Keeps OpenCV from printing messages in its block."""
    with _QUIET:  # the level is the whole process's
        level = _LOGGING.setLogLevel(SILENT)
        try:
            yield
        finally:
            _LOGGING.setLogLevel(level)
