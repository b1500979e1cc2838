"""Silences OpenCV's messages where an exception says the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_QUIET = threading.Lock()
SILENT = 0
# OpenCV 5 has moved it
_set_log_level = cv2.utils.logging.setLogLevel if hasattr(cv2.utils, "logging") else cv2.setLogLevel


@contextmanager
def silence_opencv() -> Iterator[None]:
    """Keeps OpenCV from printing messages in its block."""
    with _QUIET:  # the level is the whole process's
        level = _set_log_level(SILENT)
        try:
            yield
        finally:
            _set_log_level(level)
