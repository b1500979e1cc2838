"""The report of an output folder: what it counts, what it says is missing, how it begins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from camcli.report import build
from camcli.report.build import write_report
from tests.report.made_runs import failed, made, spot, write_run
from tests.report.test_page import Parts


def data_of(page: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads(Parts(page.read_text(encoding="utf-8")).texts["data"])
    return values


def test_a_folder_becomes_a_page(tmp_path: Path) -> None:
    items = [made("a.png", spot(1, 1)), made("a.png", spot(1, 2), method="layercam")]
    out = write_run(tmp_path, [*items, failed("b.png")], colormap="magma", alpha=0.3)
    report = write_report(out)
    assert report.page.path == out / "report.html"
    assert (report.heatmaps, report.pictures, report.failed) == (2, 1, 1)
    data = data_of(report.page.path)
    assert (data["colormap"], data["alpha"], data["threshold"]) == ("magma", 0.3, 0.2)
    assert data["title"] == "out"


@pytest.mark.parametrize(("outside", "dims"), [("dim", True), ("keep", False)])
def test_what_the_network_did_not_see_is_dimmed_as_in_the_run(
    tmp_path: Path, outside: str, dims: bool
) -> None:
    out = write_run(tmp_path, [made("a.png", spot(1, 1))], outside=outside)
    assert data_of(write_report(out).page.path)["dims_outside"] is dims


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.full((7, 7), np.nan, np.float32)
    items = [made("a.png", spot(1, 1)), made("b.png", spot(1, 1)), made("c.png", nothing)]
    out = write_run(tmp_path, items)
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).unlink()
    monkeypatch.setattr(build, "can_cluster", lambda: False)
    notes = "\n".join(write_report(out).notes)
    assert "1 of 3 heatmaps have no raw map" in notes
    assert "2 pictures were not found" in notes
    assert "pip install 'camviz[summary]'" in notes


def test_an_opacity_that_follows_the_heat_does_so_on_the_page(tmp_path: Path) -> None:
    data = data_of(
        write_report(write_run(tmp_path, [made("a.png", spot(1, 1))], alpha="auto")).page.path
    )
    assert (data["alpha"], data["follows_heat"]) == (0.75, True)


@pytest.mark.parametrize("text", ["", "[]", '{"run": "x", "configuration": {"alpha": "much"}}'])
def test_an_odd_run_json_gives_the_defaults(tmp_path: Path, text: str) -> None:
    out = write_run(tmp_path, [made("a.png", spot(1, 1))])
    (out / "run.json").write_text(text)
    data = data_of(write_report(out).page.path)
    assert (data["colormap"], data["alpha"]) == ("jet", 0.5)


def test_neither_torch_nor_a_model_is_imported(tmp_path: Path) -> None:
    out = write_run(tmp_path, [made("a.png", spot(1, 1))])
    code = (
        "import sys; from camcli.cli.app import main; "
        f"assert main(['report', {str(out)!r}]) == 0; "
        f"assert main(['summary', {str(out)!r}]) == 0; "
        "print({'torch', 'timm', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
