"""The run: sources are read, explained and written side by side, and come out in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from camcli.config import Options
from camcli.errors import ImageError, OutputError, TooManyFailures, UnknownName
from camcli.media.read import OpenPicture, open_picture
from camcli.models.load import Classifier
from camcli.pipeline.batches import Prepared, explain_batch, prepared
from camcli.pipeline.color_scale import Scales
from camcli.pipeline.frame_smoothing import smoothed
from camcli.pipeline.memory_budget import (
    FOR_FILES,
    Budget,
    Need,
    Pause,
    memory_for,
)
from camcli.pipeline.output_writer import Writer, check_outputs, source_of, why
from camcli.pipeline.plan import Plan, compiled, plan
from camcli.pipeline.run_state import Kept, Shard, kept
from camcli.pipeline.shutdown import Stop
from camcli.pipeline.spool import Again, Spool, read_again, with_pixels
from camcli.pipeline.video_outputs import Drawn, Films, FrameWriter
from camcli.pipeline.work_items import Film, Item, Work, ahead, items, may_move
from camcli.pipeline.worker_pool import Threads, default_workers, ordered, workers
from camcli.records import Outcome, Picture, Record, Source
from camcli.render.colour import lookup_table
from camcli.stages import stage

Given = TypeVar("Given")

# a batch waits for that many failures at most, times its size, until it is full
PATIENCE = 16


def _unheard(_: object) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Who is told what is still to be done, how many blocks are compiled, and what was looked at.

    Pictures are looked at before any is drawn where they share a scale.  `left_out` is told how
    many more are left to another process, less than none where it died.
    """

    begins: Callable[[Kept], None] = _unheard
    compiled: Callable[[int], None] = _unheard
    looked_at: Callable[[int], None] = _unheard
    left_out: Callable[[int], None] = _unheard


UNWATCHED = Watch()


def run(classifier: Classifier, sources: Sequence[Source], options: Options) -> Iterator[Record]:
    """Explains sources and writes the files; one record a heatmap, or a picture that failed.

    Raises UsageError before anything is written where names, outputs or options do not fit, and
    else as `carried_out`.
    """
    for outcome in carried_out(plan(classifier, options), sources, options):
        yield from outcome.records


def carried_out(
    todo: Plan,
    sources: Sequence[Source],
    options: Options,
    stop: Stop | None = None,
    watch: Watch = UNWATCHED,
    shard: Shard | None = None,
) -> Iterator[Outcome]:
    """Does what is planned with the sources, in threads beside the model; outcomes in their order.

    A shard is a rank and the number of ranks, whose share the sources are.  Raises OutputError
    where files can no longer be written, TooManyFailures, or the reason for which `stop` was asked:
    each when all that was begun has come out.
    """
    stop = stop or Stop()
    lookup_table(options.colormap)
    todo.check_named(sources)
    check_outputs(sources, todo, options)
    with kept(todo, sources, options, shard) as run_kept:
        watch.begins(run_kept)
        with compiled(todo) as blocks, workers(_threads(todo, run_kept.sources, options)) as pool:
            if blocks is not None:
                watch.compiled(blocks)
            budget = Budget(memory_for(options.max_memory), pool.count if pool else 1)
            yield from _carried_out(_Flow(todo, run_kept, options, stop, watch, pool, budget))
        # nothing else ends a camera's film
        by_hand = options.camera is not None and isinstance(stop.reason, KeyboardInterrupt)
        if stop.reason and not by_hand:
            raise stop.reason
        run_kept.finish()


def _carried_out(flow: _Flow) -> Iterator[Outcome]:
    for found in flow.outcomes():
        try:
            if isinstance(found, OutputError):
                raise found
            outcome = flow.kept.add(found)
        except OutputError as error:
            # what was begun behind it may still find its place
            flow.stop.ask(error)
            continue
        yield outcome
        check_failures(flow.kept.counts.failed, flow.options, flow.stop)


def _threads(todo: Plan, sources: Sequence[Source], options: Options) -> int:
    if len(sources) == 1 and not may_move(sources, options):
        return 0  # nothing could be done beside it
    if options.workers is not None:
        return options.workers
    return default_workers(todo.classifier.device.type)


