"""Shares the sources of a run among processes, each on its own GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from camcli.config import Options
from camcli.errors import UsageError
from camcli.media.output_place import is_file
from camcli.pipeline.run_state import Shard
from camcli.records import Source
from camcli.runs import list_world_sizes

# launchers, and their variables for this process's rank, the number of ranks, and its rank on the
# machine
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),  # srun
)

# only of torchrun: srun gives each process its own cores
ON_THIS_MACHINE = "LOCAL_WORLD_SIZE"
MOST_DIGITS = 20  # Python refuses to read numbers of thousands of digits


def find_shard(environ: Mapping[str, str]) -> Shard | None:
    """Returns this process's rank and the number of ranks; None if it is the only process.

    Raises UsageError for numbers that are not a rank and a number of ranks.
    """
    for rank_name, world_name, _ in LAUNCHERS:
        if rank_name in environ and world_name in environ:
            rank, world = _read_number(environ, rank_name), _read_number(environ, world_name)
            if rank >= world:
                raise UsageError(
                    f"{rank_name}={rank} is not a rank among {world_name}={world}, which count "
                    "from 0: start camviz with torchrun or srun, or unset both."
                )
            return (rank, world) if world > 1 else None
    return None


def take_share(sources: Sequence[Source], shard: Shard) -> Sequence[Source]:
    """Returns a rank's sources: every n-th one, so that neighbouring large files are spread."""
    rank, world = shard
    return sources[rank::world]


def choose_device(device: str, environ: Mapping[str, str]) -> str:
    """Returns this process's own GPU among those of its machine, if there are any."""
    if device not in ("auto", "cuda"):
        return device
    import torch

    # a scheduler may show each process only its own GPU
    seen = torch.cuda.device_count()
    for rank_name, _, local_name in LAUNCHERS:
        if rank_name in environ and local_name in environ and seen:
            return f"cuda:{_read_number(environ, local_name) % seen}"
    return device


def count_local_processes(environ: Mapping[str, str]) -> int:
    """Returns how many processes share this machine's cores; 1 if no launcher says it."""
    given = environ.get(ON_THIS_MACHINE, "")
    return max(1, int(given)) if given.isdecimal() and len(given) < MOST_DIGITS else 1


def check_can_shard(options: Options) -> None:
    """Raises UsageError if a run cannot be shared among processes."""
    if options.export:
        raise UsageError(
            f"--export {options.export} writes the results of a whole run, and several processes "
            "share this run: leave it out, and afterwards give it to one process, with the same "
            "command and --resume."
        )
    if options.sheet:
        raise UsageError(
            "--sheet (of --layers-sweep and --compare, too) shows what a whole run found: leave it "
            "out where several processes share the "
            "run, and give the same command with --resume to one process afterwards."
        )
    if is_file(options.save_path):
        raise UsageError(
            f"--save-path {options.save_path} is one file, and several processes share this run: "
            "name a folder."
        )
    if options.camera is not None:
        raise UsageError("--camera is one source, and several processes share this run: start one.")
    if options.scale == "run":
        raise UsageError(
            "--scale run has to see all pictures, and several processes share this run: give "
            "--scale MIN,MAX."
        )


def check_world(options: Options, world: int) -> None:
    """Raises UsageError if the output folder holds shards of another number of ranks."""
    others = [count for count in list_world_sizes(options.save_path) if count != world]
    if others:
        raise UsageError(
            f"{str(options.save_path)!r} holds shards of {others[0]} ranks, and now there are "
            f"{world}: join them first (camviz merge {options.save_path} --incomplete)."
        )


def _read_number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name].strip()
    if not (text.isascii() and text.isdecimal() and len(text) < MOST_DIGITS):
        raise UsageError(
            f"{name}={environ[name]!r} is not a whole number from 0: start camviz with torchrun or "
            "srun, or unset it."
        )
    return int(text)
