"""What is known of the machine is what its system tells."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from camcli import machine
from camcli.machine import processor_maker

CPUINFO = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: a: b\n"


@pytest.mark.parametrize(
    ("platform_name", "cpuinfo", "processor", "wanted"),
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
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    monkeypatch.setattr(machine, "CPUINFO", file)
    monkeypatch.setattr(sys, "platform", platform_name)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    assert processor_maker.__wrapped__() == wanted
