"""Makes one line of the frames of a video: its file, its classes, and how many frames it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from camcli.cli.printer import format_made, list_videos
from camcli.records import Record

MOST_CLASSES = 3  # that are named of a video


@dataclass
class _Film:
    """What is known of one video so far."""

    first: Record
    frames: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    probabilities: list[float] = field(default_factory=list)

    def add(self, record: Record) -> None:
        self.frames += 1
        known = "" if record.category is None else f"class {record.category}"
        self.labels[record.label or known] += 1
        if record.probability is not None:
            self.probabilities.append(record.probability)

    @property
    def classes(self) -> str:
        """The classes that were explained, the most frequent first, and how sure the model was."""
        (label, frames), *others = self.labels.most_common()
        if not others:
            return f"{label}{self._range}".strip()
        named = [f"{label} in {frames}", *(f"{o} in {n}" for o, n in others[: MOST_CLASSES - 1])]
        more = len(others) - MOST_CLASSES + 1
        return ", ".join(named) + (f" and {more} more" if more > 0 else "")

    @property
    def _range(self) -> str:
        if not self.probabilities:
            return ""
        low, high = min(self.probabilities), max(self.probabilities)
        return f" {low:.1%}" if low == high else f" {low:.1%} to {high:.1%}"


@dataclass
class FilmLines:
    """Collects the frames of a film, whose videos get a line each when it has ended."""

    _films: dict[str, _Film] = field(default_factory=dict)
    _warnings: set[str] = field(default_factory=set)

    def add(self, record: Record) -> tuple[str, ...]:
        """Counts a frame; returns those of its warnings that no frame before it had."""
        for video in list_videos(record):
            self._films.setdefault(video, _Film(record)).add(record)
        new = tuple(w for w in dict.fromkeys(record.warnings) if w not in self._warnings)
        self._warnings.update(new)
        return new

    def end(self) -> Iterator[tuple[str, str, str]]:
        """Yields file, classes, and how they were made, of each video of the film that ended."""
        for video, film in self._films.items():
            frames = f"{film.frames} frame{'' if film.frames == 1 else 's'}"
            yield video, film.classes, f"{format_made(film.first)}, {frames}"
        self._films.clear()
        self._warnings.clear()
