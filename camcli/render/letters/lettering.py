"""Measures and draws lines of letters, each with the first font that has it."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw

from camcli.errors import CamvizWarning
from camcli.render.letters.fonts import (
    Font,
    load_font_file,
    load_own_font,
    own_font_has,
    search_system,
)

# they join or part the letters beside them, and are none themselves
JOINERS = "\u200c\u200d"
MOST_NAMED = 12
ACROSS = {"l": 0.0, "m": 0.5, "r": 1.0}

# of which somebody was told already
_said: set[str] = set()


@dataclass(frozen=True)
class Letters:
    """Our own font, of a size in pixels, and behind it this machine's for what it lacks."""

    size: int

    def getlength(self, text: str) -> float:
        """Measures a line in pixels."""
        return sum(self._load(file).getlength(part) for part, file in split_by_font(text))

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[float, float],
        text: str,
        colour: str,
        anchor: str = "ls",
    ) -> None:
        """Draws a line, anchored by Pillow's letters: l, m or r, then s (base line) or m."""
        warn_of_missing(text)
        runs = split_by_font(text)
        if all(file is None for _, file in runs):
            draw.text(place, text, colour, load_own_font(self.size), anchor)
            return
        left = place[0] - ACROSS[anchor[0]] * self.getlength(text)
        base = place[1] + (self._measure_middle() if anchor[1] == "m" else 0)
        for part, file in runs:
            font = self._load(file)
            draw.text((left, base), part, colour, font, "ls")
            left += font.getlength(part)

    def _load(self, file: Path | None) -> Font:
        return load_own_font(self.size) if file is None else load_font_file(file, self.size)

    def _measure_middle(self) -> float:
        """Measures how far our own font's base line is below the middle of its line."""
        font = load_own_font(self.size)
        on_base, in_middle = (font.getbbox("x", anchor=anchor)[3] for anchor in ("ls", "lm"))
        return in_middle - on_base


@lru_cache(4096)
def split_by_font(text: str) -> tuple[tuple[str, Path | None], ...]:
    """Splits a line into parts of one font each: its file, or None for our own.

    A space, or a mark between two words of one font, stays with them, so that words that are read
    from right to left stand in their order.
    """
    files = [_find_file(letter) for letter in text]
    for place, letter in enumerate(text):
        before = files[place - 1] if place else None
        if before is None or files[place] is not None:
            continue
        if _leans(letter) or _find_next(text, files, place) == before:
            has = letter in JOINERS or letter == " " or search_system().has(before, letter)
            files[place] = before if has else None
    parts = groupby(zip(text, files, strict=True), key=lambda pair: pair[1])
    return tuple(("".join(letter for letter, _ in part), file) for file, part in parts)


def _find_file(letter: str) -> Path | None:
    if own_font_has(letter) or _is_no_letter(letter):
        return None
    return search_system().find(letter)


def _is_no_letter(letter: str) -> bool:
    """Tells whether there is nothing to be seen of it: joiners, spaces, choices of a variant."""
    return letter.isspace() or letter in JOINERS or 0xFE00 <= ord(letter) <= 0xFE0F


def _leans(letter: str) -> bool:
    """Tells whether it belongs to the letter before it."""
    return (_is_no_letter(letter) and letter != " ") or unicodedata.category(letter)[0] == "M"


def _find_next(text: str, files: list[Path | None], place: int) -> Path | None:
    """Finds the font behind spaces and marks; our own if there is a word of ours."""
    for letter, file in zip(text[place:], files[place:], strict=True):
        if file is not None:
            return file
        if letter.isalnum():
            return None
    return None


def list_missing(texts: Iterable[str]) -> str:
    """Lists the letters that no font has, each once, in their order."""
    letters = dict.fromkeys(letter for text in set(texts) for letter in text)
    return "".join(
        letter
        for letter in sorted(letters)
        if letter.isprintable()
        and not own_font_has(letter)
        and not _is_no_letter(letter)
        and search_system().find(letter) is None
    )


def tell_missing(texts: Iterable[str]) -> str | None:
    """Says which letters are drawn as boxes, of those that nobody was told of; None for none."""
    missing = [letter for letter in list_missing(texts) if letter not in _said]
    if not missing:
        return None
    _said.update(missing)
    named = " ".join(missing[:MOST_NAMED])
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    return (
        f"No font of this machine has the letter{'s' * (len(missing) > 1)} {named}{more}, which "
        "captions and sheets show as boxes: install a font that has them, such as Noto Sans."
    )


def warn_of_missing(text: str) -> None:
    """Warns of letters that are drawn as boxes, once of each."""
    if not text.isascii() and (message := tell_missing([text])):
        warnings.warn(message, CamvizWarning, stacklevel=3)
