"""OpenCV's threads, where a process is forked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def end_threads() -> Iterator[None]:
    """Has OpenCV do without threads in its block, and in processes that are forked there.

    A forked process would wait for the threads of this one, and even for their end.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
