"""Warnings that are ignored for a while, whatever other threads do meanwhile."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def ignore_warnings(module: str = "") -> Iterator[None]:
    """Has warnings ignored in its block: all, or those of modules whose names begin with a pattern.

    `warnings.catch_warnings` puts back the filters that it found, which are the wrong ones where
    threads end in another order than they began; this takes out its own filter alone.
    """
    own = ("ignore", None, Warning, re.compile(module), 0)
    with _lock:
        # another list, for a thread may be going through this one
        warnings.filters = [own, *warnings.filters]
    try:
        yield
    finally:
        with _lock:
            warnings.filters = [entry for entry in warnings.filters if entry is not own]


def _begin_anew() -> None:
    """Lets go, in a forked process, of what a thread held that was not forked with it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
