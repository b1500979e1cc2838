"""Converts values to what JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

JSON_TYPES = frozenset({str, int, bool, type(None)})


def to_jsonable(value: Any) -> Any:
    """Returns a value as JSON can hold it."""
    if type(value) in JSON_TYPES:
        return value
    # dataclasses' own way copies everything that is in them, which takes longer than writing it
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_jsonable(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def encode_json(value: Any, *, sort_keys: bool = False) -> str:
    """Encodes a value as a line of JSON in ASCII; numbers that are not finite become null."""
    try:
        # faster, since most of a value needs no conversion
        return json.dumps(value, default=_open_up, allow_nan=False, sort_keys=sort_keys)
    except (TypeError, ValueError):
        return json.dumps(to_jsonable(value), allow_nan=False, sort_keys=sort_keys)


def _open_up(value: Any) -> Any:
    """Converts a value itself, and leaves what is in it to the encoder."""
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    return to_jsonable(value)