def check_failures(failures: int, options: Options, stop: Stop) -> None:
    """Asks a run to end that has more failures than its options put up with."""
    if options.fail_fast and failures:
        stop.ask(TooManyFailures("Stopped at the first picture that failed (--fail-fast)."))
    if options.max_failures is not None and failures > options.max_failures:
        allowed = options.max_failures
        stop.ask(TooManyFailures(f"Stopped: more than {allowed} pictures failed (--max-failures)."))


# a picture file that was read and not decoded yet, or what is passed on in its place
Opened: TypeAlias = "OpenPicture | Film | Picture | Outcome"
# a picture that can be given to the model, or what is passed on in its place
Read: TypeAlias = "Prepared | Film | Outcome"


@dataclass(frozen=True)
class _Flow:
    """The way of pictures and frames through threads and model."""

    todo: Plan
    kept: Kept
    options: Options
    stop: Stop
    watch: Watch
    pool: Threads | None
    budget: Budget

    def outcomes(self) -> Iterator[Outcome | OutputError]:
        """Yields what came of everything, in order."""
        scale = self.options.scale
        if scale == "run":
            return self._on_one_scale()
        return self._written(
            self._explained(), _as_it_is, Scales(None if scale == "image" else scale)
        )

    def _on_one_scale(self) -> Iterator[Outcome | OutputError]:
        """Finds all raw maps before the first one is drawn, and reads the pictures once more."""
        with Spool() as spool:
            failed = looked_at = 0
            for work in self._explained():
                if isinstance(work, Pause):
                    continue
                spool.add(work)
                self.budget.leave()
                failed += isinstance(work, Outcome) and work.failed
                looked_at += _ends_picture(work)
                self.watch.looked_at(looked_at)
                check_failures(failed, self.options, self.stop)
            if self.stop.reason:
                # nothing is drawn, and so only pictures that failed are done
                yield from spool.failures(self.options)
                return
            scales = Scales(by_key={**spool.scales, **self.kept.scales})
            again = read_again(iter(spool), self.options)
            with closing(ahead(again, self.pool)) as coming:
                read = partial(with_pixels, options=self.options)
                admitted = self.budget.admit(self.stop.until(coming), self._need)
                yield from self._written(admitted, read, scales)

    def _explained(self) -> Generator[Work | Pause, None, None]:
        options, until = self.options, self.stop
        found = items(self.kept.claimed(self.watch.left_out), options, self.stop)
        if options.camera is not None:
            # its film ends by itself where it is stopped, with all that was seen
            until = Stop()
        pool = self.pool if may_move(self.kept.sources, options) else None
        files = self.budget.limit // FOR_FILES
        open_ = partial(_open, max_pixels=options.max_pixels)
        read = partial(_read, todo=self.todo)
        with (
            closing(ahead(found, pool)) as coming,
            closing(
                ordered(open_, until.until(coming), self.pool, self._ahead, _file_size, files)
            ) as opened,
            closing(
                ordered(read, self.budget.admit(opened, self._need), self.pool, self._ahead)
            ) as pictures,
        ):
            batches = until.until(_batches(pictures, self.todo.batch_size))
            explained = _explained(batches, self.todo, self._alone)
            if options.smooth_frames:
                explained = smoothed(explained, options.smooth_frames)
            yield from explained

    def _written(
        self, works: Iterable[Any], found_in: Callable[[Any], Work], scales: Scales
    ) -> Iterator[Outcome | OutputError]:
        writer = Writer(self.todo, self.options, self.kept, scales)
        write = partial(_write, found_in=found_in, writer=writer)
        moving = self.pool is not None and may_move(self.kept.sources, self.options)
        with (
            closing(ordered(write, works, self.pool, self._ahead)) as drawn,
            Films() as films,
            # a thread of their own keeps the frames in their order
            workers(1) if moving else nullcontext() as pen,
            closing(ordered(films.take, drawn, pen, self._ahead)) as taken,
        ):
            for outcome in taken:
                if isinstance(outcome, Pause):
                    continue
                self.budget.leave()
                if outcome is not None:
                    yield outcome

    def _need(self, item: Opened | Again) -> Need:
        """Returns what a picture, or a frame, takes until all of it is written."""
        if isinstance(item, Film | Outcome):
            return Need()
        overlays = self.todo.overlays_per_picture
        if isinstance(item, OpenPicture):
            need = Need.of(item.size, at_work=overlays if self.todo.on_sheets else 0)
            return replace(need, held=need.held + len(item.content))
        size = item.size if isinstance(item, Picture) else item[0][0].record.picture_size
        assert size is not None
        return Need.of(size, held=overlays)

    def _alone(self) -> AbstractContextManager[None]:
        """Gives the model the cores that it runs on."""
        on_cpu = self.todo.classifier.device.type == "cpu"
        return self.pool.held() if self.pool and on_cpu else nullcontext()

    @property
    def _ahead(self) -> int:
        # while the model looks at a batch, the one before is written and the next one is read
        return self.todo.batch_size + 1


