"""`camviz report` and `--report`: what is printed and written, and what is wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from camcli.cli.commands.explain import check_report
from camcli.config import Options
from camcli.errors import UsageError
from tests.cli.conftest import Run
from tests.report.made_runs import failed, made, spot, write_run
from tests.report.test_page import Parts


def test_the_page_stands_in_the_folder_and_its_contents_are_told(run: Run, tmp_path: Path) -> None:
    out = write_run(tmp_path, [made("a.png", spot(1, 1)), failed("b.png")])
    result = run("report", str(out))
    assert result.code == 0
    assert result.out.startswith(f"{out / 'report.html'}: 1 heatmap of 1 picture, 1 failed, 0.")
    assert "<title>out" in (out / "report.html").read_text(encoding="utf-8")


def test_its_place_and_labels_can_be_named(run: Run, tmp_path: Path) -> None:
    out = write_run(tmp_path, [made("tabby/a.png", spot(1, 1)), made("dog/b.png", spot(1, 1))])
    page = tmp_path / "new" / "page.html"
    result = run("report", str(out), "--output", str(page), "--labels", "folders", "-q")
    assert (result.code, result.out) == (0, f"{page}\n")
    data = json.loads(Parts(page.read_text(encoding="utf-8")).texts["data"])
    assert data["heatmaps"]["verdict"] == [True, False]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["none"], "There is no folder 'none'"),
        (["."], "holds no manifest.jsonl"),
        ([".", "-o", "page.pdf"], "A report is a page: name it page.html, not page.pdf."),
    ],
)
def test_wrong_input_says_what_to_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("report", *typed)
    assert result.code == 2 and said in result.err and result.out == ""


@pytest.mark.usefixtures("small_embedded")
def test_a_run_ends_with_its_report(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), (200, 60, 20)).save(tmp_path / "a.png")
    out, page = tmp_path / "out", tmp_path / "page.html"
    typed = ["--device", "cpu", "--img-size", "64", "--save-path", str(out), "--report", str(page)]
    result = run(str(tmp_path / "a.png"), *typed)
    assert result.code == 0
    assert f"{page}: 1 heatmap of 1 picture" in result.out
    data = json.loads(Parts(page.read_text(encoding="utf-8")).texts["data"])
    assert data["pictures"][0]["size"] == [48, 32] and data["pictures"][0]["thumbnail"] == 0
    # the page is no part of what makes it the same run
    assert run(str(tmp_path / "a.png"), *typed[:-2], "--resume").code == 0
    assert json.loads((out / "run.json").read_text())["ran_on"]["working_folder"]


@pytest.mark.parametrize(
    ("given", "environ", "said"),
    [
        ({"report": "a.txt"}, {}, "name it a.html"),
        ({"report": "a.html", "save_path": "b.png"}, {}, "--save-path b.png is a file"),
        ({"report": "a.html"}, {"RANK": "0", "WORLD_SIZE": "2"}, "camviz merge camviz-out"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_before_the_run(
    given: dict[str, Any], environ: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_report(Options(**given), environ)
