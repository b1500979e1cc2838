"""Finds how many pictures fit into one pass, by the memory that a pass of a few pictures takes."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from camcli.engine.answer_request import answer_request, move_to_model
from camcli.engine.device.precision import use_precision
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.hooks import record
from camcli.engine.targets import CategoryChoice
from camcli.models.state import locks_model
from camcli.registry import METHODS, collect_evidence
from camcli.utils.cpu import measure_free_memory
from camcli.utils.runtime_tuning import give_back_freed_memory

# larger batches are not faster
MOST: Mapping[str, int] = {"cuda": 256, "cpu": 32}
TRIAL_PICTURES = 4
# share of the free memory that is used: allocators need some of it, and other programs grow
SHARE = 0.5
RESET = Path("/proc/self/clear_refs")
# measuring methods with a pass for each channel or mask would take as long as the run
MANY_PASSES = frozenset({"score", "rescore", "recompute_logits"})


@locks_model
def find_largest_batch(
    module: nn.Module,
    request: ExplainRequest,
    shape: tuple[int, int, int],
    choice: Callable[[int], CategoryChoice | None],
    most: int | None = None,
) -> int | None:
    """Returns how many inputs (channels, H, W) fit into a pass: a power of two, or `most`.

    `request` is what is asked of each pass, and `choice` gives the classes of so many pictures.
    `most` is by default the size from which larger batches are not faster.  Returns None if the
    device does not tell its free memory: on MPS, and on a CPU without Linux.
    """
    draw = torch.Generator().manual_seed(0)
    inputs = move_to_model(module, torch.rand(TRIAL_PICTURES, *shape, generator=draw))
    room = _measure_free_memory(inputs.device)
    if room is None:
        return None
    quick = tuple(
        m for m in request.methods if MANY_PASSES.isdisjoint(collect_evidence([METHODS[m]]))
    )
    combined = tuple(
        c
        for c in request.combined
        if MANY_PASSES.isdisjoint(collect_evidence(METHODS[m] for m in c.methods))
    )
    asked = replace(request, methods=quick, combined=combined, noise=None, aug_smooth=False)

    def run(count: int) -> None:
        with use_precision(request.precision, inputs.device):
            record(module, inputs[:count], request.all_layers, graph=False)
        if asked.all_methods:
            answer_request(module, inputs[:count], choice(count), asked)

    run(1)  # the first pass sets things up and is not counted
    taken = measure_memory(inputs.device, lambda: run(TRIAL_PICTURES))
    return round_batch_size(room, taken / TRIAL_PICTURES, most or MOST[inputs.device.type])


def round_batch_size(room: float, each: float, most: int) -> int:
    """Returns how many pieces of `each` bytes fit into `room`: `most`, or a power of two below."""
    if most * each <= SHARE * room:
        return most
    count = 1
    while 2 * count <= most and 2 * count * each <= SHARE * room:
        count *= 2
    return count


def measure_memory(device: torch.device, run: Callable[[], None]) -> int:
    """Returns by how many bytes memory peaks above its level before the run."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    # freed memory that the allocator keeps would hide what the run takes
    give_back_freed_memory()
    before = _read_status("VmRSS")
    # makes Linux count the peak from here on
    RESET.write_text("5")
    run()
    return max(_read_status("VmHWM") - before, 1)


def _measure_free_memory(device: torch.device) -> int | None:
    """Returns the free bytes of a device, or None if it does not tell them."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + idle)
    # the file that resets the peak must exist, too
    if device.type == "cpu" and sys.platform == "linux" and os.access(RESET, os.W_OK):
        return measure_free_memory()
    return None


def _read_status(name: str) -> int:
    return _parse_kilobytes(Path("/proc/self/status").read_text(), name)


def _parse_kilobytes(text: str, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