def _file_size(item: Item) -> int:
    """Returns the bytes of a file, as far as that is known before it is read."""
    if not isinstance(item, Source) or item.url:
        return 0
    try:
        return item.path.stat().st_size
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return 0


@stage("decode")
def _open(item: Item, max_pixels: int) -> Opened:
    if not isinstance(item, Source):
        return item
    try:
        return open_picture(item, max_pixels)
    except (ImageError, MemoryError) as error:
        return Outcome.failure(item, why(error, item.path))


@stage("decode")
def _read(opened: Opened, todo: Plan) -> Read:
    if isinstance(opened, Film | Outcome):
        return opened
    source, frame = opened.source, None
    if isinstance(opened, Picture):
        source, frame = source_of(opened), opened.frame
    assert source is not None
    try:
        return prepared(opened if isinstance(opened, Picture) else opened.decode(), todo)
    except (ImageError, MemoryError, UnknownName) as error:
        return Outcome.failure(source, why(error, source.path), frame)


def _batches(pictures: Iterable[Read | Pause], size: int) -> Iterator[list[Read] | Pause]:
    """Groups pictures, `size` readable ones together, and what failed between them.

    In front of a pause a group is smaller.
    """
    group: list[Read] = []
    readable = 0
    for picture in pictures:
        if isinstance(picture, Pause):
            if group:
                yield group
            group, readable = [], 0
            yield picture
            continue
        group.append(picture)
        readable += isinstance(picture, Prepared)
        if readable in (0, size) or len(group) == PATIENCE * size:
            yield group
            group, readable = [], 0
    if group:
        yield group


def _explained(
    groups: Iterable[Sequence[Read] | Pause],
    todo: Plan,
    alone: Callable[[], AbstractContextManager[None]],
) -> Iterator[Work | Pause]:
    # a GPU passes on to the next batch while what it found in this one is looked at
    ahead = 1 if todo.classifier.device.type == "cuda" else 0
    begun: deque[Iterator[Work]] = deque()
    for group in groups:
        if isinstance(group, Pause):
            while begun:
                yield from begun.popleft()
            yield group
            continue
        with alone():
            begun.append(_begun(group, todo))
        while len(begun) > ahead:
            yield from begun.popleft()
    while begun:
        yield from begun.popleft()


def _begun(group: Sequence[Read], todo: Plan) -> Iterator[Work]:
    """Begins the pass of a group's pictures, and yields what came of each in the group's order."""
    batch = [picture for picture in group if isinstance(picture, Prepared)]
    found = iter(explain_batch(batch, todo) if batch else ())
    return (next(found) if isinstance(picture, Prepared) else picture for picture in group)


def _ends_picture(work: Work) -> bool:
    """Tells whether a picture, or a video, is behind the run with this."""
    if isinstance(work, Outcome):
        return work.last
    return not isinstance(work, Film) and work[0].picture.frame is None


def _as_it_is(work: Work) -> Work:
    return work


def _write(given: Given, found_in: Callable[[Given], Work], writer: Writer) -> Drawn:
    work = found_in(given)
    if isinstance(work, Film | Outcome):
        return work
    picture = work[0].picture
    try:
        if picture.frame is not None:
            return FrameWriter(writer).drawn(work)
        return Outcome(source_of(picture), tuple(writer.written(work)))
    except OutputError as error:
        # one that is half written is none: what comes later does it again
        return error
