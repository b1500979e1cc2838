"""Runs work in chunks that halve when the device runs out of memory (law 6)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from camcli.engine.device.pass_watch import check_passes

Result = TypeVar("Result")

# error messages for full memory: CUDA and MPS raise a type of their own, but on a CPU, and from
# libraries that use a GPU's memory, only the message tells
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "status_alloc_failed",
    "unable to find an engine to execute this computation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that the device's memory is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _WORDS)


def run_in_chunks(run: Callable[[slice], Result], count: int, size: int) -> list[Result]:
    """Runs over `count` rows, at most `size` at a time, and lists the results of the chunks.

    A chunk that does not fit into memory is halved, and so are all chunks behind it.  Raises the
    device's own error if a single row does not fit.
    """
    results: list[Result] = []
    start = 0
    while start < count:
        rows = slice(start, min(start + size, count))
        check_passes()
        try:
            results.append(run(rows))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or rows.stop - rows.start == 1:
                raise
            size = (rows.stop - rows.start) // 2
        else:
            start = rows.stop
            continue
        # outside the except clause, since the traceback keeps the failed chunk's tensors alive
        _free_memory()
    return results


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
