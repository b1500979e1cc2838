"""Prints what a run does, its records, and what they share once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.cli.film_lines import FilmLines
from camcli.cli.printer import Printer, drop_output, list_videos, print_error, print_path
from camcli.cli.progress import Tally
from camcli.errors import PrintError
from camcli.method_terms import BEST
from camcli.utils.text_files import escape_text

if TYPE_CHECKING:
    from camcli.cli.picture_display import Display
    from camcli.pipeline.sheets.run_sheet import DrawnSheet
    from camcli.records import Outcome, Record

# for every kind of network, since only passes of noise could tell which one this is
BEST_HINT = (
    "; --method best joins an earlier layer's map with this one's, or with attention's, and was "
    "measured to lie on the object more often"
)
# of a picture, less than which is not worth a word
LEAST_LEFT_OUT = 0.01


@dataclass
class Results:
    """Prints what a run does, its records, and what they share once."""

    printer: Printer
    tally: Tally
    is_layer_printed: bool
    recommends_best: bool = True
    methods: int = 1
    # what says that a person knows of the crop
    tells_crop: bool = True
    sheet: str = ""
    show: Callable[[], None] = lambda: None
    # draws a record's picture in the terminal, where that is asked for
    display: Display | None = None
    # of the one whose frames come
    videos: set[str] = field(default_factory=set)
    # reasons of names that were told
    reasons: set[str] = field(default_factory=set)
    # parts of the combinations that were told
    choices: set[tuple[str, ...]] = field(default_factory=set)
    films: FilmLines = field(default_factory=FilmLines)
    unprinted: bool = False

    def report_plan(self, left_out: Mapping[str, str], methods: int) -> None:
        """Says which methods are left out, and why."""
        self.methods = methods
        for why, names in _group_reasons(left_out).items():
            self.printer.note(f"left out: {', '.join(names)}: {why}")

    def report_start(self, sources: int, skipped: int, replaced: int, batch: int) -> None:
        """Says what is done already, or done again."""
        self.tally.total = sources
        self.tally.begin(batch)
        if skipped:
            total = sources + skipped
            self.printer.note(f"{skipped} of {total} were done before, and are left as they are")
        if replaced:
            self.printer.note(f"heatmaps of the same command are replaced: {replaced}")

    def report_compiled(self, blocks: int) -> None:
        """Says how much of the model is compiled."""
        self.printer.note(f"compiled blocks of the model: {blocks}")

    def report_first_pass(self, pictures: int) -> None:
        """Counts what is known before the first picture is drawn."""
        self.tally.look(pictures)
        self.show()

    def report_export(self, written: Sequence[Path]) -> None:
        """Says where boxes were written."""
        for path in written:
            self.printer.note(f"boxes of pictures: {path}")
        if not written:
            self.printer.note("no boxes were exported: no picture was explained")

    def report_sheet(self, drawn: DrawnSheet) -> None:
        """Says where a run's sheet is, and what is not on it."""
        for path in drawn.files:
            if self.printer.style == "paths":
                print_path(str(path))
            else:
                self.printer.note(f"sheet: {path}")
        for missing in drawn.missing:
            self.printer.note(f"left out of the sheet: {missing}")
        if not drawn.files:
            self.printer.note("no sheet was drawn: no picture was explained")

    def print_all(self, outcome: Outcome) -> None:
        """Prints what came of a picture; a run goes on where nothing more can be printed."""
        if self.unprinted:
            return
        try:
            for record in outcome.records:
                self.print(record)
            if outcome.last:
                self.end_film(is_written=not outcome.failed)
        except PrintError as problem:
            self.unprinted = True
            print_error(str(problem))
            drop_output()

    def print(self, record: Record) -> None:
        """Prints one record; that of a frame is counted, since its video has a line of its own."""
        if record.renamed and record.renamed not in self.reasons:
            self.reasons.add(record.renamed)
            name = Path(record.sheet or next(iter(record.outputs), "")).name
            self.printer.note(f"named {name}: {record.renamed}")
        if record.parts:
            self._print_choice(record)
        elif not self.is_layer_printed and record.layers:
            # the maps of values have two signs, and best has one
            is_usual = record.method == "gradcam" and record.value is None
            hint = BEST_HINT if is_usual and self.recommends_best else ""
            layers = ", ".join(record.layers)
            self.printer.note(f"target layer {layers}: {record.layer_reason}{hint}")
            self.is_layer_printed = True
        if record.sheet and record.sheet != self.sheet:
            self.sheet = record.sheet
            self.printer.sheet(record, self.methods)
        self.videos.update(list_videos(record))
        self._print_crop(record)
        if self.printer.style == "text" and list_videos(record):
            new = self.films.add(record)
            self.printer.warn_of(record, new)
        else:
            self.printer.record(record)
        if self.display:
            self.display(record)

    def _print_crop(self, record: Record) -> None:
        """Says once how much of a picture the model's own crop leaves out."""
        share = measure_left_out(record)
        if self.tells_crop and share >= LEAST_LEFT_OUT:
            self.tells_crop = False
            self.printer.note(
                f"the model's own crop leaves out {share:.0%} of {escape_text(record.source)}, "
                "which is dimmed: --fit squash or pad shows the network all of it, --outside keep "
                "shows you the picture as it is"
            )

    def _print_choice(self, record: Record) -> None:
        """Says once what is combined, why, and how to say it oneself."""
        if record.parts in self.choices:
            return
        self.choices.add(record.parts)
        what = f"{record.combination} of {', '.join(record.parts)}: {record.layer_reason}"
        if record.method == BEST:
            by_hand = f"--method {','.join(record.parts)} --combine {record.combination}"
            what = f"{what}; to say it yourself: {by_hand}"
        self.printer.note(f"{record.method}: {what}")

    def end_film(self, *, is_written: bool) -> None:
        """Prints a film's videos, which are there only when it has ended well."""
        if is_written and self.printer.style == "paths":
            for path in sorted(self.videos):
                print_path(path)
        lines = list(self.films.end())
        for line in lines if is_written else ():
            self.printer.line(line)
        self.videos.clear()


def measure_left_out(record: Record) -> float:
    """Measures the share of a picture that lies outside the network's view."""
    if record.view is None or record.picture_size is None:
        return 0
    (height, width), view = record.picture_size, record.view
    seen_width = max(min(view.right, width) - max(view.left, 0), 0)
    seen_height = max(min(view.bottom, height) - max(view.top, 0), 0)
    return 1 - seen_width * seen_height / (width * height)


def _group_reasons(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for method, why in left_out.items():
        reasons.setdefault(why, []).append(method)
    return reasons
