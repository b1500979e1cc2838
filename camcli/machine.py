"""What is known of the machine: how many of its cores are at hand, and whose processor it is."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

# what Linux tells of the processor
CPUINFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@cache
def processor_maker() -> str:
    """Returns the name by which the processor tells its maker, as "AuthenticAMD"; "" is unknown."""
    if sys.platform != "linux":
        import platform

        return platform.processor().rpartition(" ")[2]
    return told_of_processor("vendor_id")


def told_of_processor(name: str) -> str:
    """Returns what Linux tells of the first processor under a name; "" where it does not."""
    with suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found, _, value = line.partition(":")
            if found.strip() == name:
                return value.strip()
    return ""
