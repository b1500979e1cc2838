"""Times a row's contenders in turns, and says what memory each takes and how far maps are apart."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from math import sqrt
from typing import Any

import torch

from camcli.engine.device.batch_size import measure_memory
from camcli.methods.postprocessing import normalise
from tests.benchmarks.contenders import BATCHES, Contender, Scene, compare_alike
from tests.benchmarks.rows import OURS, PACKED, USUAL, BenchmarkRow

Figures = dict[str, Any]
# batches that fill a GPU come one after the other: it works on one while Python launches the next
IN_A_ROW = 4
# the standard error of our ratio's median at which it is sure
SURE = 0.01


def measure_row(row: BenchmarkRow, device: torch.device, *, peers: bool = True) -> Figures:
    """Returns a row's figures: seconds of the bare pass, ratios to it, memory, maps apart.

    Every contender takes its turn in every round, the order turning, so that a busy machine slows
    all of them; a ratio is that to the bare pass of the same round.
    """
    with ExitStack() as stack:
        scene = Scene(row, device)
        return _measure(scene, scene.contenders(stack, peers=peers))


def _measure(scene: Scene, others: dict[str, Contender]) -> Figures:
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
        maps[name], memory[name] = _remember(run, device, calls, alike=name == "grad-cam")
    turns = _turns(contenders, device, IN_A_ROW if row.batch >= USUAL else 1)
    rounds = list(until_sure(turns, row.rounds, row.most_rounds))
    ratios = {
        name: summarize([taken[name] / (passes * taken["bare"]) for taken in rounds])
        for name in contenders
        if name != "bare"
    }
    return {
        "title": row.title,
        "bar": row.bar,
        "faster": row.faster,
        "passes": scene.passes() if row.altering else 1,
        "bare": statistics.median(taken["bare"] for taken in rounds) / batch * row.batch,
        "batch": batch,
        "pictures": row.batch,
        "ratios": ratios,
        "memory": memory,
        "apart": _largest_difference(maps) if row.comparable and "grad-cam" in maps else None,
    }


def summarize(ratios: Sequence[float]) -> Figures:
    """Returns the median of a contender's ratios, their quartiles, and how many there are."""
    low, median, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return {"median": median, "low": low, "high": high, "rounds": len(ratios)}


def _best_batch(scene: Scene) -> int:
    """Returns the batch at which a picture's pass takes least."""
    turns = _turns({str(b): scene.bare(b) for b in BATCHES}, scene.device, 1)
    rounds = list(islice(turns, 3))
    return min(BATCHES, key=lambda b: statistics.median(taken[str(b)] for taken in rounds) / b)


def _turns(
    contenders: dict[str, Contender], device: torch.device, in_a_row: int
) -> Iterator[dict[str, float]]:
    """Gives the seconds of each contender, round by round, for as long as somebody asks."""
    order = list(contenders)
    while True:
        yield {name: _seconds(contenders[name], device, in_a_row) for name in order}
        order = order[1:] + order[:1]


def until_sure(
    rounds: Iterable[dict[str, float]], least: int, most: int
) -> Iterator[dict[str, float]]:
    """Gives so many rounds at least, and more, up to most, until our ratio's median is sure."""
    ratios: list[float] = []
    for taken in islice(rounds, max(least, most)):
        yield taken
        ratios.append(taken["camviz"] / taken["bare"])
        if least <= len(ratios) < most and standard_error(ratios) <= SURE:
            return


def standard_error(actual: Sequence[float]) -> float:
    """Estimates that of the median from the quartiles, for a normal distribution."""
    low, _, high = statistics.quantiles(actual)
    # 1.253 of a standard deviation, of which the quartiles are 1.349 apart
    return 0.929 * (high - low) / sqrt(len(actual))


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


def _remember(run: Contender, device: torch.device, calls: int, *, alike: bool) -> tuple[Any, int]:
    """Returns what a contender gives, and by how many bytes its peak lies above what was held."""
    results: list[Any] = []

    def call() -> None:
        for _ in range(calls):
            results[:] = [run()]

    with compare_alike() if alike else nullcontext():
        taken = measure_memory(device, call)
    return results[0], taken


def _largest_difference(maps: dict[str, Any]) -> float:
    theirs = normalise(torch.as_tensor(maps["grad-cam"]).float())
    ours = (maps[name].cpu() for name in OURS if name in maps)
    return max(float((normalise(actual) - theirs).abs().max()) for actual in ours)
