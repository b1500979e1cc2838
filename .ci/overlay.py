"""Checks that camviz wrote one overlay of a picture: as large as the picture, and not the same."""

import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageStat


def check(folder: Path, picture: Path) -> str:
    """Returns a sentence about the overlay; raises AssertionError where there is none."""
    # beside it stand the manifest and what the run was
    written = [path for path in folder.iterdir() if path.suffix not in {".json", ".jsonl"}]
    assert len(written) == 1, f"{folder} holds {len(written)} pictures, not one: {written}"
    with Image.open(written[0]) as overlay, Image.open(picture) as original:
        assert overlay.size == original.size, f"{overlay.size} is not {original.size}"
        difference = ImageChops.difference(overlay.convert("RGB"), original.convert("RGB"))
    mean = sum(ImageStat.Stat(difference).mean) / 3
    assert mean > 5, f"{written[0]} is the plain picture (mean difference {mean:.1f} of 255)"
    return f"{written[0]}: {overlay.size}, mean difference to the picture {mean:.1f} of 255"


if __name__ == "__main__":
    sys.stdout.write(check(Path(sys.argv[1]), Path(sys.argv[2])) + "\n")
