"""Spells the command that draws the same overlays, for a shell that somebody pastes it into."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence

# characters that a terminal acts on, or that show a line as another one
CONTROLS = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def spell_command(words: Sequence[str]) -> str:
    r"""Joins words as a line that a POSIX shell reads as these words.

    >>> spell_command(["camviz", "my cat.jpg", "--method", "gradcam"])
    "camviz 'my cat.jpg' --method gradcam"
    >>> spell_command(["a\x1b[2Jb"])
    "$'a\\x1b[2Jb'"
    """
    return " ".join(map(quote_word, words))


def quote_word(word: str) -> str:
    """Quotes a word where a shell needs it; a character that no terminal should get is spelt."""
    if not any(unicodedata.category(character) in CONTROLS for character in word):
        return shlex.quote(word)
    return "$'" + "".join(map(_spell_character, word)) + "'"


def _spell_character(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if unicodedata.category(character) not in CONTROLS:
        return character
    code = ord(character)
    # of a fixed length, so that a digit behind it stays one
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"


def name_file(name: str) -> str:
    """Returns a picture's name so that camviz takes it for a file.

    >>> name_file("cat.jpg"), name_file("-o.jpg"), name_file("models")
    ('cat.jpg', './-o.jpg', './models')
    """
    return name if re.match(r"\w[^:*?\[]*\.\w+$", name) else f"./{name}"
