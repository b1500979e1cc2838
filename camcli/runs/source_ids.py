"""Identifies pictures from run to run."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from camcli.records import Source
from camcli.utils.compact_map import hash_texts


def identify_source(source: Source) -> str:
    """Returns 16 hex digits that identify a source, the same in every process."""
    # several stations ask for each picture's
    return _hash_source(source, "" if source.url else os.getcwd())  # noqa: PTH109  (a Path takes as long as the rest)


@lru_cache(maxsize=4096)
def _hash_source(source: Source, current_folder: str) -> str:
    place = source.url or os.path.normpath(Path(current_folder, source.path))
    return f"{hash_texts(place, source.folder.as_posix(), source.category):016x}"
