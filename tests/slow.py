"""Parameters that take long: CI runs them beside the suite, which stays for who waits for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mark_slow(values: Iterable[str], slow: Collection[str]) -> list[Any]:
    """Returns parameters for `parametrize`, those that are slow under that mark."""
    return [pytest.param(v, marks=[pytest.mark.slow] if v in slow else []) for v in values]
