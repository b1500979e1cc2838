"""Whatever stands in the files of a run, its page and summary are made, or it is said why not."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from camcli.errors import CamvizError
from camcli.report.build import write_report
from camcli.report.stored_heatmaps import read_heatmaps
from camcli.report.summary import summarise_classes, to_csv, to_object
from camcli.utils.jsonable import encode_json
from tests.report.made_runs import failed, made, spot, write_run
from tests.runs.test_state_files import damage

FILES = ("manifest.jsonl", "run.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [made(f"{n}.png", spot(n, 3), box_threshold=0.2) for n in range(3)]
    items += [made("0.png", spot(1, 1), method="layercam"), failed("3.png")]
    return write_run(tmp_path_factory.mktemp("made"), items, overlays=True)


def check(folder: Path, place: Path, seeds: Iterable[int]) -> None:
    for seed in seeds:
        draw = random.Random(seed)
        copy = place / str(seed)
        shutil.copytree(folder, copy)
        for name in draw.sample(FILES, draw.choice((1, 1, 2))):
            (copy / name).write_bytes(damage(draw, (copy / name).read_bytes()))
        try:
            write_report(copy)
            summaries = summarise_classes(read_heatmaps(copy))
            to_csv(summaries)
            assert encode_json([*map(to_object, summaries)])
        except CamvizError as error:
            assert str(error), seed
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        shutil.rmtree(copy)


def test_damaged_runs_are_shown_or_reported(folder: Path, tmp_path: Path) -> None:
    # the last ones put something else in the place of a size, a scale, warnings and a category
    check(folder, tmp_path, (*range(20), 259, 242, 304, 2399))


@pytest.mark.slow
def test_many_damaged_runs(folder: Path, tmp_path: Path) -> None:
    check(folder, tmp_path, range(20, 1000))
