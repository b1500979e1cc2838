"""Runs a plan: explains the sources and records the outcomes in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from camcli.config import Options
from camcli.errors import OutputError, TooManyFailures
from camcli.models.load import Classifier
from camcli.pipeline import stages
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.flow import Flow, Work
from camcli.pipeline.frame_smoothing import FrameSmoothing
from camcli.pipeline.plan import Plan, compile_model, make_plan
from camcli.pipeline.run_state import RunState, Shard, open_run
from camcli.pipeline.shutdown import StopRequest
from camcli.pipeline.stages import PreparedPicture
from camcli.pipeline.work_items import WorkItem, list_items, may_have_films
from camcli.pipeline.workers.process_work import ProcessWork, check_can_fork
from camcli.pipeline.workers.thread_work import ThreadWork
from camcli.pipeline.workers.worker_pool import WorkerPool, default_workers, start_workers
from camcli.pipeline.writing.color_scale import ColorScales
from camcli.pipeline.writing.output_checks import check_outputs
from camcli.pipeline.writing.output_writer import OutputWriter
from camcli.pipeline.writing.spool import Spool, read_again, restore_pixels
from camcli.pipeline.writing.video_outputs import DrawnFrame, VideoOutputs
from camcli.records import Outcome, Picture, Record, Source
from camcli.render.colormap import find_colormap

if TYPE_CHECKING:
    from camcli.pipeline.sheets.run_sheet import DrawnSheet

Input = TypeVar("Input")
Explained = TypeVar("Explained")


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True)
class RunCallbacks:
    """Functions that a run calls on its way.

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
    """Explains sources and writes files; yields a record for each heatmap or failed picture.

    Raises UsageError before anything is written if names, outputs or options do not fit, and
    otherwise the errors of `carry_out_plan`.
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
    """Explains the sources by a plan, with threads beside the model; outcomes come in order.

    `shard` is the rank whose share the sources are, and the number of ranks.  Raises OutputError if
    files can no longer be written, TooManyFailures, or the reason that `stop` was given; each of
    them after everything that was begun has come out.
    """
    stop = stop or StopRequest()
    find_colormap(options.colormap)
    plan.check_named(sources)
    check_outputs(sources, plan, options)
    check_can_fork(sources, options)
    made: list[Record] = []
    with open_run(plan, sources, options, shard) as state:
        callbacks.begins(state)
        threads = _count_threads(plan, state.sources, options)
        with (
            # first, since threads would not be forked along
            _start_processes(plan, state, options) as processes,
            compile_model(plan) as blocks,
            start_workers(0 if processes else threads) as pool,
        ):
            if blocks is not None:
                callbacks.compiled(blocks)
            run = _LocalRun(plan, state, options, stop, callbacks, pool, processes)
            for outcome in run.outcomes():
                try:
                    recorded = stages.record(outcome, state)
                except OutputError as error:
                    # pictures that were begun behind it may still be written
                    stop.ask(error)
                    continue
                if options.sheet and not state.run:
                    made += recorded.records
                yield recorded
                check_failures(state.counts.failed, options, stop)
        # a camera's film does not end otherwise
        by_hand = options.camera is not None and isinstance(stop.reason, KeyboardInterrupt)
        if stop.reason and not by_hand:
            raise stop.reason
        if options.export:
            # imported here: it imports readers of YAML and XML, which no other run needs
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
            # what draws a sheet takes a while to import
            from camcli.pipeline.sheets.run_sheet import draw_run_sheet

            callbacks.drawn(draw_run_sheet(made, sources, options, state.run))
        state.finish()


def check_failures(failures: int, options: Options, stop: StopRequest) -> None:
    """Asks the run to end if it has more failures than its options allow."""
    if options.fail_fast and failures:
        stop.ask(TooManyFailures("Stopped at the first picture that failed (--fail-fast)."))
    if options.max_failures is not None and failures > options.max_failures:
        allowed = options.max_failures
        stop.ask(TooManyFailures(f"Stopped: more than {allowed} pictures failed (--max-failures)."))


def _count_threads(plan: Plan, sources: Sequence[Source], options: Options) -> int:
    if len(sources) == 1 and not may_have_films(sources, options):
        return 0  # a single picture leaves nothing to do beside the model
    if options.workers is not None:
        return options.workers
    return default_workers(plan.classifier.device.type)


@contextmanager
def _start_processes(plan: Plan, state: RunState, options: Options) -> Iterator[ProcessWork | None]:
    """Starts the processes that a run asks for; a single picture leaves nothing to do for them."""
    if not options.processes or len(state.sources) == 1:
        yield None
        return
    scale = options.scale
    assert scale != "run"
    scales = ColorScales(None if scale == "image" else scale)
    with ProcessWork(plan, options, state, scales, options.processes) as processes:
        yield processes


@dataclass(frozen=True)
class _LocalRun:
    """A run's flows: one from files to overlays, or two if its pictures share one scale."""

    plan: Plan
    state: RunState
    options: Options
    stop: StopRequest
    callbacks: RunCallbacks
    pool: WorkerPool
    processes: ProcessWork | None = None

    def outcomes(self) -> Iterator[Outcome]:
        """Yields the outcomes of all sources, in order."""
        scale = self.options.scale
        if scale == "run":
            yield from self._on_one_scale()
            return
        with self._write(ColorScales(None if scale == "image" else scale)) as ending:
            yield from self._explain(ending).outcomes()

    def _on_one_scale(self) -> Iterator[Outcome]:
        """Computes all raw maps before it draws the first one; then reads the pictures again."""
        with Spool() as spool:
            failed = looked_at = 0
            for outcome in self._explain(LayAside(spool)).outcomes():
                failed += outcome.failed
                looked_at += outcome.last
                self.callbacks.looked_at(looked_at)
                check_failures(failed, self.options, self.stop)
            if self.stop.reason:
                # nothing is drawn yet, so only failed pictures are done
                yield from spool.failures(self.options)
                return
            scales = ColorScales(by_key={**spool.scales, **self.state.scales})
            with self._write(scales) as ending:
                yield from self._draw_again(spool, ending).outcomes()

    def _explain(self, ending: WriteOutputs | LayAside) -> Flow[Any, Any]:
        """Reads the sources and explains them."""
        sources = self.state.claim_sources(self.callbacks.left_out)
        items = list_items(sources, self.options, self.stop)
        if self.processes:
            return self._flow(
                items, Work(self.processes, self.processes.explain, self.plan.batch_size, ending)
            )
        frames = self.options.smooth_frames
        smoothing = FrameSmoothing(frames) if frames else None
        beside = self._work_in_threads(self._prepare, ending, smoothing)
        work = Work(beside, self._explain_batch, self.plan.batch_size, ending)
        return self._flow(items, work)

    def _draw_again(self, spool: Spool, ending: WriteOutputs) -> Flow[Any, Any]:
        """Reads the pictures again and draws the stored explanations."""
        beside = self._work_in_threads(restore_pixels, ending)
        work: Work[list[Explanation], list[Explanation]] = Work(beside, iter, 1, ending)
        return self._flow(read_again(iter(spool), self.options), work)

    def _work_in_threads(
        self,
        prepare: Callable[[WorkItem, Picture], Input],
        ending: WriteOutputs | LayAside,
        smoothing: FrameSmoothing | None = None,
    ) -> ThreadWork[Input]:
        return ThreadWork(
            self.pool,
            prepare,
            ending.draw,
            self.options.max_pixels,
            self.plan.batch_size,
            holds=self.plan.classifier.device.type == "cpu",
            smoothing=smoothing,
        )

    def _flow(
        self, items: Iterator[WorkItem], work: Work[Input, Explained]
    ) -> Flow[Input, Explained]:
        has_films = may_have_films(self.state.sources, self.options)
        return Flow(items, work, self.plan, self.options, self.pool, self.stop, has_films=has_films)

    def _prepare(self, _: WorkItem, picture: Picture) -> PreparedPicture:
        return stages.prepare(picture, self.plan)

    def _explain_batch(self, batch: Sequence[PreparedPicture]) -> Iterator[list[Explanation]]:
        if self.plan.other:
            # no other run needs it
            from camcli.pipeline.comparison.model_comparison import explain_by_both

            return explain_by_both(batch, self.plan)
        return stages.explain_batch(batch, self.plan)

    def _write(self, scales: ColorScales) -> WriteOutputs:
        return WriteOutputs(OutputWriter(self.plan, self.options, self.state, scales))


