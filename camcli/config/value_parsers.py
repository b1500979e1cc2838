"""Parses the values that people write for options; pydantic checks the results."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from math import inf
from numbers import Integral
from pathlib import Path
from typing import cast

from camcli.errors import UnknownName
from camcli.method_terms import find_method_names
from camcli.records import Span
from camcli.utils.paths import expand_home

LITERALS = (bool, int, float, str, list, dict)
BRACKETS = {"[": "]", "(": ")"}
SHEETS = ("png", "svg", "pdf")
UNITS: Mapping[str, int] = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
BYTE_UNITS: Mapping[str, int] = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def to_tuple(value: object) -> object:
    """Makes a tuple of a single item."""
    return (value,) if isinstance(value, str) else value


def split_items(value: object) -> list[object]:
    """Flattens `a,b`, `[a,b]`, `["a,b", "c"]` to single items."""
    if isinstance(value, str):
        inside = value.strip()
        bracketed = inside[:1] in BRACKETS and inside.endswith(BRACKETS[inside[0]])
        listed = (inside[1:-1] if bracketed else inside).split(",")
        items: list[object] = [_unquote(item.strip()) for item in listed if item.strip()]
        if not items and not bracketed:
            # an unset shell variable gives an empty text, for which the default would be used
            # silently
            raise ValueError("no items")
        return items
    if isinstance(value, list | tuple):
        return [item for part in value for item in split_items(part)]
    return [value]


def parse_categories(value: object) -> object:
    """Reads classes by index or name; several are in brackets or repeated."""
    # class names may contain commas, so only brackets make a list here; labels decide the rest
    # later
    given = value if isinstance(value, list | tuple) else [value]
    several = [
        v for g in given for v in (split_items(g) if str(g).lstrip().startswith("[") else [g])
    ]
    return [to_text(value) for value in several]


def parse_methods(value: object) -> tuple[str, ...]:
    """Reads names of methods in any spelling, and returns those of the registry."""
    names = tuple(str(item) for item in split_items(value))
    try:
        return find_method_names(names)
    except UnknownName as error:
        raise ValueError(error) from error


def parse_size(value: object) -> object:
    """Reads a size: one number is a square, two are height and width."""
    numbers = re.split(r"[x,\s]+", value.strip("[] ()")) if isinstance(value, str) else value
    if isinstance(numbers, list | tuple):
        return [*numbers, *numbers] if len(numbers) == 1 else numbers
    return [numbers, numbers]


def to_lower(value: object) -> object:
    """Makes a text lower case; leaves other values."""
    return value.strip().lower() if isinstance(value, str) else value


def parse_target(value: object) -> object:
    """Reads the name of a target, with - or _."""
    lower = to_lower(value)
    return lower.replace("_", "-") if isinstance(lower, str) else value


def to_text(value: object) -> object:
    """Makes a text of a whole number; leaves other values."""
    return str(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def parse_pixels(value: object) -> object:
    """Reads numbers such as `50M`; leaves other values, which pydantic refuses."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)([kmg]?)", str(to_lower(value)))
    return round(float(match[1]) * UNITS[match[2]]) if match else value


def parse_memory(value: object) -> object:
    """Reads `2G` as bytes, `50%` and `0.5` as a share; leaves other values, which are refused."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if result := re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?) ?%", text):
        return float(result[1]) / 100
    if re.fullmatch(r"0\.\d{1,9}", text):
        return float(text)
    if result := re.fullmatch(r"(\d{1,18})|(\d{1,12}(?:\.\d{1,9})?)([kmgt])(?:ib)?", text):
        return int(result[1]) if result[1] else round(float(result[2]) * BYTE_UNITS[result[3]])
    return value


def parse_path(value: object) -> object:
    """Reads a path, with ~ for the home folder."""
    if value == "":
        raise ValueError("no name")  # Path("") would be the current folder
    if isinstance(value, str | Path) and b"\0" in os.fsencode(value):
        raise ValueError("a name with a null in it")
    return expand_home(value) if isinstance(value, str) else value


def parse_scale(value: object) -> object:
    """Reads `image`, `run`, or two raw values."""
    if isinstance(value, str) and "," not in value:
        return to_lower(value)
    low, high = (float(str(item)) for item in split_items(value))
    if not 0 <= low < high < inf:
        raise ValueError("not two raw values, the second one larger")
    return low, high


def parse_sheet(value: object) -> object:
    """Reads a file of a kind that sheets have, or the kind alone, for a file named by the run."""
    if isinstance(value, str) and value.strip().lower() in SHEETS:
        return Path(value.strip().lower())
    path = parse_path(value)
    if isinstance(path, Path) and path.suffix.lower().removeprefix(".") not in SHEETS:
        raise ValueError("no file of a sheet")
    return path


def parse_span(value: object) -> object:
    """Reads `from:to` as the frames between them."""
    return Span.parse(value) if isinstance(value, str) else value


def parse_literal(text: str) -> object:
    """Reads a value as TOML, with `none` and bare words in lists; anything else is a text."""
    plain = text.strip()
    if plain.lower() in ("none", "null"):
        return None
    if plain.lower() in ("true", "false"):
        return plain.lower() == "true"
    try:
        table = tomllib.loads(f"value = {plain}")
    except ValueError:  # also raised for a number of thousands of digits
        table = {}
    except RecursionError:
        return plain
    if len(table) == 1 and isinstance(table["value"], LITERALS):
        return cast(object, table["value"])
    if plain[:1] in BRACKETS and plain.endswith(BRACKETS[plain[0]]):
        return [parse_literal(item) for item in plain[1:-1].split(",") if item.strip()]
    return plain


def parse_optional_text(text: str) -> str | None:
    """Reads a text, `none` as None."""
    return None if text.strip().lower() in ("none", "null") else text


def _unquote(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
