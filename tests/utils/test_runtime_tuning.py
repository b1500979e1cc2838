"""This process's own settings: what becomes of freed memory, and of helpers that wait."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from camcli.cli.app import main
from camcli.utils.runtime_tuning import keep_freed_memory, leave_cores_free
from tests.checkout import ROOT

# in a process of its own, for nothing puts the settings back
CLEARED = """
import resource, torch
from camcli.utils.runtime_tuning import keep_freed_memory

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        # above what glibc keeps by itself
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cleared()
usual = cleared()
assert keep_freed_memory({})
# a few times more: what is free in the heap grows until there is room at its alignment
for _ in range(6):
    cleared()
print(usual, cleared(), resource.getpagesize())
"""


@pytest.mark.slow  # starts Python once more
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_taken_again_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLEARED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    usual, kept, page = map(int, done.stdout.split())
    pages = 5 * 2**26 // page
    # of huge pages there are fewer
    assert usual > 5
    assert kept < min(usual, pages) / 20


def test_settings_of_ones_own_are_kept() -> None:
    assert not keep_freed_memory({"MALLOC_ARENA_MAX": "2"})


COLLECTED = """
import gc
from camcli.cli import app
from camcli.pipeline import handle_interrupts

def noted(*arguments):
    print(gc.isenabled(), gc.get_freeze_count() > 100_000)
    return handle_interrupts(*arguments)

import camcli.pipeline
camcli.pipeline.handle_interrupts = noted
started = app._run
app._run = lambda typed: print(gc.isenabled()) or started(typed)
app.main()
"""


@pytest.mark.slow  # starts Python once more
def test_garbage_is_looked_for_only_once_everything_is_imported(tmp_path: Path) -> None:
    picture = str(ROOT / "demo_images" / "chelsea.png")
    command = [sys.executable, "-c", COLLECTED, picture, "-q", "--save-path", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:2] == ["False", "True True"]


@pytest.mark.parametrize("collects", [True, False])
def test_a_program_that_calls_the_command_keeps_its_collector(
    collects: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(gc.enable)
    if not collects:
        gc.disable()
    before = gc.get_freeze_count()
    picture = str(ROOT / "demo_images" / "chelsea.png")
    assert main([picture, "-q", "--device", "cpu", "--save-path", str(tmp_path)]) == 0
    assert gc.isenabled() == collects
    # what was frozen may have been freed by its last owner
    assert gc.get_freeze_count() <= before


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_helpers_sleep_soon_unless_they_are_told_otherwise(
    given: dict[str, str], expected: str | None
) -> None:
    leave_cores_free(given)
    assert given.get("GOMP_SPINCOUNT") == expected
    assert given["OPENCV_FOR_THREADS_NUM"] == "1"
