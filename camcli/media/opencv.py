"""What OpenCV needs to open videos: names that do not crash it, and a cover over its messages."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

# FFmpeg would print what it finds wrong to standard error, where an exception tells the same; it
# reads this once, with the first video
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_OPENING = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps OpenCV from printing what it cannot open or close."""
    logging = cv2.utils.logging
    with _OPENING:  # the level is the whole process's
        found = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            logging.setLogLevel(found)


def spelled(path: Path, folder: Path) -> Path:
    """Returns an absolute path in UTF-8, by way of a link in a folder where there is none.

    OpenCV crashes on other names, and a relative one may look like a URL.
    """
    path = path.absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        link = folder / "link"
        link.symlink_to(path)
        return link
    return path


@contextmanager
def captured(what: str | int) -> Iterator[cv2.VideoCapture]:
    """Opens a video file or a camera, if it opens, and closes it."""
    with quiet():
        interface = cv2.CAP_ANY if isinstance(what, int) else cv2.CAP_FFMPEG
        capture = cv2.VideoCapture(what, interface)
    try:
        yield capture
    finally:
        capture.release()
