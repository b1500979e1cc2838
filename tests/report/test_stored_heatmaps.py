"""Heatmaps are read back from an output folder as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camcli.errors import UsageError
from camcli.records import Record
from camcli.report.stored_heatmaps import StoredHeatmap, read_heatmaps
from camcli.runs import RunInfo
from tests.report.made_runs import SIZE, failed, made, spot, write_run
from tests.runs.runs import make_sources, run_to_end


def test_maps_come_back_to_a_131070th_of_their_range(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    (read,) = read_heatmaps(write_run(tmp_path, [made("a.png", values)]))
    assert read.values is not None and read.values.shape == (7, 9)
    assert np.abs(read.values - values).max() <= np.ptp(values) / 131_070 * 1.01
    assert read.record.label == "tabby, tabby cat" and read.record.layers == ("layer4",)


def test_failures_are_among_them_in_order(tmp_path: Path) -> None:
    run = [made("a.png", spot(1, 1)), failed("b.png", "it is empty"), made("c.png", spot(2, 2))]
    read = read_heatmaps(write_run(tmp_path, run))
    assert [Path(s.record.source).name for s in read] == ["a.png", "b.png", "c.png"]
    assert [s.record.error for s in read] == ["", "it is empty", ""]
    assert read[1].values is None and read[1].heat is None


@pytest.mark.parametrize("size", ["layer", "image"])
def test_a_record_without_a_map_takes_the_file_beside_its_overlay(
    tmp_path: Path, size: str
) -> None:
    out = write_run(tmp_path, [made("a.png", spot(3, 3), map=None)], overlays=True)
    (overlay,) = out.glob("a_*.png")
    values = spot(3, 3)
    if size == "image":
        values = np.full(SIZE, np.nan, np.float32)
        values[:, 8:56] = np.arange(48, dtype=np.float32)
    beside = Path(f"{overlay}.npy")
    np.save(beside, values)
    manifest = out / "manifest.jsonl"
    text = manifest.read_text().replace(f'"{overlay.name}"]', f'"{overlay.name}", "{beside.name}"]')
    manifest.write_text(text)
    (read,) = read_heatmaps(out)
    assert read.values is not None
    if size == "layer":
        assert np.array_equal(read.values, spot(3, 3))
    else:
        # 48 columns of the view are averaged to 32, from left to right
        assert read.values.shape == (32, 32) and np.isfinite(read.values).all()
        assert (np.diff(read.values[0]) > 0).all() and read.values[0, 0] < 1


def test_a_damaged_map_is_none(tmp_path: Path) -> None:
    out = write_run(tmp_path, [made("a.png", spot(1, 1))])
    manifest = out / "manifest.jsonl"
    text = manifest.read_text().replace('"shape": [7, 7]', '"shape": [7, 8]')
    manifest.write_text(text)
    (read,) = read_heatmaps(out)
    assert read.values is None and read.record.label == "tabby, tabby cat"


def test_heat_is_what_is_drawn() -> None:
    values = np.array([[-2.0, 1.0]], np.float32)
    plain = StoredHeatmap("a", Record("a"), values)
    signed = StoredHeatmap("a", Record("a", value=3.0, target="value"), values)
    assert plain.heat is not None and plain.heat.tolist() == [[0, 1]]
    assert signed.heat is not None and signed.heat.tolist() == [[2, 1]]


def test_what_is_no_output_folder_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        read_heatmaps(tmp_path / "none")
    with pytest.raises(UsageError, match=r"holds no manifest.jsonl"):
        read_heatmaps(tmp_path)
    run_to_end(tmp_path / "shards", make_sources("a.png"), shard=(0, 2))
    with pytest.raises(UsageError, match="camviz merge"):
        read_heatmaps(tmp_path / "shards")
    assert RunInfo({}).manifest == "manifest.jsonl"
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(UsageError, match="names no heatmap yet"):
        read_heatmaps(tmp_path)
