"""Spreads a run over a Ray cluster, or over this machine; each worker has a model and a share.

Each worker writes a shard of the manifest into the output folder, which all machines share.  The
driver reads these shards to follow the run, and joins them at the end.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camcli.config import Options
from camcli.errors import EXIT_USAGE, CamvizError, DeviceError, TooManyFailures, UsageError
from camcli.models.load import Classifier
from camcli.pipeline.distributed import sharding
from camcli.pipeline.plan import make_plan
from camcli.pipeline.run_state import RunState, Shard
from camcli.pipeline.runner import RunCallbacks, carry_out_plan, check_failures
from camcli.pipeline.shutdown import StopRequest
from camcli.pipeline.workers.worker_pool import default_workers
from camcli.records import Outcome, Source
from camcli.runs import (
    Counts,
    ManifestTail,
    RunInfo,
    identify_source,
    list_world_sizes,
    merge_shards,
    parse_record,
    read_manifest,
)
from camcli.utils.runtime_tuning import keep_freed_memory

Load = Callable[[Options], Classifier]

POLL = 0.25  # seconds
PATIENCE = 10.0  # seconds
# limited, since a picture that kills its worker would do so every time
RESTARTS = 100
# Ray prints news of its workers to standard output, which is for results
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": r"[\s\S]",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class WorkerStart:
    """What workers still have to do, and the warnings of their models and plans.

    `batch_size` is how many pictures they explain at a time, all together.
    """

    sources: int
    replaced: int
    methods: int
    warnings: tuple[str, ...]
    left_out: dict[str, str]
    batch_size: int


@dataclass(frozen=True)
class WorkerTask:
    """A worker's share of a run; names of files are relative to `folder`."""

    sources: tuple[Source, ...]
    options: Options
    load: Load
    shard: Shard
    folder: Path


def run_on_ray(
    sources: Sequence[Source],
    options: Options,
    load: Load,
    stop: StopRequest,
    begins: Callable[[WorkerStart], None],
) -> Iterator[Outcome]:
    """Explains sources in Ray workers and joins their manifests; yields outcomes as they come.

    `begins` is called with what still has to be done.  Raises UsageError if Ray or its workers
    cannot do it, and otherwise the errors of `carry_out_plan`.
    """
    sharding.check_can_shard(options)
    ray = import_ray()
    with join_cluster(ray):
        workers = RayWorkers.of(ray, options, len(sources))
        _join_leftovers(options, workers.count)
        tasks = [
            WorkerTask(
                tuple(sharding.take_share(sources, shard)), workers.options, load, shard, Path.cwd()
            )
            for shard in workers.shards
        ]
        yield from _drive(ray, workers.start(ray, tasks), options, stop, begins)
    if not stop.reason or list_world_sizes(options.save_path):
        merge_shards(options.save_path, incomplete=bool(stop.reason))
    if stop.reason:
        raise stop.reason


