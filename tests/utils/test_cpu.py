"""What is known of the machine is what its system tells."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from camcli.utils import cpu
from camcli.utils.cpu import UNKNOWN_MEMORY, find_processor_maker

CPUINFO = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: a: b\n"


@pytest.mark.parametrize(
    ("platform_name", "cpuinfo", "processor", "expected"),
    [
        ("linux", CPUINFO, "", "AuthenticAMD"),
        ("linux", "processor\t: 0\nCPU implementer\t: 0x41\n", "", ""),
        ("linux", None, "", ""),
        ("win32", None, "AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", "AuthenticAMD"),
        ("win32", None, "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel", "GenuineIntel"),
        ("darwin", None, "arm", "arm"),
        ("darwin", None, "", ""),
    ],
)
def test_the_processors_maker(
    platform_name: str,
    cpuinfo: str | None,
    processor: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    monkeypatch.setattr(cpu, "CPUINFO", file)
    monkeypatch.setattr(sys, "platform", platform_name)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    assert find_processor_maker.__wrapped__() == expected


INSTALLED = 64 * 2**30
NO_LIMIT = "9223372036854771712"  # what version 1 says where there is none


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (None, {}, INSTALLED),
        ("0::/\n", {}, INSTALLED),
        ("0::/\n", {"memory.max": "max\n"}, INSTALLED),
        ("0::/\n", {"memory.max": "2147483648\n"}, 2**31),
        # the narrowest of the groups that it stands in
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, 4096),
        ("0::/a/b\n", {"a/b/memory.max": "100\n", "a/memory.max": "4096\n"}, 100),
        # a container that is told the host's path sees its own group on top
        ("0::/docker/1f\n", {"memory.max": "4096\n"}, 4096),
        ("0::/../x\n", {"memory.max": "4096\n"}, 4096),
        ("9:cpu:/a\n5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "4096\n"}, 4096),
        ("5:memory:/a\n", {"memory/memory.limit_in_bytes": "4096\n"}, 4096),
        ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": NO_LIMIT}, INSTALLED),
        ("5:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "4096\n"}, INSTALLED),
        ("0::/\n", {"memory.max": "0\n"}, INSTALLED),
        ("0::/\n", {"memory.max": "many\n"}, INSTALLED),
        ("nothing\n", {"memory.max": "4096\n"}, 4096),
    ],
)
def test_memory_is_what_a_container_leaves_of_the_machines(
    own: str | None,
    files: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = tmp_path / "groups"
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    monkeypatch.setattr(cpu, "OWN_GROUPS", tmp_path / "own")
    limits = [(c, groups / (c or "."), name) for c, _, name in cpu.LIMITS]
    monkeypatch.setattr(cpu, "LIMITS", limits)
    pages = {"SC_PHYS_PAGES": INSTALLED // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert cpu.memory() == expected


def test_memory_that_no_system_tells_of_is_taken_for_a_little(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cpu, "OWN_GROUPS", tmp_path / "none")
    for error in (ValueError("unknown"), OSError("unknown")):
        monkeypatch.setattr(os, "sysconf", lambda _, error=error: (_ for _ in ()).throw(error))
        assert cpu.memory() == UNKNOWN_MEMORY
    monkeypatch.setattr(os, "sysconf", lambda name: -1 if name == "SC_PHYS_PAGES" else 4096)
    assert cpu.memory() == UNKNOWN_MEMORY
