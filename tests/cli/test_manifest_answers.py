"""What people ask the manifest and run.json, after commands as they type them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

NAMES = "tabby, tabby cat\nespresso\nlemon\ndaisy\nowl, bird of the night\n"


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "camviz-out" / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_how_sure_the_model_was(camviz: Run, folder: Path) -> None:
    (folder / "names.txt").write_text(NAMES)
    camviz("flower.jpg", "--class-map", "names.txt", "--top-k", "5")
    lines = records(folder)
    probabilities = [line["probability"] for line in lines]
    assert [line["rank"] for line in lines] == [1, 2, 3, 4, 5]
    margins = [
        probabilities[0] - probabilities[1],
        *(p - probabilities[0] for p in probabilities[1:]),
    ]
    assert [line["margin"] for line in lines] == pytest.approx(margins)
    for line in lines:
        assert line["top_categories"] == [other["category"] for other in lines]
        assert line["top_probabilities"] == pytest.approx(probabilities)
        assert line["top_labels"] == [other["short_label"] for other in lines]
    by_label = {line["label"]: line["short_label"] for line in lines}
    assert by_label["tabby, tabby cat"] == "tabby" and by_label["espresso"] == "espresso"


def test_where_the_heat_lies_in_the_view(camviz: Run, folder: Path) -> None:
    camviz("flower.jpg", "--fit", "crop")
    (line,) = records(folder)
    view, statistics = line["view"], line["statistics"]
    x, y = statistics["peak_in_view"]
    across = view["left"] + x * (view["right"] - view["left"])
    down = view["top"] + y * (view["bottom"] - view["top"])
    height, width = line["picture_size"]
    assert statistics["peak"] == pytest.approx([across / width, down / height])
    assert 0 <= statistics["border_distance"] <= 0.5


def test_run_json_is_of_the_run_that_did_something(camviz: Run, folder: Path) -> None:
    camviz("flower.jpg")
    summary = folder / "camviz-out" / "run.json"
    # as if it had been another day: its times are in seconds
    before = summary.read_text().replace('"finished": "2', '"finished": "1')
    summary.write_text(before)
    assert json.loads(before)["counts"]["pictures"] == 1
    for word in ("--resume", "--skip-existing"):
        assert "1 of 1 were done before" in camviz("flower.jpg", word).err
        assert summary.read_text() == before
    # what was lost is done again, and that is said
    next((folder / "camviz-out").glob("*.jpg")).unlink()
    camviz("flower.jpg", "--resume")
    assert summary.read_text() != before
