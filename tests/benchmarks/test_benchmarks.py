"""The benchmark's figures become the handbook's page and the README's rows."""

from __future__ import annotations

import json
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import commands, page
from tests.benchmarks.__main__ import FIGURES
from tests.benchmarks.contenders import Scene
from tests.benchmarks.measure import SURE, measure_row, standard_error, summarize, until_sure
from tests.benchmarks.rows import NETWORKS, BenchmarkRow, Network, rows

WHERE = {"date": "2026-01-02", "device": "cpu", "machine": "2 cores of a Thing", "torch": "2.0"}
ROW: dict[str, Any] = {
    "title": page.HEADLINES[0],
    "bar": 1.1,
    "faster": 3,
    "passes": 1,
    "bare": 0.05,
    "batch": 1,
    "pictures": 1,
    "ratios": {
        "camviz": summarize([1.0, 1.2, 1.1]),
        "packed": summarize([0.8, 0.8, 0.8]),
        "grad-cam": summarize([4.4, 4.4, 4.0]),
        "torch-cam": summarize([2.0]),
    },
    "memory": {"bare": 1e6, "camviz": 25e5},
    "apart": 2e-6,
    **WHERE,
}
COMMAND = {"title": "camviz --help", "value": 0.25, "bar": 0.35, "unit": "s", **WHERE}


def test_a_row_measured_anew_takes_the_place_of_the_old_one() -> None:
    other = {**ROW, "device": "cuda"}
    anew = {**ROW, "bare": 1.0}
    assert page.merge_rows([ROW, COMMAND, other], [anew]) == [anew, COMMAND, other]
    assert page.merge_rows([COMMAND], [ROW, other]) == [COMMAND, ROW, other]


def test_medians_quartiles_and_how_many_times_faster() -> None:
    assert page.cells(ROW) == (
        page.HEADLINES[0],
        "50 ms",
        "1.10 (1.05 to 1.15)",
        "0.80 (0.80 to 0.80)",
        "1.10",
        "4.40",
        "2.00",
        "4.0 x, packed 5.5 x (at least 3)",
        "2e-06",
        "bare 1, camviz 2",
    )
    alone = {
        **ROW,
        "ratios": {"camviz": summarize([1.0])},
        "apart": None,
        "passes": 64,
        "bar": None,
    }
    assert page.cells(alone)[1:9] == ("50 ms x 64", "1.00 (once)", "", "", "", "", "", "")


def test_a_gpu_is_measured_by_pictures_a_second_and_milliseconds() -> None:
    gpu = {**ROW, "ratios": {k: v for k, v in ROW["ratios"].items() if k != "packed"}}
    assert page.gpu_cells({**gpu, "pictures": 8, "bar": 1 / 0.9}) == (
        page.HEADLINES[0],
        "160",  # 8 pictures in 0.05 s
        "145",
        "0.91 (0.87 to 0.95)",
        "0.90",
        "6.88",
        "27.5",
        "12.5",
        "4.0 x (at least 3)",
        "2e-06",
        "bare 1, camviz 2",
    )
    # a pass for each of 64 masks
    many = {**ROW, "passes": 64, "bare": 0.001, "bar": None}
    assert page.gpu_cells(many)[1:6] == ("15.6", "14.2", "0.91 (0.87 to 0.95)", "", "70.4")
    large = {**ROW, "pictures": 512}
    assert page.gpu_cells(large)[1] == "10,240"


def test_the_readme_has_the_rows_of_a_gpu_where_there_are_some() -> None:
    gpu = {**ROW, "title": page.GPU_HEADLINES[0], "device": "cuda", "machine": "a GPU"}
    assert "On a GPU" not in page.headlines([ROW, {**gpu, "device": "cpu"}])
    text = page.headlines([ROW, gpu])
    assert "On a GPU (2026-01-02, a GPU, torch 2.0)" in text
    assert f"| {page.GPU_HEADLINES[0]} | 18.2 | 0.91" in text


def test_figures_are_saved_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    page.save([ROW, COMMAND], file)
    first, *rows, last = file.read_text().splitlines()
    assert (first, last) == ("[", "]") and len(rows) == 2
    assert json.loads(file.read_text()) == [ROW, COMMAND]
    assert FIGURES.read_text().count("\n") == len(json.loads(FIGURES.read_text())) + 2


def test_the_page_has_the_first_rows_of_both_and_says_where_the_others_are() -> None:
    gpu = {**ROW, "title": page.GPU_HEADLINES[0], "device": "cuda", "machine": "a GPU"}
    text = page.page([ROW, COMMAND, {**ROW, "title": "other"}, gpu])
    assert f"| {page.HEADLINES[0]} | 1.10 | 0.80 | 4.40 | 2.00 |" in text
    assert f"| {page.GPU_HEADLINES[0]} | 18.2 | 55 | 220 |" in text
    assert "other" not in text and "--help" not in text and "tables/benchmarks" in text
    assert "On a GPU" not in page.page([ROW])


