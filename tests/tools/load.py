"""Kills a run again and again, and looks whether anything is lost: `python -m tests.tools.load`.

Many small pictures, some of them bad, are explained with the embedded model; the run is killed
(kill -9) at random, and resumed each time.  Every good picture must be there once, every bad one be
reported once, and memory must not grow.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from camcli.runs import read_manifest
from tests.checkout import ROOT

DEMO = ROOT / "demo_images" / "cat_and_coffee.jpg"
FOLDER = 1000  # pictures in one
EVERY = 0.2  # seconds


@dataclass
class Watched:
    """What was seen of the runs: how long each took, and resident memory while it went on, MiB."""

    seconds: list[float] = field(default_factory=list)
    memory: list[list[float]] = field(default_factory=list)

    @property
    def peak(self) -> float:
        return max(max(run) for run in self.memory if run)

    @property
    def growth(self) -> float:
        """How much more the longest run held in its last quarter than in its second."""
        run = max(self.memory, key=len)
        quarter = len(run) // 4
        return float(np.median(run[-quarter:]) / np.median(run[quarter : 2 * quarter]))


def pictures(folder: Path, count: int, bad: float, draw: random.Random) -> set[str]:
    """Writes so many small pictures, and returns the names of the bad ones among them."""
    with Image.open(DEMO) as photo:
        photo.thumbnail((320, 320))
        whole = np.asarray(photo.convert("RGB"))
    spoilt = set(draw.sample(range(count), round(bad * count)))
    names = set()
    for number in range(count):
        path = folder / f"{number // FOLDER:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        top, left = (draw.randrange(edge - 64) for edge in whole.shape[:2])
        Image.fromarray(whole[top : top + 64, left : left + 64]).save(path)
        if number in spoilt:
            path.write_bytes(path.read_bytes()[: draw.choice((0, 10, 200))])
            names.add(str(path))
    return names


def watch_memory(command: Sequence[str], until: float | None, seen: Watched) -> int | None:
    """Runs a command, or kills it after so many seconds; returns its exit code, None if killed."""
    begin = time.monotonic()
    memory: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(EVERY)
            with suppress(OSError, IndexError, ValueError):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                memory.append(pages * 4096 / 2**20)
            if until is not None and time.monotonic() - begin > until:
                process.kill()
        code = process.wait()
    seen.seconds.append(time.monotonic() - begin)
    seen.memory.append(memory[:-1])
    return None if code < 0 else code


def faults(out: Path, sources: set[str], bad: set[str]) -> Iterator[str]:
    """Says what is missing or there twice in an output folder."""
    good, failed = Counter[str](), Counter[str]()
    written = set()
    for record in read_manifest(out / "manifest.jsonl"):
        (failed if record["error"] else good)[record["source"]] += 1
        written.update(record["outputs"])
    if good != Counter(sources - bad):
        yield f"good pictures: {len(sources - bad)} once each were wanted, {good.total()} are there"
    if failed != Counter(bad):
        yield f"bad pictures: {len(bad)} once each were wanted, {failed.total()} are there"
    present = {path.relative_to(out).as_posix() for path in out.rglob("*.jpg")}
    if present != written:
        yield f"files: {len(present - written)} without a record, {len(written - present)} missing"
    if hidden := [path.relative_to(out).as_posix() for path in out.rglob(".camviz*")]:
        yield f"left behind: {', '.join(hidden)}"
    for name in sorted(present)[:: max(1, len(present) // 200)]:
        with Image.open(out / name) as image:
            image.load()


def main() -> int:
    """Runs the load test and prints its figures; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="pictures")
    parser.add_argument("--bad", type=float, default=0.01, help="share of bad ones")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, seen = random.Random(args.seed), Watched()
    with tempfile.TemporaryDirectory() as work:
        folder, out = Path(work, "in"), Path(work, "out")
        bad = pictures(folder, args.count, args.bad, draw)
        sources = {str(path) for path in folder.rglob("*.jpg")}
        command = [sys.executable, "-m", "camcli", str(folder), "--save-path", str(out)]
        # small, for it is the run that is tried and not the network
        command += ["--resume", "-q", "-b", "32", "--img-size", "64"]
        begin, killed = time.monotonic(), 0
        # a first guess of how long all takes; later ones are drawn from what is left
        left = args.count * 0.005
        code: int | None = None
        for _ in range(args.kills):
            code = watch_memory(command, 3 + draw.uniform(0, 2 * left / args.kills), seen)
            if code is not None:
                break
            killed += 1
        while code is None:
            code = watch_memory(command, None, seen)
        seconds = time.monotonic() - begin
        wrong = list(faults(out, sources, bad))
    if code != 1:
        wrong.append(f"exit code {code}, and 1 was wanted, since pictures failed")
    print(
        f"{args.count} pictures, {len(bad)} of them bad, killed {killed} times: {seconds:.0f} s, "
        f"{args.count / seconds:.0f} a second; memory {seen.peak:.0f} MiB at most, in the longest "
        f"run {seen.growth:.3f} times as much at its end as in its second quarter"
    )
    print("\n".join(wrong) or "nothing lost, nothing twice")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
