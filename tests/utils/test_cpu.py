"""What is known of the machine is what its system tells."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from camcli.utils import cpu
from camcli.utils.cpu import find_processor_maker

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


FREE = 4096 * 1024
NO_LIMIT = "9223372036854771712"  # what version 1 says where there is none
V1 = "memory/memory"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 4,096 kB free, whose files stand in a folder."""
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    4096 kB\nX: 1 kB\n")
    monkeypatch.setattr(cpu, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(cpu, "OWN_GROUPS", tmp_path / "own")
    groups = [old._replace(folder=tmp_path / "groups" / old.controller) for old in cpu.HIERARCHIES]
    monkeypatch.setattr(cpu, "HIERARCHIES", groups)
    return tmp_path


def write_groups(machine: Path, own: str | None, files: dict[str, str]) -> None:
    for name, text in files.items():
        (machine / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / "groups" / name).write_text(text)
    if own is not None:
        (machine / "own").write_text(own)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (None, {}, FREE),
        ("0::/\n", {}, FREE),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "3000\n"}, FREE),
        ("0::/\n", {"memory.max": "2147483648\n"}, FREE),
        ("0::/\n", {"memory.max": "5000\n", "memory.current": "3000\n"}, 2000),
        ("0::/\n", {"memory.max": "1500\n", "memory.current": "2500\n"}, 0),
        # the narrowest of the groups that it stands in
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, 4096),
        ("0::/a/b\n", {"a/b/memory.max": "100\n", "a/memory.max": "4096\n"}, 100),
        (
            "0::/a/b\n",
            {"a/b/memory.max": "900", "a/memory.max": "999", "a/memory.current": "200"},
            799,
        ),
        # a container that is told the host's path sees its own group on top
        ("0::/docker/1f\n", {"memory.max": "4096\n"}, 4096),
        ("0::/../x\n", {"memory.max": "4096\n"}, 4096),
        ("9:cpu:/a\n5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "4096\n"}, 4096),
        ("5:memory:/a\n", {f"{V1}.limit_in_bytes": "4096\n"}, 4096),
        ("5:memory:/\n", {f"{V1}.limit_in_bytes": "50", f"{V1}.usage_in_bytes": "20"}, 30),
        ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": NO_LIMIT}, FREE),
        ("5:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "4096\n"}, FREE),
        ("0::/\n", {"memory.max": "0\n"}, FREE),
        ("0::/\n", {"memory.max": "many\n"}, FREE),
        ("nothing\n", {"memory.max": "4096\n"}, 4096),
    ],
)
def test_what_is_free_is_what_the_machine_and_its_containers_leave(
    own: str | None, files: dict[str, str], expected: int, machine: Path
) -> None:
    write_groups(machine, own, files)
    assert cpu.measure_free_memory() == expected


@pytest.mark.parametrize(
    ("own", "prefix", "limit", "usage", "key"),
    [
        ("0::/\n", "", "memory.max", "memory.current", "inactive_file"),
        (
            "5:memory:/\n",
            "memory/",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_files_that_the_kernel_keeps_take_nothing_of_a_container(
    own: str, prefix: str, limit: str, usage: str, key: str, machine: Path
) -> None:
    stat = f"anon 700\nfile 9000\n{key} 8000\nactive_file 1000\n"
    files = {limit: "10000", usage: "9700", "memory.stat": stat}
    write_groups(machine, own, {prefix + name: text for name, text in files.items()})
    assert cpu.measure_free_memory() == 8300


def test_where_linux_does_not_tell_it_is_what_is_installed(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "meminfo").unlink()
    pages = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert cpu.measure_free_memory() == FREE // 1024 * 1000
    for error in (ValueError("unknown"), OSError("unknown")):
        monkeypatch.setattr(os, "sysconf", lambda _, error=error: (_ for _ in ()).throw(error))
        assert cpu.measure_free_memory() is None
    monkeypatch.setattr(os, "sysconf", lambda name: -1 if name == "SC_PHYS_PAGES" else 4096)
    assert cpu.measure_free_memory() is None
