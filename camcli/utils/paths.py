"""Handles paths as people type them; a text that cannot be a file name is no file."""

from __future__ import annotations

import unicodedata
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Puts a home folder in the place of `~`; `~nobody` stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_file(path: str | Path) -> bool:
    """Tells whether a path is a file's, after links; false for what cannot be a name."""
    try:
        return expand_home(path).is_file()
    except (OSError, ValueError):  # too long, a folder that may not be entered, a null in it
        return False


def is_folder(path: str | Path) -> bool:
    """Tells whether a path is a folder's, after links; false for what cannot be a name."""
    try:
        return expand_home(path).is_dir()
    except (OSError, ValueError):
        return False


def is_there(path: str | Path) -> bool:
    """Tells whether there is anything at a path; true where the system does not say."""
    try:
        return expand_home(path).exists()
    except (OSError, ValueError):
        return True


def fold_name(name: str) -> str:
    """Folds a name, so that two names of one file on some file system are equal."""
    return unicodedata.normalize("NFC", name).casefold()
