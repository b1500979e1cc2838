"""The run: sources are read, explained and written side by side, and come out in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from camcli.config import Options
from camcli.errors import ImageError, OutputError, TooManyFailures, UnknownName
from camcli.media.read import read_picture
from camcli.models.load import Classifier
from camcli.pipeline.explanation import Explanation, Prepared, explain_batch, prepared
from camcli.pipeline.flow import default_workers, ordered, workers
from camcli.pipeline.keeping import Kept, Shard, kept
from camcli.pipeline.outputs import Writer, check_outputs, source_of, why
from camcli.pipeline.plan import Plan, compiled, plan
from camcli.pipeline.stopping import Stop
from camcli.records import Outcome, Record, Source
from camcli.render.colour import lookup_table
from camcli.stages import stage

if TYPE_CHECKING:
    from concurrent.futures import Executor

# a batch waits for that many failures at most, times its size, until it is full
PATIENCE = 16


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
    begins: Callable[[Kept], None] = lambda _: None,
    shard: Shard | None = None,
) -> Iterator[Outcome]:
    """Does what is planned with the sources, in threads beside the model; outcomes in their order.

    What is still to be done is told to `begins`; a shard is a rank and the number of ranks, whose
    share the sources are.  Raises OutputError where files can no longer be written,
    TooManyFailures, or the reason for which `stop` was asked: each when all that was begun has come
    out.
    """
    stop = stop or Stop()
    lookup_table(options.colormap)
    todo.check_named(sources)
    check_outputs(sources, todo, options)
    with kept(todo, sources, options, shard) as run_kept:
        begins(run_kept)
        yield from _carried_out(todo, run_kept, options, stop)
        if stop.reason:
            raise stop.reason
        run_kept.finish()


def _carried_out(todo: Plan, run_kept: Kept, options: Options, stop: Stop) -> Iterator[Outcome]:
    with compiled(todo), workers(_threads(run_kept.sources, options)) as pool:
        for found in _flow(todo, run_kept, options, stop, pool):
            # what comes behind one that could not be written is done again, in its order
            if isinstance(stop.reason, OutputError):
                continue
            try:
                if isinstance(found, OutputError):
                    raise found
                yield run_kept.add(found)
            except OutputError as error:
                stop.ask(error)
            _check_failures(run_kept.counts.failed, options, stop)


def _threads(sources: Sequence[Source], options: Options) -> int:
    if len(sources) == 1:
        return 0  # nothing could be done beside it
    return default_workers() if options.workers is None else options.workers


def _check_failures(failures: int, options: Options, stop: Stop) -> None:
    if options.fail_fast and failures:
        stop.ask(TooManyFailures("Stopped at the first picture that failed (--fail-fast)."))
    if options.max_failures is not None and failures > options.max_failures:
        allowed = options.max_failures
        stop.ask(TooManyFailures(f"Stopped: more than {allowed} pictures failed (--max-failures)."))


Work = tuple[Prepared, list[Explanation]]


def _flow(
    todo: Plan, run_kept: Kept, options: Options, stop: Stop, pool: Executor | None
) -> Iterator[Outcome | OutputError]:
    # while the model looks at a batch, the one before is written and the next one is read
    ahead = todo.batch_size + 1
    read = partial(_read, todo=todo, max_pixels=options.max_pixels)
    write = partial(_write, writer=Writer(todo, options, run_kept))
    with closing(ordered(read, stop.until(run_kept.sources), pool, ahead)) as pictures:
        batches = stop.until(_batches(pictures, todo.batch_size))
        with closing(ordered(write, _explained(batches, todo), pool, ahead)) as outcomes:
            yield from outcomes


@stage("decode")
def _read(source: Source, todo: Plan, max_pixels: int) -> Prepared | Outcome:
    try:
        return prepared(read_picture(source, max_pixels), todo)
    except (ImageError, MemoryError, UnknownName) as error:
        failure = Record(source=str(source), error=why(error, source.path))
        return Outcome(source, (failure,))


def _batches(
    pictures: Iterable[Prepared | Outcome], size: int
) -> Iterator[list[Prepared | Outcome]]:
    """Groups pictures, `size` readable ones together, and what failed between them."""
    group: list[Prepared | Outcome] = []
    readable = 0
    for picture in pictures:
        group.append(picture)
        readable += isinstance(picture, Prepared)
        if readable in (0, size) or len(group) == PATIENCE * size:
            yield group
            group, readable = [], 0
    if group:
        yield group


def _explained(
    groups: Iterable[Sequence[Prepared | Outcome]], todo: Plan
) -> Iterator[Work | Outcome]:
    for group in groups:
        batch = [picture for picture in group if isinstance(picture, Prepared)]
        found = iter(explain_batch(batch, todo) if batch else ())
        for picture in group:
            yield (picture, next(found)) if isinstance(picture, Prepared) else picture


def _write(work: Work | Outcome, writer: Writer) -> Outcome | OutputError:
    if isinstance(work, Outcome):
        return work
    picture, explanations = work
    try:
        records = tuple(writer.written(explanations))
    except OutputError as error:
        # one that is half written is none: what comes later does it again
        return error
    return Outcome(source_of(picture.picture), records)
