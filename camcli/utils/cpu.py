"""Reads what is known of the machine: cores, memory, and the maker of its processor."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

# what Linux tells of the processor
CPUINFO = Path("/proc/cpuinfo")
# and of memory
MEMINFO = Path("/proc/meminfo")
# the control groups of this process
OWN_GROUPS = Path("/proc/self/cgroup")


class _Hierarchy(NamedTuple):
    """Where control groups stand, and the files that tell a group's limit and what it uses."""

    controller: str
    folder: Path
    limit: str
    usage: str
    # in memory.stat: pages of files that nothing holds, and that the kernel takes back
    reclaimable: str


GROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = (  # of version 2, and of 1
    _Hierarchy("", GROUPS, "memory.max", "memory.current", "inactive_file"),
    _Hierarchy(
        "memory",
        GROUPS / "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def count_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def measure_free_memory() -> int | None:
    """Returns the bytes that this process may still take, a container's limit counted.

    None where the system does not tell; what is installed where it tells no more.
    """
    return min((*_measure_machine(), *_measure_groups()), default=None)


def _measure_machine() -> Iterator[int]:
    available = _read_number(MEMINFO, r"^MemAvailable:\s+(\d+) kB$")
    if available is not None:
        yield available * 1024
        return
    with suppress(AttributeError, OSError, ValueError):  # Windows
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if installed > 0:
            yield installed


def _measure_groups() -> Iterator[int]:
    """Yields what the limits of the process's groups leave, and of those that these stand in."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for hierarchy in HIERARCHIES:
            if hierarchy.controller in controllers.split(","):
                # inside a container the path may be the host's, and its own group stands on top
                own = hierarchy.folder / path.lstrip("/")
                for group in (own, *own.parents):
                    if group.is_relative_to(hierarchy.folder):
                        yield from _measure_group(group, hierarchy)


def _measure_group(group: Path, hierarchy: _Hierarchy) -> Iterator[int]:
    limit = _read_number(group / hierarchy.limit, r"^(\d+)$")  # "max" is none
    if limit:
        used = _read_number(group / hierarchy.usage, r"^(\d+)$") or 0
        given_back = _read_number(group / "memory.stat", rf"^{hierarchy.reclaimable} (\d+)$") or 0
        yield max(limit - max(used - given_back, 0), 0)


def _read_number(file: Path, pattern: str) -> int | None:
    with suppress(OSError):
        text = file.read_text(encoding="ascii", errors="replace")
        match = re.search(pattern, text, re.MULTILINE)
        return int(match[1]) if match else None
    return None


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
