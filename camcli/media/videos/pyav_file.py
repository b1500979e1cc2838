"""Wraps files for PyAV, which prints the exceptions of a file."""

from __future__ import annotations

from typing import BinaryIO


class QuietFile:
    """A file that raises nothing: what goes wrong first is its `error`, and nothing comes then.

    PyAV hands on one exception, and prints those that come before it is asked for.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | ValueError | None = None

    def read(self, size: int) -> bytes:
        """Reads as a file does, and behind an error as if the file ended there."""
        try:
            return b"" if self.error else self.file.read(size)
        except (OSError, ValueError) as error:  # it may be closed, when PyAV tidies up late
            self.error = error
            return b""

    def write(self, content: bytes) -> int:
        """Writes as a file does, and behind an error nothing any more."""
        try:
            return len(content) if self.error else self.file.write(content)
        except (OSError, ValueError) as error:
            self.error = error
            return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place, or returns -1: damaged files name places in front of their beginning."""
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1

    def tell(self) -> int:
        """Returns the place."""
        return self.file.tell()

    @property
    def closed(self) -> bool:
        """Whether the file is closed, behind which PyAV writes no index."""
        return self.file.closed

    def raise_error(self) -> None:
        """Raises what went wrong, if anything did."""
        if self.error:
            raise self.error
