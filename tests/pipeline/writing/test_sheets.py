"""`--method all`: every method that fits the model, on one sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import camcli
from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.errors import ImageError, UsageError
from camcli.media.sources.listing import find_sources
from camcli.method_info import METHOD_INFO
from camcli.models.load import Classifier
from camcli.pipeline import carry_out_plan, make_plan, run_sources
from camcli.pipeline.writing import output_writer
from camcli.records import FileStamp, Record
from camcli.registry import METHODS, depends_on_category, depends_on_layer
from camcli.runs import verify_folder
from tests.small_models import small_in_place_of_embedded
from tests.test_demo import PHOTO

# few passes, for what is drawn does not matter here
QUICK = {
    "masks": 8,
    "samples": 1,
    "max_channels": 2,
    "window": 32,
    "stride": 32,
    "concepts": 1,
}
TRANSFORMERS = {name for name, card in METHOD_INFO.items() if "transformers" in card.where}


@pytest.fixture(scope="module")
def embedded() -> Classifier:
    with small_in_place_of_embedded():
        return camcli.load_model(device="cpu", img_size=64)


@pytest.fixture(scope="module")
def vit() -> Classifier:
    return camcli.load_model("test_vit", pretrained=False, device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the demo photo, small: as many of it are drawn as there are methods."""
    path = tmp_path_factory.mktemp("small") / PHOTO.name
    Image.open(PHOTO).resize((150, 100)).save(path)
    return path


def _run(classifier: Classifier, photo: Path, save_path: Path, **options: Any) -> list[Record]:
    chosen = from_keywords(method="all", set=QUICK, save_path=save_path, **options)
    return list(run_sources(classifier, find_sources([photo]), chosen))


def _find_left_out(classifier: Classifier, **options: Any) -> dict[str, str]:
    plan = make_plan(classifier, from_keywords(method="all", **options))
    assert {*plan.left_out, *plan.request.methods} == set(METHOD_INFO) == set(METHODS)
    return dict(plan.left_out)


def test_a_sheet_for_each_class(embedded: Classifier, photo: Path, tmp_path: Path) -> None:
    records = _run(embedded, photo, tmp_path, target_category=["espresso", "tabby"])
    sheets = list(dict.fromkeys(record.sheet for record in records))
    assert sorted(map(Path, sheets)) == sorted(tmp_path.glob("*_all_*"))
    assert ["espresso" in sheet for sheet in sheets] == [True, False]
    fitting = set(METHODS) - TRANSFORMERS
    for sheet in sheets:
        asking = {r.method for r in records if r.sheet == sheet and r.target}
        assert asking == {name for name in fitting if depends_on_category(name)}
    # what asks no class stands on both and is told of once
    classless = [r.method for r in records if not r.target]
    assert sorted(classless) == sorted(n for n in fitting if not depends_on_category(n))
    with Image.open(sheets[0]) as one, Image.open(sheets[1]) as other:
        assert one.size == other.size
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() > 50


def test_what_does_not_fit_is_left_out_with_the_reason(
    embedded: Classifier, vit: Classifier
) -> None:
    left_out = _find_left_out(embedded)
    assert set(left_out) == TRANSFORMERS
    assert all("shows no softmaxed attention" in why for why in left_out.values())
    left_out = _find_left_out(vit)
    assert not TRANSFORMERS & set(left_out)
    assert "average pooling followed by one linear layer" in left_out["cam"]
    classless = {name for name in METHODS if not depends_on_category(name)}
    assert classless <= set(_find_left_out(embedded, target="counterfactual"))
    maps = {name for name, method in METHODS.items() if method.gives == "map"}
    assert maps <= set(_find_left_out(embedded, eigen_smooth=True))


def test_a_model_without_classes(photo: Path, tmp_path: Path) -> None:
    headless = camcli.load_model("test_vit", pretrained=False, num_classes=0, device="cpu")
    (sheet,) = {record.sheet for record in _run(headless, photo, tmp_path)}
    left_out = _find_left_out(headless)
    assert set(left_out) == {name for name in METHODS if depends_on_category(name)}
    assert Path(sheet).name == f"{photo.stem}_all{photo.suffix}"


