"""Reads what is known of the machine: cores, memory, and the maker of its processor."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

# what Linux tells of the processor
CPUINFO = Path("/proc/cpuinfo")
# and of memory
MEMINFO = Path("/proc/meminfo")
# a container's limit and what it uses, in both versions of control groups
CONTAINER = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)

# the control groups of this process, and the folders of their limits: of version 2, and of 1
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
LIMITS = (("", GROUPS, "memory.max"), ("memory", GROUPS / "memory", "memory.limit_in_bytes"))
UNKNOWN_MEMORY = 2**32  # bytes, where a system does not say how many it has


def count_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory() -> int:
    """Returns how many bytes of memory this process may use, a container's limit counted."""
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        installed = UNKNOWN_MEMORY
    return min(installed if installed > 0 else UNKNOWN_MEMORY, *_read_group_limits(), sys.maxsize)


def _read_group_limits() -> Iterator[int]:
    """Yields the limits of the process's control groups, and of those that these stand in."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for controller, folder, name in LIMITS:
            if controller in controllers.split(","):
                # inside a container the path may be the host's, and its own group stands on top
                own = folder / path.lstrip("/")
                for group in (own, *own.parents):
                    if group.is_relative_to(folder):
                        yield from _read_limit(group / name)


def _read_limit(file: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):  # "max" is none
        limit = int(file.read_text(encoding="ascii"))
        if limit > 0:
            yield limit


@cache
def find_processor_maker() -> str:
    """Returns the name by which the processor tells its maker, as "AuthenticAMD"; "" is unknown."""
    if sys.platform != "linux":
        import platform

        return platform.processor().rpartition(" ")[2]
    return read_cpuinfo("vendor_id")


def read_cpuinfo(name: str) -> str:
    """Returns what Linux tells of the first processor under a name; "" where it does not."""
    with suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def memory_left() -> int | None:
    """Returns the bytes that this process may still take, a container's limit counted.

    None where the system does not tell.
    """
    if sys.platform != "linux":
        return None
    left = []
    with suppress(OSError, ValueError):
        key = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
        left += [int(key[1]) * 1024] if key else []
    for names in CONTAINER:
        with suppress(OSError, ValueError):  # "max" is no limit
            limit, used = (int((GROUPS / name).read_text()) for name in names)
            left.append(max(limit - used, 0))
    return min(left, default=None)