def import_ray() -> Any:
    """Imports Ray, which is an extra; raises UsageError if it is not installed."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray, which is not installed: pip install 'camviz[ray]'"
        ) from error
    return ray


@contextmanager
def join_cluster(ray: Any) -> Iterator[None]:
    """Joins the cluster of `RAY_ADDRESS`, or starts Ray on this machine; leaves it afterwards."""
    address = os.environ.get("RAY_ADDRESS")
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _check_answers(address)
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init("local", log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"join the Ray cluster at RAY_ADDRESS={address}" if address else "start Ray here"
        raise UsageError(f"Cannot {where}: {error}") from error
    finally:
        # Ray replaces the signal handler that ends a run in order
        if in_main:
            signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises OSError if no process listens there; Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()


@dataclass(frozen=True)
class RayWorkers:
    """The number of workers, and what each of them takes of the cluster."""

    count: int
    needs: dict[str, float]
    options: Options

    @classmethod
    def of(cls, ray: Any, options: Options, pictures: int) -> RayWorkers:
        """Plans the given number of workers, or one for each GPU (without GPUs, each CPU)."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        kind = _find_kind(nodes, options.device)
        places = sum(node.get(kind, 0) for node in nodes)
        count = max(1, min(options.ray_workers or int(places), pictures))
        # several workers share a GPU or CPU if more workers are asked for
        part = min(1.0, places / count)
        homes = [(node.get("CPU", 1), node[kind] / part) for node in nodes if node.get(kind)]
        cores = _share_cores(homes, count)
        of_gpu = {"num_gpus": part, "num_cpus": 0}
        of_cpu = {"num_cpus": part if part < 1 else cores}
        device = "cuda" if kind == "GPU" else "cpu"
        threads = default_workers(device, cores) if options.workers is None else options.workers
        changed: dict[str, Any] = {"device": device, "workers": threads}
        if isinstance(options.max_memory, float):
            # the workers of one machine share its memory
            changed["max_memory"] = options.max_memory / -(-count // len(homes))
        return cls(count, of_gpu if kind == "GPU" else of_cpu, options.model_copy(update=changed))

    @property
    def shards(self) -> list[Shard]:
        """The share of each worker."""
        return [(rank, self.count) for rank in range(self.count)]

    def start(self, ray: Any, tasks: Sequence[WorkerTask]) -> list[Any]:
        """Starts a worker for each task; if one dies, Ray starts it and calls it again."""
        actor = ray.remote(Worker).options(
            **self.needs,
            max_restarts=RESTARTS,
            max_task_retries=-1,
            # so that it can be asked to stop while it works
            max_concurrency=3,
        )
        return [actor.remote(task) for task in tasks]


def _find_kind(nodes: Sequence[dict[str, float]], device: str) -> str:
    """Says whether workers are placed by GPU or by CPU; raises DeviceError."""
    if device not in ("auto", "cuda", "cpu"):
        raise DeviceError(
            f"--device {device}: Ray gives each worker its own GPU; give auto, cuda or cpu."
        )
    if device != "cpu" and any(node.get("GPU") for node in nodes):
        return "GPU"
    if device == "cuda":
        raise DeviceError("--device cuda: the Ray cluster has no GPU; give auto or cpu.")
    return "CPU"


def _share_cores(homes: Sequence[tuple[float, float]], count: int) -> int:
    """Returns a worker's cores, so that all fit; `homes`: each node's cores and most workers."""
    each = -(-count // len(homes))
    return max(1, int(min(cores // max(1, min(most, each)) for cores, most in homes)))


def _join_leftovers(options: Options, world: int) -> None:
    """Joins the shards of interrupted runs, unless this run resumes them."""
    counts = list_world_sizes(options.save_path)
    if counts and not (options.resume and counts == [world]):
        merge_shards(options.save_path, incomplete=True)


def _drive(
    ray: Any,
    workers: Sequence[Any],
    options: Options,
    stop: StopRequest,
    begins: Callable[[WorkerStart], None],
) -> Iterator[Outcome]:
    """Waits for the workers to end, and yields the outcomes that they write."""
    world = len(workers)
    names = [RunInfo({}, shard=(rank, world)).manifest for rank in range(world)]
    followers = [ManifestTail(options.save_path / name) for name in names]
    starting = [worker.wait_for_start.remote() for worker in workers]
    working = [worker.work.remote() for worker in workers]
    failed, asked = 0, False
    while working:
        ended, working = ray.wait(working, num_returns=len(working), timeout=POLL)
        if starting and len(ray.wait(starting, num_returns=world, timeout=0)[0]) == world:
            _report_start(ray, starting, begins)
            starting = []
        for follower in followers:
            for outcome in follower.outcomes():
                failed += outcome.failed
                yield outcome
        check_failures(failed, options, stop)
        for problem in filter(None, (_find_error(ray, end) for end in ended)):
            stop.ask(problem)
        if stop.reason and not asked:
            asked = True
            for worker in workers:
                worker.stop.remote()


def _report_start(ray: Any, starting: Sequence[Any], begins: Callable[[WorkerStart], None]) -> None:
    """Reports what all workers together have begun, once all of them have."""
    try:
        starts: list[WorkerStart] = [one for one in ray.get(list(starting)) if one]
    except ray.exceptions.RayActorError:
        return  # `work` reports the same error
    if len(starts) == len(starting):
        counted = ("sources", "replaced", "batch_size")
        sums = {name: sum(getattr(one, name) for one in starts) for name in counted}
        begins(replace(starts[0], **sums))


def _find_error(ray: Any, end: Any) -> CamvizError | None:
    try:
        problem: CamvizError | None = ray.get(end)
    except ray.exceptions.RayActorError:
        return UsageError(
            f"A Ray worker died, was started again {RESTARTS} times, and died again. Perhaps "
            "memory is too small: go on with --resume and a smaller --ray-workers or --batch-size."
        )
    return problem


def enter_folder(folder: Path) -> None:
    """Changes to the folder that file names are relative to; raises UsageError if it is missing."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(
            f"{str(folder)!r} is missing on a machine of the Ray cluster: start camviz in a folder "
            "that all machines share."
        ) from error


class Worker:
    """A Ray process that explains its share, and resumes it if it is started again."""

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._stop = StopRequest()
        self._ready = threading.Event()
        self._begun: WorkerStart | None = None

    def wait_for_start(self) -> WorkerStart | None:
        """Waits until it is known what has to be done; returns None if the worker failed before."""
        self._ready.wait()
        return self._begun

    def stop(self) -> None:
        """Asks the worker to finish only the pictures in flight."""
        self._stop.ask(KeyboardInterrupt())

    def work(self) -> CamvizError | None:
        """Explains the share; returns why it ended early, or None."""
        try:
            self._work()
        except KeyboardInterrupt:
            return None
        except CamvizError as error:
            # some errors cannot be made again from their message in the driver
            kind = UsageError if error.exit_code == EXIT_USAGE else TooManyFailures
            return kind(str(error))
        finally:
            self._ready.set()
        return None

    def _work(self) -> None:
        task = self._task
        enter_folder(task.folder)
        classifier = task.load(task.options)
        plan = make_plan(classifier, task.options)
        keep_freed_memory(os.environ)
        sources, counts = self._take_remaining()

        def begins(run: RunState) -> None:
            run.counts += counts
            self._begun = WorkerStart(
                len(run.sources),
                run.replaced,
                len(plan.request.methods),
                (*classifier.warnings, *plan.warnings),
                dict(plan.left_out),
                plan.batch_size,
            )
            self._ready.set()

        for _ in carry_out_plan(
            plan, sources, task.options, self._stop, RunCallbacks(begins), task.shard
        ):
            pass

    def _take_remaining(self) -> tuple[Sequence[Source], Counts]:
        """Returns the rest of the share and what was done, if this process replaces a dead one."""
        import ray

        task = self._task
        if not ray.get_runtime_context().was_current_actor_reconstructed:
            return task.sources, Counts()
        done: set[str] = set()
        counts, failed = Counts(), False
        path = task.options.save_path / RunInfo({}, shard=task.shard).manifest
        for line in read_manifest(path):
            record = parse_record(line, path.parent)
            failed = failed or bool(record.error)
            counts += Counts(heatmaps=not record.error)
            if line["last"]:
                done.add(line["id"])
                counts += Counts(pictures=not failed, failed=failed)
                failed = False
        return [source for source in task.sources if identify_source(source) not in done], counts