class WriteOutputs(ExitStack):
    """Draws and writes explanations; those of frames go into videos."""

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
        """Completes a film's videos at its end; raises OutputError."""
        assert item.outcome is not None
        return self._videos.pass_by(item.outcome, item.film) if item.film else item.outcome

    def give_up(self, item: WorkItem, error: OutputError) -> NoReturn:
        """Drops the videos of a film that lacks a frame; raises the error."""
        if item.film:
            self._videos.give_up(error, item.film)
        raise error


@dataclass(frozen=True)
class LayAside:
    """Stores explanations on disk until those of all pictures are known."""

    spool: Spool

    def draw(self, _: WorkItem, explanations: list[Explanation]) -> list[Explanation]:
        """Returns the explanations: nothing is drawn yet."""
        return explanations

    def finish(self, item: WorkItem, explanations: list[Explanation]) -> Outcome:
        """Stores an item's explanations; raises OutputError."""
        self.spool.add(item, explanations)
        return Outcome(item.source, (), last=item.ends_picture)

    def pass_by(self, item: WorkItem) -> Outcome:
        """Stores an outcome; raises OutputError."""
        assert item.outcome is not None
        self.spool.add(item, ())
        return item.outcome

    def give_up(self, _: WorkItem, error: OutputError) -> NoReturn:
        """Raises the error."""
        raise error