def test_maps_are_written_beside_it(embedded: Classifier, photo: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_map": "npy", "target_layers": ["_blocks", "features"]}
    # maps of one layer in a folder: test_every_file_of_a_sheet_is_known_again_...
    for name, fusion, a_layer in (("a", "none", 2), ("a.png", "none", 2), ("b.png", "mean", 1)):
        records = _run(embedded, photo, tmp_path / name, layer_fusion=fusion, **options)
        maps = [path for r in records for path in r.outputs if path.endswith(".npy")]
        assert len(set(maps)) == len(records) == len(maps)
        counts = [a_layer if depends_on_layer(r.method) else 1 for r in records]
        methods = [record.method for record in records]
        assert [methods.count(m) for m in methods] == counts
        for record in records:
            map_ = np.load(next(p for p in record.outputs if p.endswith(".npy")))
            assert (map_.min(), map_.max()) == (record.minimum, record.maximum)


def test_every_file_of_a_sheet_is_known_again_also_where_a_map_fails(
    embedded: Classifier, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_map = output_writer.write_map

    def refuse_one(values: NDArray[np.float32], path: Path, kind: str) -> FileStamp:
        if "_eigencam" in path.name:
            raise ImageError("Cannot write it: File name too long.")
        return write_map(values, path, kind)

    monkeypatch.setattr(output_writer, "write_map", refuse_one)
    records = _run(embedded, photo, tmp_path, save_map="npy", target_layers=["features"])
    assert {r.method for r in records if r.error} == {"eigencam"}
    checked = {file.path: file.state for file in verify_folder(tmp_path)}
    assert checked == {path.name: "whole" for path in tmp_path.iterdir() if "_" in path.name}
    assert not any("_eigencam" in name for name in checked)


def test_one_file_holds_one_sheet(embedded: Classifier, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is one file, but 2 pictures"):
        _run(embedded, photo, tmp_path / "a.png", top_k=2)
    assert {r.sheet for r in _run(embedded, photo, tmp_path / "a.png")} == {str(tmp_path / "a.png")}


def test_a_cropped_sheet_shows_the_view_alone(
    embedded: Classifier, photo: Path, tmp_path: Path
) -> None:
    sizes = []
    for outside in ("keep", "crop"):
        sheet = tmp_path / f"{outside}.png"
        _run(embedded, photo, sheet, outside=outside, caption=True)
        with Image.open(sheet) as drawn:
            sizes.append(drawn.size)
    # cells of one width: those of a square view are higher than those of a wide picture
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] < sizes[1][1]


def test_a_sheet_that_cannot_be_written_is_an_error(
    embedded: Classifier, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(camcli.media.pictures.write.LONGEST_EDGE, "JPEG", 100)
    (record,) = _run(embedded, photo, tmp_path)
    assert (record.method, record.sheet) == ("all", "")
    assert "JPEG holds at most 100 pixels" in record.error
    assert record.weights


@pytest.mark.parametrize("style", ["", "--json", "-q"])
@pytest.mark.usefixtures("small_embedded")
def test_what_is_printed(
    style: str,
    embedded: Classifier,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "sheet.png"
    settings = [text for key, value in QUICK.items() for text in ("--set", f"{key}={value}")]
    command = [str(photo), "--method", "All,gradcam", "--img-size", "64", *settings]
    command += ["--save-path", str(path)]
    assert main([*command, *([style] if style else [])]) == 0
    out, err = capsys.readouterr()
    fitting = [name for name in METHOD_INFO if name not in TRANSFORMERS]
    if style == "--json":
        records = [json.loads(line) for line in out.splitlines()]
        assert [record["method"] for record in records] == fitting
        assert {record["sheet"] for record in records} == {str(path)}
    elif style == "-q":
        assert out.splitlines()[0] == str(path)
        assert all(Path(line).is_file() for line in out.splitlines())
    else:
        (plain,) = camcli.explain(embedded, photo)
        assert out.startswith(f"{path}  {plain.label} ")
        assert out.endswith(f"%  {len(fitting)} methods at features\n")
    assert (f"left out: {', '.join(n for n in METHOD_INFO if n in TRANSFORMERS)}: " in err) is not (
        style == "-q"
    )


def test_a_picture_that_cannot_be_read_is_no_sheet(embedded: Classifier, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    chosen = from_keywords(method="all", save_path=tmp_path / "out")
    (outcome,) = carry_out_plan(make_plan(embedded, chosen), find_sources([bad]), chosen)
    (record,) = outcome.records
    assert (record.sheet, bool(record.error)) == ("", True)


def test_a_warning_names_its_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = tmp_path / "grey.png"
    Image.new("RGB", (64, 64), (128, 128, 128)).save(grey)
    settings = [text for key, value in QUICK.items() for text in ("--set", f"{key}={value}")]
    model = ["-m", "test_vit", "--cfg-options", "pretrained=false"]
    command = [str(grey), *model, "--method", "all", *settings, "--save-path", str(tmp_path / "o")]
    assert main(command) == 0
    assert f"{grey}: fullgrad: input and biases contribute " in capsys.readouterr().err
