"""Raw maps of pictures, laid aside in a file until it is known which of them become candidates."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from camcli.errors import OutputError
from camcli.pipeline.tuning.candidates import Part
from camcli.records import Source


@dataclass(frozen=True)
class LaidPicture:
    """What a picture's pass gave: raw maps of all parts [h w], or [t h w] of t slices.

    `size` is the network's input; `image` [3 H W] is there where altered pictures are to be made,
    and `objects` where it is known what is right: `mask` and `boxes`.
    """

    source: Source
    category: int
    size: tuple[int, int]
    raw: Mapping[Part, NDArray[np.float32]]
    image: NDArray[np.float32] | None
    objects: Mapping[str, NDArray[np.generic]]


class MapStore:
    """Pictures in a file without a name, which goes with the process; raises OutputError."""

    def __init__(self) -> None:
        self._places: list[int] = []

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
        return len(self._places)

    def add(self, picture: LaidPicture) -> None:
        """Lays a picture aside, behind all others."""
        with _convert_errors():
            place = self._file.seek(0, 2)
            pickle.dump(picture, self._file, pickle.HIGHEST_PROTOCOL)
            self._file.flush()
        self._places.append(place)

    def read(self, number: int) -> LaidPicture:
        """Reads a picture by its number, from 0."""
        with _convert_errors():
            self._file.seek(self._places[number])
            picture: LaidPicture = pickle.load(self._file)
        return picture


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
