"""Runs a plan: explains the sources and records the outcomes in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from camcli.config import Options
from camcli.errors import OutputError, TooManyFailures
from camcli.models.load import Classifier
from camcli.pipeline import stages
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.flow import Ending, Flow, Work
from camcli.pipeline.plan import Plan, compile_model, make_plan
from camcli.pipeline.run_state import RunState, Shard, open_run
from camcli.pipeline.sheets.run_sheet import DrawnSheet, draw_run_sheet
from camcli.pipeline.shutdown import StopRequest
from camcli.pipeline.stages import PreparedPicture
from camcli.pipeline.work_items import WorkItem, list_items, may_have_films
from camcli.pipeline.workers.worker_pool import WorkerPool, default_workers, start_workers
from camcli.pipeline.writing.color_scale import ColorScales
from camcli.pipeline.writing.output_checks import check_outputs
from camcli.pipeline.writing.output_writer import OutputWriter
from camcli.pipeline.writing.spool import Spool, read_again, restore_pixels
from camcli.pipeline.writing.video_outputs import DrawnFrame, VideoOutputs
from camcli.records import Outcome, Picture, Record, Source
from camcli.render.colormap import find_colormap

Input = TypeVar("Input")


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True)
class RunCallbacks:
    """Functions that a run calls as it goes.

    `begins` is called with the state of the run, `compiled` with the number of compiled blocks,
    `looked_at` with the number of pictures whose maps are known before any is drawn (where they
    share a scale), `left_out` with the number of further sources that another process has (negative
    where that process died), `exported` with the files of boxes that were written, `drawn` with the
    run's sheet.
    """

    begins: Callable[[RunState], None] = _ignore
    compiled: Callable[[int], None] = _ignore
    looked_at: Callable[[int], None] = _ignore
    left_out: Callable[[int], None] = _ignore
    exported: Callable[[tuple[Path, ...]], None] = _ignore
    drawn: Callable[[DrawnSheet], None] = _ignore


NO_CALLBACKS = RunCallbacks()


def run_sources(
    classifier: Classifier, sources: Sequence[Source], options: Options
) -> Iterator[Record]:
    """Explains sources and writes the files; one record a heatmap, or a picture that failed.

    Raises UsageError before anything is written where names, outputs or options do not fit, and
    else as `carry_out_plan`.
    """
    for outcome in carry_out_plan(make_plan(classifier, options), sources, options):
        yield from outcome.records


def carry_out_plan(
    plan: Plan,
    sources: Sequence[Source],
    options: Options,
    stop: StopRequest | None = None,
    callbacks: RunCallbacks = NO_CALLBACKS,
    shard: Shard | None = None,
) -> Iterator[Outcome]:
    """Explains the sources as planned, with threads beside the model; outcomes come in order.

    A shard is a rank and the number of ranks, whose share the sources are.  Raises OutputError
    where files can no longer be written, TooManyFailures, or the reason for which `stop` was asked:
    each when all that was begun has come out.
    """
    stop = stop or StopRequest()
    find_colormap(options.colormap)
    plan.check_named(sources)
    check_outputs(sources, plan, options)
    made: list[Record] = []
    with open_run(plan, sources, options, shard) as state:
        callbacks.begins(state)
        threads = _count_threads(plan, state.sources, options)
        with compile_model(plan) as blocks, start_workers(threads) as pool:
            if blocks is not None:
                callbacks.compiled(blocks)
            for outcome in _LocalRun(plan, state, options, stop, callbacks, pool).outcomes():
                try:
                    recorded = stages.record(outcome, state)
                except OutputError as error:
                    # what was begun behind it may still find its place
                    stop.ask(error)
                    continue
                if options.sheet and not state.run:
                    made += recorded.records
                yield recorded
                check_failures(state.counts.failed, options, stop)
        # nothing else ends a camera's film
        by_hand = options.camera is not None and isinstance(stop.reason, KeyboardInterrupt)
        if stop.reason and not by_hand:
            raise stop.reason
        if options.export:
            # brings readers of YAML and XML, which no other run needs
            from camcli.pipeline.writing.box_export import export_boxes

            written = export_boxes(
                options.save_path,
                state.run,
                sources,
                options.export,
                per_layer=options.layer_fusion == "none",
            )
            callbacks.exported(written)
        if options.sheet:
            callbacks.drawn(draw_run_sheet(made, sources, options, state.run))
        state.finish()


def check_failures(failures: int, options: Options, stop: StopRequest) -> None:
    """Asks a run to end if it has more failures than its options allow."""
    if options.fail_fast and failures:
        stop.ask(TooManyFailures("Stopped at the first picture that failed (--fail-fast)."))
    if options.max_failures is not None and failures > options.max_failures:
        allowed = options.max_failures
        stop.ask(TooManyFailures(f"Stopped: more than {allowed} pictures failed (--max-failures)."))


def _count_threads(plan: Plan, sources: Sequence[Source], options: Options) -> int:
    if len(sources) == 1 and not may_have_films(sources, options):
        return 0  # nothing could be done beside it
    if options.workers is not None:
        return options.workers
    return default_workers(plan.classifier.device.type)


@dataclass(frozen=True)
class _LocalRun:
    """A run's flows: one from files to overlays, or two where its pictures have one scale."""

    plan: Plan
    state: RunState
    options: Options
    stop: StopRequest
    callbacks: RunCallbacks
    pool: WorkerPool

    def outcomes(self) -> Iterator[Outcome]:
        """Yields the outcomes of all sources, in order."""
        scale = self.options.scale
        if scale == "run":
            yield from self._on_one_scale()
            return
        with self._write(ColorScales(None if scale == "image" else scale)) as ending:
            yield from self._explain(ending).outcomes()

    def _on_one_scale(self) -> Iterator[Outcome]:
        """Finds all raw maps before the first one is drawn, and reads the pictures once more."""
        with Spool() as spool:
            failed = looked_at = 0
            for outcome in self._explain(LayAside(spool)).outcomes():
                failed += outcome.failed
                looked_at += outcome.last
                self.callbacks.looked_at(looked_at)
                check_failures(failed, self.options, self.stop)
            if self.stop.reason:
                # nothing is drawn, and so only pictures that failed are done
                yield from spool.failures(self.options)
                return
            scales = ColorScales(by_key={**spool.scales, **self.state.scales})
            with self._write(scales) as ending:
                yield from self._draw_again(spool, ending).outcomes()

    def _explain(self, ending: Ending) -> Flow[PreparedPicture]:
        """Reads the sources and explains them."""
        sources = self.state.claim_sources(self.callbacks.left_out)
        work = Work(self._prepare, self._explain_batch, self.plan.batch_size, ending)
        return self._flow(list_items(sources, self.options, self.stop), work)

    def _draw_again(self, spool: Spool, ending: Ending) -> Flow[list[Explanation]]:
        """Reads the pictures again and draws the explanations that were laid aside."""
        work = Work(restore_pixels, iter, 1, ending)
        return self._flow(read_again(iter(spool), self.options), work)

    def _flow(self, items: Iterator[WorkItem], work: Work[Input]) -> Flow[Input]:
        has_films = may_have_films(self.state.sources, self.options)
        return Flow(items, work, self.plan, self.options, self.pool, self.stop, has_films=has_films)

    def _prepare(self, _: WorkItem, picture: Picture) -> PreparedPicture:
        return stages.prepare(picture, self.plan)

    def _explain_batch(self, batch: Sequence[PreparedPicture]) -> Iterator[list[Explanation]]:
        return stages.explain_batch(batch, self.plan)

    def _write(self, scales: ColorScales) -> WriteOutputs:
        return WriteOutputs(OutputWriter(self.plan, self.options, self.state, scales))