def test_the_table_has_a_part_for_each_machine() -> None:
    text = page.table_page([ROW, COMMAND, {**ROW, "device": "cuda", "machine": "a GPU"}])
    assert text.startswith("# ")
    assert text.count("## 2026-01-02, 2 cores of a Thing, torch 2.0\n") == 1
    assert text.count("## 2026-01-02, a GPU, torch 2.0\n") == 1
    assert "| camviz --help | 0.25 s | 0.35 s |" in text


def test_the_readme_changes_between_its_markers_alone(tmp_path: Path) -> None:
    readme, written, table = (tmp_path / name for name in ("README.md", "page.md", "table.md"))
    readme.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nbehind\n")
    page.write([ROW, COMMAND], written, readme, table)
    text = readme.read_text()
    assert text.startswith(f"before\n{page.BEGIN}\n") and text.endswith(f"{page.END}\nbehind\n")
    assert (
        "old" not in text and "| 1.10 (1.05 to 1.15) | 0.80 (0.80 to 0.80) | 4.40 | 2.00 |" in text
    )
    page.write([ROW, COMMAND], written, readme, table)
    assert readme.read_text() == text
    with pytest.raises(ValueError, match="one pair"):
        page.in_between("no markers", "")


def test_page_and_readme_are_those_of_the_saved_figures() -> None:
    if not FIGURES.exists():
        pytest.skip("nothing was measured")
    figures = json.loads(FIGURES.read_text())
    assert page.PAGE.read_text(encoding="utf-8") == page.page(figures)
    assert page.TABLE.read_text(encoding="utf-8") == page.table_page(figures)
    readme = page.README.read_text(encoding="utf-8")
    assert page.in_between(readme, page.headlines(figures)) == readme


def test_every_row_has_a_title_of_its_own() -> None:
    titles, on_gpu = [[row.title for row in rows(device)] for device in ("cpu", "cuda")]
    assert len(set(titles)) == len(titles) > 80 and len(set(on_gpu)) == len(on_gpu) > 80
    assert set(page.HEADLINES) <= set(titles) and set(page.GPU_HEADLINES) <= set(on_gpu)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "test_resnet", Network("test_resnet", "layer4"))


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("method", "passes", "options"),
    [("gradcam", 1, {}), ("rise", 8, {"masks": 8}), ("scorecam", None, {"max_channels": 4})],
)
def test_a_row_is_measured(method: str, passes: int | None, options: dict[str, Any]) -> None:
    row = BenchmarkRow("test_resnet", (method,), passes=passes, rounds=2, options=options)
    actual = measure_row(row, torch.device("cpu"), peers=False)
    assert actual["title"] == f"{method}, test_resnet, batch 1"
    assert set(actual["ratios"]) == ({"camviz", "packed"} if passes == 1 else {"camviz"})
    assert {ratios["rounds"] for ratios in actual["ratios"].values()} == {2}
    assert actual["bare"] > 0
    assert all(0 < r["low"] <= r["median"] <= r["high"] for r in actual["ratios"].values())
    live = Scene(row, torch.device("cpu")).passes()
    assert actual["passes"] == live and live > 0
    assert actual["apart"] is None
    page.cells({**actual, **WHERE})


def test_rounds_go_on_until_the_median_is_sure() -> None:
    def count(*ratios: float) -> int:
        rounds = ({"bare": 2.0, "camviz": 2 * ratio} for ratio in cycle(ratios))
        return len(list(until_sure(rounds, 15, 120)))

    # quartiles 1 apart, and as far as they may be for 64 rounds to do
    enough = SURE * 8 / 0.929
    assert count(1.1) == 15 and count(1, 2) == 120
    assert 60 <= count(1, 1 + enough) <= 65
    assert len(list(until_sure(repeat({"bare": 1.0, "camviz": 1.0}), 2, 0))) == 2


def test_the_standard_error_of_a_median() -> None:
    # of draws of 101 from a normal distribution, as medians of many such draws are spread
    draws = torch.randn(4000, 101, generator=torch.Generator().manual_seed(0))
    actual = sum(standard_error(draw.tolist()) for draw in draws[:200]) / 200
    assert actual == pytest.approx(draws.median(1).values.std().item(), rel=0.05)


@pytest.mark.usefixtures("_small")
@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["gradcam", "ablationcam", "scorecam"])
def test_maps_beside_the_peers(method: str) -> None:
    row = BenchmarkRow("test_resnet", (method,), rounds=1)
    actual = measure_row(row, torch.device("cpu"))
    assert "grad-cam" in actual["ratios"] and "grad-cam" in actual["memory"]
    assert actual["apart"] < 1e-3


def test_a_command_that_fails_is_not_timed() -> None:
    with pytest.raises(Exception, match="returned non-zero exit status 2"):
        commands._seconds((*commands.CAMVIZ, "nowhere.jpg"))
    seconds, memory = commands._seconds((*commands.CAMVIZ, "--version"))
    assert 0.01 < seconds < 60 and memory > 1e6
