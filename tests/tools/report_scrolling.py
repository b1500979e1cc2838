"""Measures how many frames a second the report draws while somebody scrolls through it.

python -m tests.tools.report_scrolling [--heatmaps 5000] [--pictures 1250] [--page report.html]

Makes pictures of noise and blobs and a run over them (or takes a page), opens it in a headless
Chromium (tests/browser.py) and scrolls by 600, 2,400 and 9,600 pixels a second for some
seconds each.  Prints frames a second, the longest frame, and the page's size and time to load.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.report.build import write_report
from tests.browser import open_browser
from tests.report.made_runs import made, spot, write_run

SPEEDS = (600, 2400, 9600)  # pixels a second
SECONDS = 4
SIZE = (480, 640)

SCROLL = """([speed, seconds]) => new Promise((done) => {
  const place = document.getElementById("gallery"), start = performance.now(), times = [];
  let before = start;
  function step(now) {
    times.push(now - before);
    place.scrollTop += speed * (now - before) / 1000;
    before = now;
    if (now - start < 1000 * seconds) requestAnimationFrame(step);
    else done(times.slice(1));
  }
  requestAnimationFrame(step);
})"""


def make_page(folder: Path, heatmaps: int, pictures: int) -> Path:
    """Makes a run over pictures with the detail of photos, and its page."""
    per_picture = heatmaps // pictures
    items = [
        made(
            f"{n // per_picture:05}.jpg",
            spot(n % 7, n // 7 % 7),
            picture_size=SIZE,
            view=None,
            category=n % 50,
            label=f"class {n % 50}",
            method=("gradcam", "layercam", "hirescam", "eigencam")[n % per_picture % 4],
        )
        for n in range(heatmaps)
    ]
    out = write_run(folder, items)
    draw = np.random.default_rng(0)
    for number in range(pictures):
        rough = draw.integers(0, 255, (12, 16, 3), np.uint8)
        picture = np.asarray(Image.fromarray(rough).resize(SIZE[::-1], Image.Resampling.BICUBIC))
        grain = draw.normal(0, 12, picture.shape)
        pixels = (picture + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "in" / f"{number:05}.jpg", quality=85)
    began = time.perf_counter()
    written = write_report(out).page
    print(f"written in {time.perf_counter() - began:.1f} s, {written.size / 1e6:.1f} MB")
    return written.path


def measure(page: Any, path: Path) -> None:
    """Prints what scrolling through a page takes."""
    began = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_selector(".grid .card")
    print(f"loaded in {time.perf_counter() - began:.2f} s: {page.inner_text('#count')}")
    for speed in SPEEDS:
        page.evaluate("document.getElementById('gallery').scrollTop = 0")
        times = np.array(page.evaluate(SCROLL, [speed, SECONDS]))
        print(
            f"{speed:>6} pixels a second: {1000 / times.mean():.1f} frames a second, "
            f"95 % within {np.percentile(times, 95):.0f} ms, longest {times.max():.0f} ms"
        )


def main() -> None:
    """Makes or takes a page, and measures it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heatmaps", type=int, default=5000)
    parser.add_argument("--pictures", type=int, default=1250)
    parser.add_argument("--page", type=Path)
    typed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        path = typed.page or make_page(Path(folder), typed.heatmaps, typed.pictures)
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        measure(page, path.absolute())


if __name__ == "__main__":
    main()
