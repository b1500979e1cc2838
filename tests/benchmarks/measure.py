"""Times a row's contenders in turns, and says what memory each takes and how far maps are apart."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, nullcontext
from typing import Any

import torch

from camcli.engine.sizing import taken_by
from camcli.methods.compose import normalise
from tests.benchmarks.contenders import BATCHES, Contender, Scene, compared_alike
from tests.benchmarks.rows import OURS, PACKED, USUAL, Row

Figures = dict[str, Any]
# batches that fill a GPU come one after the other: it works on one while it is told the next
IN_A_ROW = 4


def measured(row: Row, device: torch.device, *, peers: bool = True) -> Figures:
    """Returns a row's figures: seconds of the bare pass, ratios to it, memory, maps apart.

    Every contender takes its turn in every round, the order turning, so that a busy machine slows
    all of them; a ratio is that to the bare pass of the same round.
    """
    with ExitStack() as stack:
        scene = Scene(row, device)
        return _measured(scene, scene.contenders(stack, peers=peers))


def _measured(scene: Scene, others: dict[str, Contender]) -> Figures:
    row, device = scene.row, scene.device
    batch = _best_batch(scene) if row.altering else row.batch
    contenders = {"bare": scene.bare(batch)} | others
    # as many passes as the row is measured against, in units of the bare pass
    passes = scene.passes() * row.batch / batch
    memory, maps = {}, {}
    contenders["bare"]()
    for name, run in contenders.items():
        # the second time lays weights out
        calls = 2 if name == PACKED else 1
        maps[name], memory[name] = _remembered(run, device, calls, alike=name == "grad-cam")
    times = _in_turns(contenders, row.rounds, device, IN_A_ROW if row.batch >= USUAL else 1)
    ratios = {
        name: [t / (passes * b) for t, b in zip(taken, times["bare"], strict=True)]
        for name, taken in times.items()
        if name != "bare"
    }
    return {
        "title": row.title,
        "bar": row.bar,
        "faster": row.faster,
        "passes": scene.passes() if row.altering else 1,
        "bare": statistics.median(times["bare"]) / batch * row.batch,
        "batch": batch,
        "pictures": row.batch,
        "ratios": ratios,
        "memory": memory,
        "apart": _apart(maps) if row.comparable and "grad-cam" in maps else None,
    }


def _best_batch(scene: Scene) -> int:
    """Returns the batch at which a picture's pass takes least."""
    rounds = _in_turns({str(b): scene.bare(b) for b in BATCHES}, 3, scene.device, 1)
    return min(BATCHES, key=lambda b: statistics.median(rounds[str(b)]) / b)


def _in_turns(
    contenders: dict[str, Contender], rounds: int, device: torch.device, in_a_row: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            times[name].append(_seconds(contenders[name], device, in_a_row))
        order = order[1:] + order[:1]
    return times


def _seconds(run: Contender, device: torch.device, in_a_row: int) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(in_a_row):
            run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000 / in_a_row
    begin = time.perf_counter()
    for _ in range(in_a_row):
        run()
    return (time.perf_counter() - begin) / in_a_row


def _remembered(
    run: Contender, device: torch.device, calls: int, *, alike: bool
) -> tuple[Any, int]:
    """Returns what a contender gives, and by how many bytes its peak lies above what was held."""
    found: list[Any] = []

    def call() -> None:
        for _ in range(calls):
            found[:] = [run()]

    with compared_alike() if alike else nullcontext():
        taken = taken_by(device, call)
    return found[0], taken


def _apart(maps: dict[str, Any]) -> float:
    theirs = normalise(torch.as_tensor(maps["grad-cam"]).float())
    ours = (maps[name].cpu() for name in OURS if name in maps)
    return max(float((normalise(found) - theirs).abs().max()) for found in ours)
