"""Shows how far a run is: a bar on a terminal, lines elsewhere, nothing for one picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from camcli.cli.printer import Printer, print_error, stderr_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from camcli.records import Outcome, Record

LINE_EVERY = 10.0  # seconds


@dataclass
class Tally:
    """What a run has done so far, of how many pictures.

    `beyond` are heatmaps with values above the scale that they share with others, `left_out`
    pictures that another process does, `frames` those of videos.  Pictures come in batches, of
    which the first takes longest: weights are packed and compiled in it, and files are cold.  It is
    no measure of the others.
    """

    total: int
    batch: int = 1
    pictures: int = 0
    heatmaps: int = 0
    failed: int = 0
    beyond: int = 0
    left_out: int = 0
    looked_at: int = 0
    frames: int = 0
    start: float = field(default_factory=lambda: time.monotonic())
    _failing: bool = False
    _steps: int = 0
    # when the first batch was done, and how many pictures that were
    _first: tuple[float, int] = (0.0, 0)

    def add(self, outcome: Outcome) -> None:
        """Counts one more picture; a video is one, whatever becomes of its frames."""
        self.failed += outcome.failed and not self._failing
        self._failing = self._failing or outcome.failed
        self.heatmaps += sum(not record.error for record in outcome.records)
        self.beyond += sum(_is_beyond(record) for record in outcome.records)
        self.frames += not outcome.last
        if outcome.last:
            self.pictures += not self._failing
            self._failing = False
        self._steps += 1
        if self._steps == self.batch:
            self._first = time.monotonic(), self.done

    def begin(self, batch: int = 1) -> None:
        """Says that the model is loaded, and how many pictures it is given at a time."""
        self.start, self.batch = time.monotonic(), batch

    def leave_out(self, pictures: int) -> None:
        """Counts pictures that another process does."""
        self.total -= pictures
        self.left_out += pictures

    def look(self, pictures: int) -> None:
        """Says how many are known before the first is drawn; the drawing begins with the last."""
        self.looked_at, self.start = pictures, time.monotonic()

    @property
    def done(self) -> int:
        """How many pictures are behind the run."""
        return self.pictures + self.failed

    @property
    def summary(self) -> str:
        """What came of it, in one line."""
        made = f"{_pluralise(self.pictures, 'picture')}, {_pluralise(self.heatmaps, 'heatmap')}"
        return made + self._failed

    @property
    def so_far(self) -> str:
        """How far it is, how fast, and how long it will take, in one line."""
        if not self.done:
            if self.frames:
                speed = _divide(self.frames, self.start)
                return f"{_pluralise(self.frames, 'frame')}, {_format_speed(speed)}"
            seen = f"{self.looked_at} of {self.total} pictures"
            return f"{seen} looked at, for the scale they share" if self.looked_at else seen
        what = f"{self.done} of {self.total} pictures{self._failed}"
        start, before = self._find_start()
        if self.done <= before:
            return what
        speed = _divide(self.done - before, start)
        left = timedelta(seconds=round((self.total - self.done) / speed))
        return f"{what}, {_format_speed(speed)}, {left} left"

    def _find_start(self) -> tuple[float, int]:
        """Returns from when speed counts, and how many pictures were done: all, until it does."""
        if self.looked_at:
            return self.start, 0
        return self._first if self._steps >= 2 * self.batch else (self.start, self.done)

    @property
    def _failed(self) -> str:
        return f", {self.failed} failed" if self.failed else ""


def _divide(number: int, start: float) -> float:
    """Returns how many that is in a second since then."""
    return number / max(time.monotonic() - start, 1e-9)


def _format_speed(speed: float) -> str:
    return f"{speed:.{0 if speed >= 10 else 2}f} a second"


def _is_beyond(record: Record) -> bool:
    return record.scale is not None and (record.maximum or 0) > record.scale[1]


def _pluralise(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@contextmanager
def show_progress(tally: Tally, printer: Printer) -> Iterator[tuple[Printer, Callable[[], None]]]:
    """Shows how far a run is; gives what prints meanwhile, and what is called after a picture."""
    console = stderr_console()
    if printer.style == "paths":
        yield printer, lambda: None
    elif console.is_terminal:
        with closing(_Bar(tally, console)) as bar:
            yield replace(printer, above=console), bar.show
    else:
        yield printer, _Lines(tally, tally.start)


class _Bar:
    """A bar on a terminal, which a single picture does not need."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally, self._bar = tally, _make_bar(console)
        self._task = self._bar.add_task(tally.so_far, total=tally.total)
        if tally.total > 1:
            self._bar.start()

    def show(self) -> None:
        """Shows how far the run is; a lone video is of unknown length."""
        tally = self._tally
        if tally.total < 2 and not tally.frames:
            return
        behind, total = tally.done or tally.looked_at, tally.total if tally.total > 1 else None
        self._bar.update(self._task, completed=behind, total=total, description=tally.so_far)
        self._bar.start()

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.stop()


@dataclass
class _Lines:
    """Prints a line where the last one is some seconds old."""

    tally: Tally
    last: float

    def __call__(self) -> None:
        now, tally = time.monotonic(), self.tally
        if tally.total < 2 and not tally.frames:
            return
        if now - max(self.last, tally.start) >= LINE_EVERY:
            self.last = now
            print_error(tally.so_far)


def _make_bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(),
        # of its own columns, rich's speed is that of the last batch, which comes out at once
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        refresh_per_second=4,
        # results may go into a file
        redirect_stdout=False,
    )
