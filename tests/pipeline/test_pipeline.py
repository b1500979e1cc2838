"""From sources to explanations, files and records."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import camcli
from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.engine.device.device_timer import DeviceTimer
from camcli.errors import (
    CamvizWarning,
    ImageError,
    MethodError,
    OutputError,
    UnknownName,
    UsageError,
)
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import explain_empty, make_plan, run_sources
from camcli.records import Preprocessing, Record
from tests.checkout import ROOT
from tests.networks import Pooled, Staged
from tests.outputs import outputs
from tests.small_models import small_in_place_of_embedded
from tests.test_demo import PHOTO


@pytest.fixture(scope="module")
def embedded() -> Classifier:
    # both halves of the photo in view
    return camcli.load_model(device="cpu", fit="squash")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """Returns one that takes less time, for tests in which it does not matter what is seen."""
    with small_in_place_of_embedded():
        return camcli.load_model(device="cpu", fit="squash")


def _classifier(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> Classifier:
    preprocessing = Preprocessing(
        size, size, mean=(0.5,) * channels, std=(0.25,) * channels, fit="squash"
    )
    return Classifier(
        module=module.eval(),
        name="handmade",
        origin="timm",
        preprocessing=preprocessing,
        labels=None,
        weights="by hand",
        num_classes=2,
        in_chans=channels,
    )


def _open(path: str | Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def _run(classifier: Classifier, paths: list[Path], **options: Any) -> list[Record]:
    return list(run_sources(classifier, find_sources(paths), from_keywords(**options)))


def test_explanations_of_paths_pictures_arrays_and_tensors_are_the_same(
    embedded: Classifier,
) -> None:
    picture = _open(PHOTO)
    pixels = np.asarray(picture)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    forms = [PHOTO, str(PHOTO), picture, pixels, tensor, pixels / 255.0]
    explanations = list(camcli.explain(embedded, forms, "gradcam", batch_size=4))
    alone = [next(iter(camcli.explain(embedded, form))) for form in forms]
    assert len(explanations) == len(forms)
    for one in [*explanations, *alone]:
        np.testing.assert_allclose(one.heatmap, explanations[0].heatmap, rtol=1e-3, atol=1e-4)
        assert one.label == "Egyptian cat"
    assert explanations[0].overlay().shape == (400, 600, 3)


def test_methods_and_categories_of_one_picture(embedded: Classifier) -> None:
    explanations = list(camcli.explain(embedded, PHOTO, ["GradCAM", "eigencam"], top_k=3))
    # EigenCAM asks no class: one map, under the predicted one
    assert [(e.method, e.record.rank) for e in explanations] == [
        ("gradcam", 1),
        ("eigencam", 1),
        ("gradcam", 2),
        ("gradcam", 3),
    ]
    (one,) = camcli.explain(embedded, PHOTO, "eigencam", target_category="tabby,lemon")
    assert (one.label, one.record.rank) == ("Egyptian cat", 1)
    assert [e.probability for e in explanations] == sorted(
        (e.probability for e in explanations), reverse=True
    )
    assert len({e.category for e in explanations}) == 3
    named = list(camcli.explain(embedded, PHOTO, target_category=["Tabby, tabby cat", 967]))
    assert [e.label for e in named] == ["tabby, tabby cat", "espresso"]
    commas = list(camcli.explain(embedded, PHOTO, target_category="tabby,espresso"))
    assert [e.category for e in commas] == [e.category for e in named]


def test_the_raw_map_is_that_of_heatmaps(classifier: Classifier) -> None:
    from camcli.media.network_input import make_view
    from camcli.media.pictures.read import make_picture

    (explanation,) = camcli.explain(classifier, PHOTO, "hirescam", target_category="lemon")
    inputs = make_view(make_picture(PHOTO), classifier.preprocessing).inputs[None]
    expected = camcli.heatmaps(classifier.module, inputs, "hirescam", targets=explanation.category)
    np.testing.assert_allclose(explanation.heatmap, expected[0], rtol=1e-4, atol=1e-5)


def test_an_explanation_is_saved_as_map_or_picture(classifier: Classifier, tmp_path: Path) -> None:
    (explanation,) = camcli.explain(classifier, PHOTO)
    np.testing.assert_array_equal(
        np.load(explanation.save(tmp_path / "a_map.npy")), explanation.heatmap
    )
    png = explanation.save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(_open(png)), explanation.overlay())
    with pytest.raises(OutputError, match=r"a\.txt"):
        explanation.save(tmp_path / "a.txt")


def test_overlay_takes_any_picture(classifier: Classifier) -> None:
    (explanation,) = camcli.explain(classifier, PHOTO)
    pixels = np.asarray(_open(PHOTO))
    expected = explanation.overlay(0.3, "viridis")
    for form in (PHOTO, pixels, pixels / 255):
        drawn = camcli.overlay(
            form, explanation.heatmap, alpha=0.3, colormap="viridis", box=explanation.view
        )
        np.testing.assert_array_equal(drawn, expected)
    # a box over the whole picture is the default, and this one is squashed
    np.testing.assert_array_equal(
        camcli.overlay(PHOTO, explanation.heatmap, 0.3, "viridis"), expected
    )


def test_an_overlay_takes_the_scale_of_others(classifier: Classifier) -> None:
    (explanation,) = camcli.explain(classifier, PHOTO)
    low, high = max(0.0, float(explanation.heatmap.min())), float(explanation.heatmap.max())
    np.testing.assert_array_equal(explanation.overlay(scale=(low, high)), explanation.overlay())
    # twice as hot a scale: the same as half as hot a map
    colder = replace(explanation, map=replace(explanation.map, values=explanation.heatmap / 2))
    np.testing.assert_array_equal(
        explanation.overlay(scale=(low, 2 * high)), colder.overlay(scale=(low / 2, high))
    )


def test_mistakes_are_reported_before_any_picture_is_read(classifier: Classifier) -> None:
    with pytest.raises(UnknownName, match="gradcan"):
        camcli.explain(classifier, "nowhere.jpg", "gradcan")
    with pytest.raises(UnknownName, match="layer5"):
        camcli.explain(classifier, "nowhere.jpg", target_layers="layer5")
    with pytest.raises(UsageError, match="each choose the classes"):
        camcli.explain(classifier, PHOTO, target_category="tabby", top_k=2)
    with pytest.raises(MethodError, match="eigencam makes a map directly"):
        camcli.explain(classifier, PHOTO, "eigencam", eigen_smooth=True)
    for elsewhere in ({"fit": "pad"}, {"device": "cpu"}, {"alpha": 0.3}, {"save_path": "out"}):
        with pytest.raises(UnknownName, match=r"argument of explain .*load_model.*overlay"):
            camcli.explain(classifier, PHOTO, **elsewhere)
    with pytest.raises(UnknownName, match="Closest: 'target_category'"):
        camcli.explain(classifier, PHOTO, target_categories=[3])
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        next(camcli.explain(classifier, "nowhere.jpg"))


def test_files_and_records(embedded: Classifier, tmp_path: Path) -> None:
    records = _run(
        embedded,
        [PHOTO],
        method=["gradcam++", "layercam"],
        target_category=["tabby", "espresso"],
        save_path=tmp_path / "out",
        save_map="npy",
    )
    names = [Path(r.outputs[0]).name for r in records]
    assert names == [
        f"cat_and_coffee_{method}_{label}.jpg"
        for label in ("281-tabby", "967-espresso")
        for method in ("gradcam++", "layercam")
    ]
    for record in records:
        picture, raw = record.outputs
        assert _open(picture).size == (600, 400)
        values = np.load(raw)
        assert (values.min(), values.max()) == (record.minimum, record.maximum)
        assert record.layers == ("features",)
        assert record.layer_reason
        assert json.dumps(asdict(record))
    assert records[2].rank == 2
    assert len(outputs(tmp_path / "out")) == 8


def test_the_same_command_gives_the_same_bytes(classifier: Classifier, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        _run(
            classifier,
            [PHOTO],
            method=["gradcam", "randomcam", "eigencam"],
            save_path=tmp_path / folder,
            save_map="npy",
        )
    files = outputs(tmp_path / "one")
    assert len(files) == 6
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize(("size", "shape"), [("input", (224, 224)), ("image", (400, 600))])
def test_map_sizes(
    classifier: Classifier, tmp_path: Path, size: str, shape: tuple[int, int]
) -> None:
    options = {"save_path": tmp_path, "save_map": "npy"}
    (small,) = _run(classifier, [PHOTO], **options)
    raw = np.load(small.outputs[1])
    (record,) = _run(classifier, [PHOTO], map_size=size, **options)
    values = np.load(record.outputs[1])
    size_of_input = classifier.preprocessing.size
    assert values.shape == (size_of_input if size == "input" else shape)
    # enlarged, but neither clipped nor normalised
    assert raw.min() - 1e-4 <= values.min()
    assert values.max() <= raw.max() + 1e-4
    assert values.max() > 0.8 * raw.max()


def test_a_size_that_a_map_does_not_have_is_refused(classifier: Classifier) -> None:
    (explanation,) = camcli.explain(classifier, PHOTO)
    with pytest.raises(UsageError, match="layer, input or image, not 'picture'"):
        explanation.sized_map("picture")


def test_a_map_for_each_layer(embedded: Classifier, tmp_path: Path) -> None:
    layers = ["_blocks.14", "features"]
    records = _run(embedded, [PHOTO], target_layers=layers, layer_fusion="none", save_path=tmp_path)
    assert [r.layers for r in records] == [("_blocks.14",), ("features",)]
    assert [Path(r.outputs[0]).name for r in records] == [
        f"cat_and_coffee_gradcam_{layer}_285-Egyptian_cat.jpg" for layer in layers
    ]
    (fused,) = _run(embedded, [PHOTO], target_layers=layers, save_path=tmp_path)
    assert fused.layers == ("_blocks.14", "features")


def test_a_bad_picture_becomes_a_record_and_the_others_are_written(
    embedded: Classifier, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    _open(PHOTO).save(folder / "b.png")
    (folder / "a.jpg").write_bytes(b"no picture")
    (folder / "sub" / "c.jpg").write_bytes(PHOTO.read_bytes()[:5000])
    _open(PHOTO).save(folder / "sub" / "d.webp")
    for size in (1, 8):
        records = _run(embedded, [folder], save_path=tmp_path / "out", batch_size=size)
        assert [Path(r.source).name for r in records] == ["a.jpg", "b.png", "c.jpg", "d.webp"]
        assert [bool(r.error) for r in records] == [True, False, True, False]
        assert all(not r.outputs for r in records if r.error)
    written = {p.relative_to(tmp_path / "out") for p in outputs(tmp_path / "out")}
    assert written == {
        Path("b_gradcam_285-Egyptian_cat.png"),
        Path("sub/d_gradcam_285-Egyptian_cat.webp"),
    }


def test_a_single_output_file(classifier: Classifier, tmp_path: Path) -> None:
    expected = tmp_path / "picture.png"
    (record,) = _run(classifier, [PHOTO], save_path=expected)
    assert record.outputs == (str(expected),)
    assert _open(expected).format == "PNG"
    for more in ({"method": ["gradcam", "layercam"]}, {"top_k": 2}):
        with pytest.raises(UsageError, match="is one file, but 2 pictures"):
            _run(classifier, [PHOTO], save_path=expected, **more)


def test_outputs_never_collide(classifier: Classifier, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        _open(PHOTO).save(tmp_path / folder / "a.jpg")
    pair = [tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.jpg"]
    with pytest.raises(UsageError, match="would write the same files"):
        _run(classifier, pair, save_path=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))
    assert len(_run(classifier, [tmp_path], save_path=tmp_path / "out")) == 2


def test_an_unwritable_place_is_reported_first(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        _run(classifier, [PHOTO], save_path=tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((3, 3)), "zero everywhere"),
        (-np.ones((3, 3)), "negative everywhere"),
        (-np.arange(9.0).reshape(3, 3), "negative everywhere"),
        (np.full((3, 3), 2.0), "constant"),
        (np.full((3, 3), np.nan), "not finite"),
        (np.array([[1.0, np.inf]]), "not finite"),
    ],
)
def test_an_empty_map_is_explained_in_words(values: np.ndarray, words: str) -> None:
    (warning,) = explain_empty(values.astype(np.float32))
    assert words in warning
    assert not list(explain_empty(np.array([[0.0, 1.0]], np.float32)))


def test_an_empty_map_leaves_the_plain_picture(tmp_path: Path) -> None:
    module = Staged(2)
    torch.nn.init.zeros_(module.fc.weight)
    dead = _classifier(module, 3, (48, 64))
    png = tmp_path / "a.png"
    _open(PHOTO).save(png)
    (record,) = _run(dead, [png], target_layers="last", save_path=tmp_path / "out")
    assert "zero everywhere" in record.warnings[0]
    np.testing.assert_array_equal(_open(record.outputs[0]), _open(png))


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_bright_square_is_hot_where_it_is(tmp_path: Path, fit: str) -> None:
    # the activation of `Pooled` is the brightness itself, at stride 1; one channel, no padding
    picture = Image.new("L", (240, 160))
    picture.paste(255, (150, 40, 190, 80))
    picture.save(tmp_path / "square.png")
    module = _classifier(Pooled(), 1, (64, 96))
    bright = Preprocessing((64, 96), (64, 96), mean=(0.0,), std=(1.0,), fit=fit)
    bright_module = Classifier(
        module.module, "handmade", "timm", bright, None, "by hand", 2, in_chans=1
    )
    (record,) = _run(
        bright_module,
        [tmp_path / "square.png"],
        target_layers="features",
        target_category="1",
        save_path=tmp_path / "out",
        save_map="npy",
        map_size="image",
    )
    heat = np.nan_to_num(np.load(record.outputs[1])).clip(0)
    y, x = (np.average(axis, weights=heat) for axis in np.indices(heat.shape))
    assert abs(x + 0.5 - 170) < 1
    assert abs(y + 0.5 - 60) < 1
    assert record.outputs[0].endswith("square_gradcam_1-class_1.png")


# what is explained of a class, and with which options


def test_the_record_and_the_file_name_the_target(embedded: Classifier, tmp_path: Path) -> None:
    names = {}
    for target in ("logit", "rest", "contrast"):
        (record,) = _run(embedded, [PHOTO], target=target, save_path=tmp_path)
        assert record.target == target
        names[target] = Path(record.outputs[0]).name
    assert list(names.values()) == [
        f"cat_and_coffee_gradcam{part}_285-Egyptian_cat.jpg" for part in ("", "_rest", "_contrast")
    ]
    # the last one chose the three classes with the closest logits itself
    logits = camcli.explain(embedded, PHOTO, top_k=4)
    nearest = [e.category for e in logits][1:]
    assert (record.contrast, record.contrast_strength) == (tuple(nearest), 0.6)
    assert record.contrast_labels == tuple(embedded.labels[c] for c in nearest)  # type: ignore[index]


def test_a_contrast_names_its_classes(classifier: Classifier, tmp_path: Path) -> None:
    (record,) = _run(
        classifier,
        [PHOTO],
        contrast=["tabby,lemon"],
        contrast_strength=1,
        target_category="espresso",
        save_path=tmp_path,
    )
    assert (record.target, record.contrast) == ("contrast", (281, 951))
    assert record.contrast_labels == ("tabby, tabby cat", "lemon")
    assert record.contrast_strength == 1.0
    assert record.outputs[0].endswith("_gradcam_contrast-281-951_967-espresso.jpg")
    assert json.loads(json.dumps(asdict(record)))["contrast"] == [281, 951]
    values = [
        next(camcli.explain(classifier, PHOTO, target_category=c)).heatmap for c in (967, 281, 951)
    ]
    (explanation,) = camcli.explain(
        classifier, PHOTO, target_category=967, contrast=[281, 951], contrast_strength=1
    )
    expected = values[0] - (values[1] + values[2]) / 2
    np.testing.assert_allclose(explanation.heatmap, expected, rtol=1e-3, atol=1e-5)


def test_a_class_that_could_only_be_compared_with_itself(embedded: Classifier) -> None:
    (plain,) = camcli.explain(embedded, PHOTO)
    (explanation,) = camcli.explain(embedded, PHOTO, contrast="Egyptian cat")
    assert "nothing is subtracted from its logit" in explanation.warnings[0]
    assert explanation.record.contrast == ()
    np.testing.assert_allclose(explanation.heatmap, plain.heatmap, rtol=1e-4, atol=1e-6)
    for given in ({}, {"target": "contrast"}):
        with pytest.raises(UsageError, match="compares 'Egyptian cat' with itself"):
            camcli.explain(
                embedded, PHOTO, contrast="Egyptian cat", target_category=["tabby", 285], **given
            )


def test_a_method_that_asks_no_class_has_no_target(embedded: Classifier, tmp_path: Path) -> None:
    both = {"method": ["gradcam", "eigencam"], "save_path": tmp_path}
    first, second = _run(embedded, [PHOTO], target="probability", **both)
    assert (first.target, second.target) == ("probability", "")
    assert Path(second.outputs[0]).name == "cat_and_coffee_eigencam_285-Egyptian_cat.jpg"


def test_a_function_is_a_target(classifier: Classifier, tmp_path: Path) -> None:
    def twice(logits: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        return 2 * logits.gather(1, categories[:, None])[:, 0]

    (plain,) = camcli.explain(classifier, PHOTO)
    (explanation,) = camcli.explain(classifier, PHOTO, target=twice)
    assert explanation.record.target == "twice"
    np.testing.assert_allclose(explanation.heatmap, 2 * plain.heatmap, rtol=1e-4, atol=1e-6)
    (record,) = _run(classifier, [PHOTO], target=twice, save_path=tmp_path)
    assert "_gradcam_twice_" in record.outputs[0]


def test_the_record_names_the_options_that_are_no_defaults(classifier: Classifier) -> None:
    methods = ["smoothgradcam++", "scorecam", "gradcam"]
    given = {"samples": 2, "scorecam.max_channels": 4, "sigma": 0.15}
    explanations = list(camcli.explain(classifier, PHOTO, methods, set=given, seed=3))
    assert [e.record.options for e in explanations] == [
        {"seed": 3, "samples": 2},
        {"max_channels": 4},
        {},
    ]
    with pytest.raises(UsageError, match="Unknown option of gradcam 'samples'"):
        camcli.explain(classifier, PHOTO, set={"samples": 2})


def test_the_record_names_smoothing_and_fusion(embedded: Classifier) -> None:
    (plain,) = camcli.explain(embedded, PHOTO)
    assert (plain.record.smoothing, plain.record.layer_fusion) == ({}, "")
    (explanation,) = camcli.explain(embedded, PHOTO, noise_smooth=2, aug_smooth=True, seed=4)
    smoothing = {"aug_smooth": True, "noise_smooth": 2, "noise_sigma": 0.15, "seed": 4}
    assert explanation.record.smoothing == smoothing
    assert explanation.category == plain.category
    assert explanation.probability == pytest.approx(plain.probability)  # of the picture as it is
    assert not np.allclose(explanation.heatmap, plain.heatmap, rtol=1e-2)
    layers = {"target_layers": ["_blocks.14", "features"], "eigen_smooth": True}
    for fusion, message in (("refine", ["refine"]), ("mean", ["mean"]), ("none", ["", ""])):
        several = list(camcli.explain(embedded, PHOTO, layer_fusion=fusion, **layers))
        assert [e.record.layer_fusion for e in several] == message
        assert all(e.record.smoothing == {"eigen_smooth": True} for e in several)
    with pytest.raises(UsageError, match="--noise-sigma is for --noise-smooth N"):
        camcli.explain(embedded, PHOTO, noise_sigma=0.2)


def test_what_is_typed_reaches_the_record(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    typed = "--noise-smooth 2 --noise-sigma 0.1 --layer-fusion refine"
    typed += " --target-layers _blocks.14,features"
    words = [str(PHOTO), *typed.split(), "--device", "cpu", "--save-path", str(tmp_path), "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["smoothing"] == {"noise_smooth": 2, "noise_sigma": 0.1, "seed": 0}
    assert (record["layer_fusion"], record["layers"]) == ("refine", ["_blocks.14", "features"])
    assert (record["minimum"], record["warnings"]) == (0, [])


@pytest.mark.parametrize(
    ("value", "method", "layers", "words"),
    [
        (0.0, "rise", 0, "does not depend on the picture"),
        (0.0, "eigencam", 1, "this layer is dead, or the same everywhere"),
        (-1.0, "rise", 0, "the picture speaks against the class"),
        (-1.0, "randomcam", 1, "only values above zero are drawn"),
        (1.0, "rollout", 0, "the picture says the same everywhere$"),
        (1.0, "gradcam", 1, "this layer says the same everywhere; choose an earlier one"),
    ],
)
def test_an_empty_map_is_explained_by_what_was_looked_at(
    value: float, method: str, layers: int, words: str
) -> None:
    (warning,) = explain_empty(np.full((3, 3), value, np.float32), method, layers)
    assert re.search(words, warning)


def test_layers_that_do_not_meet_say_so() -> None:
    (warning,) = explain_empty(np.zeros((3, 3), np.float32), layers=2)
    assert "no place is hot in all of them; --layer-fusion none" in warning
    assert "this layer" not in warning


def test_a_single_logit_is_a_no_and_a_yes(tmp_path: Path) -> None:
    module = Staged(1)
    single = replace(_classifier(module, 3, (48, 64)), num_classes=1, labels=("no", "yes"))
    options = {"target_layers": "last", "save_path": tmp_path}
    both = _run(single, [PHOTO], target_category=["no", "1"], **options)
    assert [(r.category, r.label) for r in both] == [(0, "no"), (1, "yes")]
    assert both[0].probability == pytest.approx(1 - both[1].probability)  # type: ignore[operator]
    assert {r.rank for r in both} == {1, 2}
    (predicted,) = _run(single, [PHOTO], **options)
    assert predicted.probability == max(r.probability for r in both)  # type: ignore[type-var]
    (classless,) = _run(single, [PHOTO], method="eigencam", **options)
    assert classless.label == predicted.label
    with pytest.raises(UsageError, match="--top-k 3 is more than the 2 classes"):
        _run(single, [PHOTO], top_k=3, **options)
    with pytest.raises(UsageError, match=r"single logit: .*counterfactual"):
        _run(single, [PHOTO], target="contrast", **options)


@pytest.mark.parametrize(("precision", "message"), [("float32", False), ("bf16", True)])
def test_a_precision_that_is_slow_here_is_reported(
    precision: str,
    message: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    # the package's `plan` is the function
    module = importlib.import_module("camcli.pipeline.plan")
    monkeypatch.setattr(module, "is_emulated", lambda asked, _: asked == "bf16")
    command = [str(PHOTO), "--precision", precision, "--save-path", str(tmp_path)]
    assert main([*command, "--device", "cpu"]) == 0
    said = "This processor only emulates bf16, which takes several times as long"
    assert (said in " ".join(capsys.readouterr().err.split())) is message


def test_a_strength_without_a_contrast_is_reported(classifier: Classifier) -> None:
    with pytest.raises(UsageError, match="--contrast-strength is for --contrast"):
        camcli.explain(classifier, PHOTO, contrast_strength=1)
    with pytest.raises(UsageError, match="a target itself"):
        camcli.explain(classifier, PHOTO, contrast="tabby", target="logit")


def test_a_method_that_looks_at_no_layer_needs_none() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3 * 32 * 32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1))

    torch.manual_seed(0)
    model, inputs = Flat().eval(), torch.rand(1, 3, 32, 32)
    heatmap = camcli.heatmaps(model, inputs, "occlusion", set={"window": 8, "stride": 8}, targets=1)
    weights = model.head.weight[1].detach().view(3, 32, 32) * inputs[0]
    torch.testing.assert_close(heatmap[0], weights.unfold(1, 8, 8).unfold(2, 8, 8).sum((0, 3, 4)))


def test_a_method_that_looks_at_no_layer_gives_one_map(
    classifier: Classifier, tmp_path: Path
) -> None:
    named = {"target_layers": ["_blocks", "features"], "layer_fusion": "none"}
    wide = {"occlusion.window": 8, "occlusion.stride": 8}
    method = ["gradcam", "occlusion"]
    actual = _run(classifier, [PHOTO], method=method, set=wide, save_path=tmp_path, **named)
    assert [(r.method, r.layers) for r in actual] == [
        ("gradcam", ("_blocks",)),
        ("gradcam", ("features",)),
        ("occlusion", ()),
    ]
    assert [bool(record.layer_reason) for record in actual] == [True, True, False]
    assert len(outputs(tmp_path)) == 3
    inputs = torch.rand(1, 3, 64, 64)
    both = camcli.heatmaps(classifier.module, inputs, method, set=wide, **named)
    assert list(both["gradcam"]) == list(both["occlusion"]) == named["target_layers"]


@pytest.mark.parametrize(("given", "largest"), [({}, 8), ({"batch_size": 4}, 4)])
def test_no_more_altered_pictures_than_a_batch_stand_in_memory(
    given: dict[str, Any], largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    classifier, seen = camcli.load_model(device="cpu", img_size=64), []
    classifier.module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    settings = {"masks": 50}
    list(camcli.explain(classifier, PHOTO, "rise", set=settings, **given))
    assert max(seen) == largest


def test_the_seconds_of_a_pass_are_shared_out_among_its_heatmaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DeviceTimer, "seconds", property(lambda _: 12.0))
    classifier = camcli.load_model("embedded", device="cpu")
    photos = [ROOT / "demo_images" / name for name in ("cat_and_coffee.jpg", "chelsea.png")]
    # two classes of Grad-CAM, and one map of EigenCAM, which asks none
    explanations = list(camcli.explain(classifier, photos, method=["gradcam", "eigencam"], top_k=2))
    assert [e.method for e in explanations] == ["gradcam", "eigencam", "gradcam"] * 2
    assert {e.record.seconds for e in explanations} == {2.0}
    assert (
        explanations[1].category == explanations[0].category and explanations[1].record.target == ""
    )


class Mixed(Staged):
    """Each cell of its last stage looks at all of the picture, which only a measurement tells."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.stem(x))
        mixing = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
        x = (x.flatten(2) @ mixing).view_as(x)
        return self.fc(self.pool(self.last(x)).flatten(1))


def test_cells_that_are_no_places_are_named_in_every_record() -> None:
    classifier = _classifier(Mixed(), 3, (64, 64))
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    with pytest.warns(CamvizWarning, match="8x8 cells of layer 'last' are no places"):
        (explanation,) = camcli.explain(classifier, pixels, target_layers=["last"])
    plan = make_plan(classifier, from_keywords(target_layers=["last"]))
    assert len(plan.warnings) == 1
    assert plan.warnings[0].startswith("The 8x8 cells of layer 'last' are no places")
    # a map that is read later carries its word, and no other one does
    assert explanation.warnings == plan.warnings
    with pytest.warns(CamvizWarning):
        both = camcli.explain(
            classifier, pixels, target_layers=["middle", "last"], layer_fusion="none"
        )
    assert [e.warnings for e in both] == [(), plan.warnings]
    # the default is a layer in front of it
    assert make_plan(classifier, from_keywords()).warnings == ()
    assert make_plan(classifier, from_keywords()).request.layers == ("middle",)