class WriteOutputs(ExitStack):
    """Draws explanations and writes them, those of frames into videos."""

    def __init__(self, writer: OutputWriter) -> None:
        super().__init__()
        self._writer = writer
        self._videos = self.enter_context(VideoOutputs())

    def draw(self, item: WorkItem, explanations: list[Explanation]) -> Outcome | DrawnFrame:
        """Writes a picture's files, or draws a frame; raises OutputError."""
        if item.frame:
            return stages.draw_frame(explanations, self._writer)
        return stages.draw_picture(explanations, self._writer)

    def finish(self, item: WorkItem, drawn: Outcome | DrawnFrame) -> Outcome:
        """Writes a frame into its videos; raises OutputError."""
        if isinstance(drawn, Outcome):
            return drawn
        assert item.film is not None
        return stages.add_to_video(drawn, item.film, self._videos)

    def pass_by(self, item: WorkItem) -> Outcome:
        """Completes a film's videos where it ends; raises OutputError."""
        assert item.outcome is not None
        return self._videos.pass_by(item.outcome, item.film) if item.film else item.outcome

    def give_up(self, item: WorkItem, error: OutputError) -> NoReturn:
        """Drops the videos of a film of which a frame is missing; raises the error."""
        if item.film:
            self._videos.give_up(error, item.film)
        raise error


@dataclass(frozen=True)
class LayAside:
    """Lays explanations aside until those of all pictures are known."""

    spool: Spool

    def draw(self, _: WorkItem, explanations: list[Explanation]) -> list[Explanation]:
        """Draws nothing yet."""
        return explanations

    def finish(self, item: WorkItem, explanations: list[Explanation]) -> Outcome:
        """Lays an item's explanations aside; raises OutputError."""
        self.spool.add(item, explanations)
        return Outcome(item.source, (), last=item.ends_picture)

    def pass_by(self, item: WorkItem) -> Outcome:
        """Lays aside an outcome; raises OutputError."""
        assert item.outcome is not None
        self.spool.add(item, ())
        return item.outcome

    def give_up(self, _: WorkItem, error: OutputError) -> NoReturn:
        """Raises the error."""
        raise error
