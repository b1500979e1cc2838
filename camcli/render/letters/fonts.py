"""Fonts: our own, and those of this machine for letters that it lacks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

SUFFIXES = (".ttf", ".otf", ".ttc")
# fonts of many letters and plain ones, the first one first; then all others
PREFERRED = (
    "notosanscjk", "sourcehansans", "droidsansfallback", "pingfang", "hiragino", "yugoth", "msyh",
    "malgun", "wqy", "arialunicode", "segoeui.", "seguiemj", "notosans", "dejavusans.",
)  # fmt: skip
# styles that stand out beside ours
STYLES = ("bold", "italic", "oblique", "black", "thin", "light", "condensed", "mono", "serif")
# fonts that have a box for each letter
OF_BOXES = ("lastresort", "adobeblank", "notdef")
PROBE = 16  # pixels of a letter that is drawn to see whether a font has it
UNASSIGNED = "\U0010ffff"


@lru_cache
def load_own_font(size: int) -> Font:
    """Loads our own font, of a size in pixels.

    Matplotlib's, with Greek and Cyrillic, where it is installed: it draws PDF and SVG with it, and
    what is measured here is as long there.
    """
    spec = find_spec("matplotlib")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(place) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


@lru_cache
def load_font_file(file: Path, size: int) -> ImageFont.FreeTypeFont:
    """Loads a font of this machine, of a size in pixels."""
    return ImageFont.truetype(str(file), size)


class FontSearch:
    """Finds fonts for letters, those that have served before first; remembers what it found."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._files: list[Path] | None = None
        self._chosen: list[Path] = []
        self._found: dict[str, Path | None] = {}
        self._probes: dict[Path, _Probe | None] = {}

    def find(self, letter: str) -> Path | None:
        """Returns the file of a font that has a letter, None where there is none."""
        if letter not in self._found:
            self._found[letter] = self._look(letter)
        return self._found[letter]

    def _look(self, letter: str) -> Path | None:
        if self._files is None:
            self._files = sorted(_list_files(self._folders), key=_rank)
        for file in (*self._chosen, *self._files):
            if (probe := self._open(file)) and probe.has(letter):
                if file not in self._chosen:
                    self._chosen.append(file)
                return file
        return None

    def has(self, file: Path, letter: str) -> bool:
        """Tells whether a font that was found has another letter, too."""
        probe = self._open(file)
        return probe is not None and probe.has(letter)

    def _open(self, file: Path) -> _Probe | None:
        if file not in self._probes:
            self._probes[file] = None
            # what is no font, or one of pictures of a single size
            with suppress(OSError, ValueError):
                # each letter as it is, without those beside it
                basic = ImageFont.Layout.BASIC
                font = ImageFont.truetype(str(file), PROBE, layout_engine=basic)
                self._probes[file] = _Probe(font)
        return self._probes[file]


class _Probe:
    """Tells which letters a font has: those that are drawn otherwise than one that nobody has."""

    def __init__(self, font: Font) -> None:
        self._font, self._missing = font, bytes(font.getmask(UNASSIGNED))

    def has(self, letter: str) -> bool:
        mask = self._font.getmask(letter)
        return mask.getbbox() is not None and bytes(mask) != self._missing


@cache
def _probe_own() -> _Probe:
    return _Probe(load_own_font(PROBE))


@cache
def own_font_has(letter: str) -> bool:
    """Tells whether our own font has a letter."""
    return letter.isascii() or _probe_own().has(letter)


@cache
def search_system() -> FontSearch:
    """Returns the search through the fonts of this machine."""
    return FontSearch(tuple(_list_folders(sys.platform, os.environ)))


def _list_folders(platform: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Lists where a system keeps its fonts, and its user's."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  (this one never fails)
    if platform == "darwin":
        yield from (home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts"))
    elif platform == "win32":
        yield Path(environment.get("WINDIR", "C:/Windows")) / "Fonts"
        local = environment.get("LOCALAPPDATA", home / "AppData/Local")
        yield Path(local) / "Microsoft/Windows/Fonts"
    else:
        yield home / ".fonts"
        own = environment.get("XDG_DATA_HOME") or home / ".local/share"
        shared = environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        yield from (Path(place) / "fonts" for place in (own, *shared.split(":")))


def _list_files(folders: tuple[Path, ...]) -> Iterator[Path]:
    for folder in folders:
        # what may not be read is passed over
        for place, _, names in os.walk(folder):
            yield from (Path(place, n) for n in names if n.lower().endswith(SUFFIXES))


def _rank(file: Path) -> tuple[bool, int, bool, str]:
    """Puts plain fonts of many letters first, and those of boxes last."""
    name = file.name.lower().replace("-", "").replace("_", "").replace(" ", "")
    place = next((i for i, known in enumerate(PREFERRED) if known in name), len(PREFERRED))
    is_styled = any(style in name for style in STYLES)
    return any(known in name for known in OF_BOXES), place + 100 * is_styled, is_styled, str(file)
