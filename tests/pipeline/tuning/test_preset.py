"""The preset of a choice gives the maps that were measured, and overwrites nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import camcli
from camcli.cli.app import main
from camcli.config import from_keywords, resolve
from camcli.errors import OutputError, UsageError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline.evaluation.evaluation import Truth
from camcli.pipeline.tuning.candidates import Candidate
from camcli.pipeline.tuning.map_store import LaidPicture, MapStore
from camcli.pipeline.tuning.preset import check_place, find_free_name, write_preset
from camcli.pipeline.tuning.search import tune
from camcli.pipeline.tuning.tuning_plan import TuningPlan, plan_tuning
from tests.pipeline.tuning.networks import make_classifier
from tests.small_models import small_in_place_of_embedded

LAYERS = ("_blocks", "features")


@pytest.fixture(scope="module")
def embedded() -> Classifier:
    with small_in_place_of_embedded():
        return camcli.load_model(img_size=64, fit="squash", device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    draw = np.random.default_rng(0)
    for number in range(3):
        pixels = draw.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(folder / f"{number}.png")
    return folder


def plan(classifier: Classifier, folder: Path, **given: Any) -> TuningPlan:
    options = from_keywords(
        img_size=64,
        preprocessing={"fit": "squash"},
        target_layers=LAYERS,
        method="gradcam,layercam,eigencam,fem",
        save_path=folder,
        **given,
    )
    return plan_tuning(classifier, options, has_boxes=False)


@pytest.mark.usefixtures("small_embedded")
def test_each_candidates_preset_gives_the_maps_that_were_measured(
    embedded: Classifier, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid: list[LaidPicture] = []
    add = MapStore.add

    def note(self: MapStore, picture: LaidPicture) -> None:
        laid.append(picture)
        add(self, picture)

    monkeypatch.setattr(MapStore, "add", note)
    tuning = plan(embedded, tmp_path / "out")
    result = tune(tuning, find_sources([pictures]), Truth(), 900, lambda _: None)
    one, other = ("layercam", LAYERS[0]), ("gradcam", LAYERS[1])
    candidates = {
        result.chosen,
        tuning.best,
        Candidate((one,)),
        Candidate((("eigencam", LAYERS[1]),)),
        Candidate((one, other), "product"),
        Candidate((one, other), "mean"),
    }
    for place, candidate in enumerate(candidates):
        preset = write_preset(tuning, candidate, ["why"], tmp_path / f"{place}.toml")
        out = tmp_path / str(place)
        typed = [str(pictures), "--config", str(preset), "--save-path", str(out), "-q"]
        assert main([*typed, "--device", "cpu", "--save-map", "npy", "--map-size", "input"]) == 0
        for picture in laid:
            raw = {part: torch.from_numpy(values) for part, values in picture.raw.items()}
            measured = candidate.make_map(raw, picture.size).numpy()
            (path,) = out.glob(f"{picture.source.path.stem}_*.npy")
            written = np.load(path)
            assert written.shape == (64, 64) and written.max() > 0
            np.testing.assert_allclose(written, measured, rtol=1e-4, atol=1e-6)


def test_what_decides_what_a_map_is_stands_in_the_preset(
    embedded: Classifier, tmp_path: Path
) -> None:
    weights = tmp_path / 'a "b".pth'
    given = {"model_kwargs": {"drop_rate": 0.1, "act": None}, "precision": "float32", "every": 2}
    tuning = plan(embedded, tmp_path, set={"fem.k": 1.5}, **given)
    options = tuning.options.model_copy(update={"checkpoint": weights})
    options.model_fields_set.add("checkpoint")
    tuning = TuningPlan(**{**vars(tuning), "options": options})
    path = write_preset(tuning, Candidate((("fem", "features"),)), ["one", "two\nthree"], None)
    assert path == tmp_path / "camviz-tune.toml"
    text = path.read_text()
    assert text.startswith("# one\n# two\n# three\n")
    assert tomllib.loads(text) == {
        "model": "embedded",
        "img_size": [64, 64],
        "checkpoint": str(weights),
        "precision": "float32",
        "method": ["fem"],
        "target_layers": ["features"],
        "model_kwargs": {"drop_rate": 0.1},
        "preprocessing": {"fit": "squash"},
        "set": {"fem.k": 1.5},
    }
    assert "# TOML has no none: give --model-kwargs act=none" in text
    read = resolve({}, config=str(path), cfg_options=[], environ={})
    assert read.method == ("fem",) and read.checkpoint == weights
    # of another method it is not said
    other = write_preset(tuning, Candidate((("gradcam", "features"),)), [], None)
    assert other.name == "camviz-tune-2.toml" and "fem" not in other.read_text()
    assert path.read_text() == text


def test_a_preset_runs_no_code(tmp_path: Path) -> None:
    options = from_keywords(model="net.py:build", save_path=tmp_path)
    tuning = plan_tuning(make_classifier(), options, has_boxes=True)
    text = write_preset(tuning, tuning.best, [], None).read_text()
    assert "model =" not in text and "name the model yourself, --model net.py:build" in text
    assert tomllib.loads(text)["combine"] == "product"


def test_where_a_preset_cannot_go_is_told_before(tmp_path: Path) -> None:
    present = tmp_path / "mine.toml"
    present.write_text("keep")
    with pytest.raises(UsageError, match=r"exists already, and nothing is overwritten"):
        check_place(present, tmp_path)
    with pytest.raises(OutputError, match="is a folder: name a file in it"):
        check_place(tmp_path, tmp_path)
    with pytest.raises(OutputError, match="Cannot write"):
        check_place(present / "inner.toml", tmp_path)
    with pytest.raises(OutputError, match="Cannot write"):
        check_place(None, present)
    check_place(tmp_path / "new" / "mine.toml", tmp_path)
    assert not (tmp_path / "new").exists()
    assert find_free_name(present) == tmp_path / "mine-2.toml"
