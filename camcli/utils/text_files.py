"""Reads small text files with a bound, and escapes words so that they stay on their line."""

from __future__ import annotations

import codecs
import errno
import os
from pathlib import Path

LARGEST = 2**26  # bytes


def read_text(path: Path, *, encoding: str = "utf-8", largest: int = LARGEST) -> str:
    """Reads a text file; raises OSError, also for a file that is too large, or ValueError."""
    with path.open("rb") as file:
        content = file.read(largest + 1)
    is_whole = len(content) <= largest
    # first, since what is no text is more of a mistake than what is too long
    text = codecs.getincrementaldecoder(encoding)().decode(content, is_whole)
    if not is_whole:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return text


def escape_text(text: str) -> str:
    """Writes control characters and line ends as escapes, so that a text stays on its line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
