"""Tunes settings of this process for passes of a model that follow one another."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar

# glibc's numbers of the options of mallopt(3), and what they are set to, in bytes: the first that
# is taken.  Older releases refuse more than 32 MiB for the second
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
MALLOC_OPTIONS: Mapping[int, tuple[int, ...]] = {
    TRIM_THRESHOLD: (2**31 - 1,),
    MMAP_THRESHOLD: (2**30, 2**25),
}

# of OpenMP's turns in waiting
TURNS = "20000"


# a program that calls the command may have its collector off itself
_is_put_off: ContextVar[bool] = ContextVar("put_off", default=False)


def put_off_collecting() -> None:
    """Has Python look for no garbage while modules are imported, which makes that faster.

    What is imported stays to the end, and each search goes through all of it.
    """
    if gc.isenabled():
        gc.disable()
        _is_put_off.set(True)


def resume_collecting() -> None:
    """Has Python look for garbage again, if that was put off: in what is made from now on."""
    if _is_put_off.get():
        gc.freeze()
        gc.enable()
        _is_put_off.set(False)


def leave_cores_free(environment: MutableMapping[str, str]) -> None:
    """Has OpenMP's threads sleep soon after a pass, and leave the cores to other work.

    GNU's OpenMP keeps them busy for longer; it reads this when torch is imported.  OpenCV starts no
    threads: pictures are shared out to threads already.
    """
    environment.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", TURNS)


def keep_freed_memory(environment: Mapping[str, str]) -> bool:
    """Has glibc keep what is freed, for this process; tells whether it does.

    A batch's activations are large, and the system clears each page that it hands out anew
    (camviz help speed).  Settings of the user's own (MALLOC_...) are left as they are.
    """
    mallopt = _find_glibc("mallopt")
    if mallopt is None or any(name.startswith("MALLOC_") for name in environment):
        return False
    return all(any(mallopt(option, b) for b in sizes) for option, sizes in MALLOC_OPTIONS.items())


def give_back_freed_memory() -> None:
    """Gives back to the system what is free, where the C library can."""
    if trim := _find_glibc("malloc_trim"):
        trim(0)


def _find_glibc(name: str) -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
