"""Names outputs: safe names that say picture, method and category."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from camcli.media.pictures.output_formats import (
    DEFAULT_SUFFIX,
    PICTURE_SUFFIXES,
    find_suffix,
    list_suffixes_like,
)
from camcli.records import Source

# in bytes of UTF-8: file systems allow 255, and what stands beside a picture adds .pixels.png or
# .mask-SHARE.png to its name
LONGEST_NAME, LONGEST_PART = 232, 64
FRAME_DIGITS = 6  # at least, so that frames are listed in their order

UNSAFE_CHARACTERS = frozenset('<>:"/\\|?*')
UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})


def name_output(
    source: Source,
    method: str,
    category: int | None,
    label: str,
    *,
    format: str | None = None,  # noqa: A002
    layer: str | None = None,
    target: str = "",
    frame: int | None = None,
    value: float | None = None,
    front: Sequence[str] = (),
    behind: Sequence[str] = (),
) -> Path:
    """Names an output: `<stem>[_<frame>]_<method>[_<layer>][_<target>][_<index>-<label>]<suffix>`.

    That of a value ends in `[_<index>]-<label>-<value>`, such as `_value-37.2`.  What else the name
    is to say stands in `front` of the layer, or `behind` the class.

    It stands below the save path, whatever the source and the label are.  Where the output cannot
    have the input's own suffix, and the source has a namesake, the input's whole name stands for
    its stem, but for a video's frames.  Raises UnknownName for a format that cannot be written.
    """
    own = source.path.suffix
    chosen = find_suffix(format) if format else None
    keeps_own = own.lower() in PICTURE_SUFFIXES and chosen in (
        None,
        *list_suffixes_like(own),
    )
    suffix = own if keeps_own else chosen or DEFAULT_SUFFIX
    head = choose_head(source, keeps_own=keeps_own)
    if frame is not None:
        head, suffix = source.path.stem, chosen or DEFAULT_SUFFIX
        method = f"{frame:0{FRAME_DIGITS}}_{method}"
    parts = list_name_parts(method, category, label, layer, target, front)
    if value is not None:
        shown = make_part(f"{label}-{value:.4g}")
        parts[-1:] = [parts[-1], shown] if category is None else [f"{parts[-1]}-{value:.4g}"]
    return join_name(source, head, [*parts, *map(make_part, behind)], suffix)


def choose_head(source: Source, *, keeps_own: bool) -> str:
    """Returns what a name begins with: the stem, or all of the input's name where that is needed.

    It is where two inputs would else give one name: those that keep their own suffix do not.
    """
    return source.path.name if source.has_namesake and not keeps_own else source.path.stem


def list_name_parts(
    method: str,
    category: int | None,
    label: str,
    layer: str | None,
    target: str,
    front: Sequence[str] = (),
) -> list[str]:
    """Lists what a name says behind the input's own, in letters that every file system takes."""
    parts = [method, *(make_part(part) for part in (*front, layer, target) if part)]
    return parts + ([] if category is None else [_name_category(category, label)])


def join_name(source: Source, head: str, parts: Sequence[str], suffix: str) -> Path:
    """Joins a name, which stands below the save path and is not too long."""
    tail = "".join(f"_{part}" for part in parts) + suffix
    name = _shorten(head, LONGEST_NAME - len(_encode(tail))) + tail
    return _stay_inside(source.folder) / name


def _stay_inside(folder: Path) -> Path:
    """Leaves out parts that would lead out of the save path."""
    return Path(*(part for part in folder.parts if part not in (folder.anchor, "..")))


def make_part(text: str) -> str:
    """Makes a text part of a file name; if that changes it, a hash keeps it distinct."""
    safe = _make_safe(text)
    return _shorten(safe if safe == text else safe + _hash_text(text), LONGEST_PART)


def _name_category(category: int, label: str) -> str:
    first_synonym = label.split(",")[0]
    words = _shorten(_make_safe("_".join(first_synonym.split())), LONGEST_PART)
    return f"{category}-{words}" if words else str(category)


def _make_safe(text: str) -> str:
    """Replaces what some file system refuses, or a terminal obeys, by `_`."""
    return "".join(
        "_" if c in UNSAFE_CHARACTERS or unicodedata.category(c) in UNSAFE_CATEGORIES else c
        for c in unicodedata.normalize("NFC", text)
    )


def _shorten(text: str, limit: int) -> str:
    """Cuts a text to a number of bytes; a hash of all of it keeps different ones different."""
    encoded = _encode(text)
    if len(encoded) <= limit:
        return text
    mark = _hash_text(text)
    return encoded[: limit - len(mark)].decode("utf-8", "ignore") + mark


def _hash_text(text: str) -> str:
    return "~" + hashlib.sha256(_encode(text)).hexdigest()[:10]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # names that are no UTF-8 come with surrogates
