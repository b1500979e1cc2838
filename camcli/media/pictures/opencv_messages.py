"""Silences OpenCV's messages where an exception says the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_QUIET = threading.Lock()


@contextmanager
def silence_opencv() -> Iterator[None]:
    """Keeps OpenCV from printing messages in its block."""
    logging = cv2.utils.logging
    with _QUIET:  # the level is the whole process's
        level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            logging.setLogLevel(level)
