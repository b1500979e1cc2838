"""Standard output and error that are closed, full, or left by whoever read them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import pytest

from camcli.cli.app import main
from camcli.records import Record
from tests.checkout import ROOT
from tests.cli.conftest import Asked

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")


@pytest.fixture
def full() -> Iterator[TextIO]:
    """A stream on a full disk."""
    file = FULL.open("w")
    yield file
    # what it holds cannot be written
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    file.close()


@pytest.mark.parametrize("style", ["", "-q", "--json"])
def test_a_run_goes_on_where_nothing_more_can_be_printed(
    asked: Asked,
    image: str,
    full: TextIO,
    style: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken: list[Record] = []

    class Noted(list[Record]):
        def __iter__(self) -> Iterator[Record]:
            for record in super().__iter__():
                taken.append(record)
                yield record

    asked.records = Noted(Record(f"{n}.jpg", outputs=(f"{n}.png",)) for n in range(4))
    monkeypatch.setattr(sys, "stdout", full)
    assert main([image, *filter(None, [style])]) == 1
    assert len(taken) == 4
    err = capsys.readouterr().err
    assert err.count("Standard output takes no more: No space left on device.") == 1
    assert "bug in camviz" not in err


@pytest.mark.parametrize(
    "words",
    [["methods"], ["models", "resnet18"], ["help"], ["help", "runs"], ["--help"], ["--version"]],
)
def test_what_only_prints_ends_with_a_sentence(
    words: Sequence[str],
    full: TextIO,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    assert main(words) == 1
    assert capsys.readouterr().err.startswith("camviz: Standard output takes no more: No space")


def test_a_full_standard_error_is_no_reason_to_stop(
    asked: Asked,
    image: str,
    full: TextIO,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked.records = [Record("a.jpg", outputs=("a.png",), warnings=("dark",))]
    monkeypatch.setattr(sys, "stderr", full)
    assert main([image, "-q"]) == 0
    assert capsys.readouterr().out == "a.png\n"
    assert main(["nothing.jpg"]) == 2


CLOSED = """
import os, sys
sys.stdin = sys.stdout = sys.stderr = None
for number in (0, 1, 2):
    os.close(number)
from camcli.cli.app import main
code = main(sys.argv[1:])
# nothing that was opened since has the number of a stream, into which libraries print
taken = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
os._exit(code if taken == [os.devnull] * 3 else 99)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of what is open")
@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["nothing.jpg"], 2), (["-"], 2)])
def test_closed_streams_are_no_bug(words: Sequence[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED, *words], cwd=ROOT, check=False)
    assert done.returncode == code
