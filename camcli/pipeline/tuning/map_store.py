"""Stores the raw maps of pictures in a file until it is known which candidates need them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from camcli.errors import OutputError
from camcli.pipeline.tuning.candidates import Part
from camcli.records import Source


@dataclass(frozen=True)
class LaidPicture:
    """The results of a picture's pass: raw maps of all parts [h w], or [t h w] for t slices.

    `size` is that of the network's input.  `image` [3 H W] is stored if altered pictures are
    needed, and `objects` (`mask` and `boxes`) if there are annotations.
    """

    source: Source
    category: int
    size: tuple[int, int]
    raw: Mapping[Part, NDArray[np.float32]]
    image: NDArray[np.float32] | None
    objects: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class _Entry:
    """Where a picture's arrays begin in the file, and its other data."""

    place: int
    source: Source
    category: int
    size: tuple[int, int]
    parts: tuple[Part, ...]
    has_image: bool
    objects: tuple[str, ...]


class MapStore:
    """Pictures in a file without a name, which vanishes with the process; raises OutputError."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def __enter__(self) -> Self:
        with _convert_errors():
            self._file = tempfile.TemporaryFile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, picture: LaidPicture) -> None:
        """Stores a picture behind all others."""
        with _convert_errors():
            place = self._file.seek(0, 2)
            for array in (*picture.raw.values(), *picture.objects.values()):
                np.save(self._file, array, allow_pickle=False)
            if picture.image is not None:
                np.save(self._file, picture.image, allow_pickle=False)
            self._file.flush()
        entry = _Entry(
            place,
            picture.source,
            picture.category,
            picture.size,
            tuple(picture.raw),
            picture.image is not None,
            tuple(picture.objects),
        )
        self._entries.append(entry)

    def read(self, number: int) -> LaidPicture:
        """Reads a picture by its number, from 0."""
        entry = self._entries[number]
        with _convert_errors():
            self._file.seek(entry.place)
            raw = {part: self._read_array() for part in entry.parts}
            objects = {name: self._read_array() for name in entry.objects}
            image = self._read_array() if entry.has_image else None
        return LaidPicture(entry.source, entry.category, entry.size, raw, image, objects)

    def _read_array(self) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self._file, allow_pickle=False)
        return array


@contextmanager
def _convert_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise OutputError(
            f"Cannot keep raw maps in {folder!r}: {error.strerror or error}. Make room there, name "
            "another folder in TMPDIR, or give fewer pictures (--budget)."
        ) from error
