"""Adds up the last lines of several pytest runs, which share the tests out by their marks."""

import re
import sys
from collections import Counter
from pathlib import Path


def total(summaries: list[str]) -> str:
    """Returns one summary line for all; raises ValueError for a line that is not pytest's."""
    counts: Counter[str] = Counter()
    seconds = 0.0
    for line in summaries:
        match = re.search(r"(\d+ \w+(?:, \d+ \w+)*) in ([\d.]+)s", line)
        if match is None:
            raise ValueError(f"not pytest's summary: {line!r}")
        for part in match[1].split(", "):
            number, outcome = part.split()
            counts[outcome] += int(number)
        seconds += float(match[2])
    # what one run deselects, another one runs
    del counts["deselected"]
    return ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) + f" in {seconds:.2f}s"


if __name__ == "__main__":
    sys.stdout.write(total(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()) + "\n")
