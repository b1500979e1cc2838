"""Runs of the best, and of methods that are combined: files, records, identity and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import camcli
from camcli.cli.app import main
from camcli.config import Options, from_keywords, resolve
from camcli.errors import UsageError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import make_plan, run_sources
from camcli.records import Preprocessing, Record
from camcli.runs import read_manifest
from tests.media.clips import write_video
from tests.networks import Staged

SIZE = (32, 48)
PARTS = ("gradcamelementwise@middle", "hirescam@last")


@pytest.fixture(scope="module")
def small() -> Classifier:
    preprocessing = Preprocessing(SIZE, SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, fit="squash")
    module = Staged(4).eval()
    return Classifier(module, "small", "timm", preprocessing, None, "by hand", 4, in_chans=3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "inner").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in ("a.png", "b.png", "inner/c.png"):
        pixels = draw.integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def run(classifier: Classifier, folder: Path, **options: Any) -> list[Record]:
    return list(run_sources(classifier, find_sources([folder]), from_keywords(**options)))


def names(records: list[Record]) -> list[str]:
    return [Path(record.outputs[0]).name for record in records]


def test_records_and_files_of_a_folder_say_what_best_was(
    small: Classifier, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    records = run(
        small, pictures, method="best", target_category="1,3", save_path=out, save_map="npy"
    )
    assert names(records) == [f"{n}_best_{c}-class_{c}.png" for n in "abc" for c in (1, 3)]
    for record in records:
        assert (record.method, record.parts, record.combination) == ("best", PARTS, "product")
        assert record.layers == ("middle", "last")
        assert record.layer_reason.startswith("balanced, for a convolutional network; measured")
        assert (record.layer_fusion, record.target) == ("", "logit")
        assert not record.warnings
        values = np.load(record.outputs[1])
        assert values.shape == SIZE
        assert 0 <= values.min() <= values.max() <= 1
    lines = list(read_manifest(out / "manifest.jsonl"))
    assert [tuple(line["parts"]) for line in lines] == [PARTS] * 6
    summary = json.loads((out / "run.json").read_bytes())
    assert summary["configuration"]["method"] == ["best"]
    combined = "gradcamelementwise@middle x hirescam@last"
    assert summary["configuration"]["combined"] == [combined]


def test_a_batch_explains_what_single_pictures_do(
    small: Classifier, pictures: Path, tmp_path: Path
) -> None:
    maps = []
    for size in (1, 3):
        given = {"method": "best", "top_k": 2, "batch_size": size, "save_map": "npy"}
        records = run(small, pictures, save_path=tmp_path / str(size), **given)
        assert [record.rank for record in records] == [1, 2] * 3
        maps.append([np.load(record.outputs[1]) for record in records])
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-3, atol=1e-5)


def test_said_by_hand_it_is_the_same_map_under_another_name(
    small: Classifier, pictures: Path, tmp_path: Path
) -> None:
    best = run(small, pictures, method="best", save_path=tmp_path / "1", save_map="npy")
    by_hand = run(
        small,
        pictures,
        method=",".join(best[0].parts),
        combine=best[0].combination,
        save_path=tmp_path / "2",
        save_map="npy",
    )
    for one, other in zip(best, by_hand, strict=True):
        assert (other.method, other.parts) == ("combined", one.parts)
        assert other.layer_reason == "named by --method"
        np.testing.assert_allclose(
            np.load(one.outputs[1]), np.load(other.outputs[1]), rtol=1e-4, atol=1e-6
        )
    assert names(by_hand)[0].startswith("a_combined_")


def test_a_run_goes_on_with_what_it_was_and_other_runs_stay(
    small: Classifier, pictures: Path, tmp_path: Path
) -> None:
    given = {"method": "best", "save_path": tmp_path / "out"}
    assert len(run(small, pictures, **given)) == 3
    assert not run(small, pictures, resume=True, **given)
    assert not run(small, pictures, skip_existing=True, **given)
    with pytest.raises(UsageError):
        run(small, pictures, resume=True, best_for="evidence", **given)
    others = run(small, pictures, best_for="evidence", **given)
    assert others[0].parts == ("gradcamelementwise@middle", "hirescam@middle", "hirescam@last")
    # of another run: nothing is overwritten, and the name says what was combined
    said = "_best_gradcamelementwise@middle+hirescam@middle+hirescam@last_"
    assert all(said in name for name in names(others))


def test_beside_gradcam_each_has_its_own_layers(
    small: Classifier, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    records = run(small, pictures / "a.png", method="gradcam,best", save_path=out)
    assert [(record.method, record.layers) for record in records] == [
        ("gradcam", ("last",)),
        ("best", ("middle", "last")),
    ]
    assert (records[0].parts, records[0].combination) == ((), "")
    assert records[0].seconds == records[1].seconds
    plan = make_plan(small, from_keywords(method="gradcam,best", top_k=2))
    assert plan.overlays_per_picture == 4


def test_options_of_parts_stand_in_the_record_under_their_names(
    small: Classifier, pictures: Path, tmp_path: Path
) -> None:
    (record,) = run(
        small,
        pictures / "a.png",
        method="fem@middle,gradcam",
        combine="mean",
        set={"fem.k": 1.5},
        save_path=tmp_path / "out",
    )
    assert record.options == {"fem.k": 1.5}
    assert (record.parts, record.combination) == (("fem@middle", "gradcam@last"), "mean")
    assert record.layer_reason != "named by --method"


def test_a_map_in_which_the_parts_do_not_meet_says_so(small: Classifier) -> None:
    pixels = np.full((*SIZE, 3), 127, np.uint8)
    module = Staged(4).eval()
    with torch.no_grad():
        module.fc.weight.zero_()
    dead = Classifier(module, "dead", "timm", small.preprocessing, None, "", 4, in_chans=3)
    (explanation,) = camcli.explain(dead, pixels, "best", best_for="evidence")
    assert explanation.record.parts
    (warning,) = explanation.warnings
    assert warning.startswith("the combination of the maps is zero everywhere")


def test_a_contrast_is_explained_by_the_best(small: Classifier, pictures: Path) -> None:
    (explanation,) = camcli.explain(
        small, pictures / "a.png", "best", target_category=1, contrast=[2]
    )
    assert (explanation.record.target, explanation.record.contrast) == ("contrast", (2,))
    inputs = torch.from_numpy(np.array(Image.open(pictures / "a.png"))).permute(2, 0, 1) / 255
    expected = camcli.heatmaps(
        small.module, ((inputs - 0.5) / 0.25)[None], "best", targets=1, contrast=2
    )
    np.testing.assert_allclose(explanation.heatmap, expected[0], rtol=1e-3, atol=1e-4)


def test_a_video_is_one_of_the_best(small: Classifier, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4")
    given = {"method": "best", "frames": "0:4", "smooth_frames": 2, "scale": "run"}
    records = run(small, tmp_path / "clip.mp4", save_path=tmp_path / "out", **given)
    assert [record.frame for record in records] == [0, 1, 2, 3]
    assert {Path(record.outputs[0]).name for record in records} == {"clip_best.mp4"}
    assert len({record.scale for record in records}) == 1
    assert {record.parts for record in records} == {PARTS}


def test_evaluate_measures_the_best_beside_others(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    (pictures.parent / "net.py").write_text(
        "from tests.networks import Staged\n\ndef make():\n    return Staged(4)\n"
    )
    typed = ["-m", "net.py:make", "--method", "gradcam,best", "--img-size", "32x48"]
    asked = ["--metrics", "increase_in_confidence", "--save-path", "out"]
    assert main(["evaluate", "in/a.png", "in/b.png", *typed, *asked]) == 0
    summary = json.loads((pictures.parent / "out/evaluation.json").read_text())
    assert summary["methods"][-1] == "best"
    assert summary["combined"] == {"best": "gradcamelementwise@middle x hirescam@last"}
    assert "best" in capsys.readouterr().out


def test_random_maps_stand_beside_a_combination_and_are_no_part_of_it(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    (pictures.parent / "net.py").write_text(
        "import torch\nfrom tests.networks import Staged\n\n"
        "def make():\n    torch.manual_seed(0)\n    return Staged(4)\n"
    )
    typed = ["evaluate", "in/a.png", "in/b.png", "-m", "net.py:make", "--img-size", "32x48"]
    typed += ["--metrics", "complexity,max_sensitivity", "--no-plots", "--save-path", "out"]
    asked = ["--method", "gradcam@middle,hirescam", "--combine", "product", "--batch-size", "1"]
    assert main([*typed, *asked]) == 0
    summary = json.loads((pictures.parent / "out/evaluation.json").read_text())
    assert summary["combined"] == {"combined": "gradcam@middle x hirescam@last"}
    names = [row["name"] for row in summary["metrics"][0]["contenders"]]
    assert names == ["combined", "randomcam", "gaussian", "edges", "uniform"]
    # the map is the one of a run
    classifier = camcli.load_model("net.py:make", img_size=(32, 48))
    (explanation,) = camcli.explain(
        classifier, "in/a.png", ["gradcam@middle", "hirescam"], combine="product"
    )
    heat = explanation.sized_map("input").clip(0)
    mean = float((heat / heat.max()).mean())
    rows = map(json.loads, (pictures.parent / "out/evaluation.jsonl").read_text().splitlines())
    (value,) = (
        row["value"]
        for row in rows
        if (row["method"], row["metric"]) == ("combined", "complexity")
        and "a.png" in row["picture"]
    )
    assert value == pytest.approx(mean, abs=1e-4)


def test_what_best_is_for_is_asked_of_an_evaluation_too(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    (pictures.parent / "net.py").write_text(
        "from tests.networks import Staged\n\ndef make():\n    return Staged(4)\n"
    )
    typed = ["evaluate", "in/a.png", "-m", "net.py:make", "--img-size", "32x48", "--no-plots"]
    typed += ["--metrics", "complexity", "--save-path", "out", "--best-for", "evidence"]
    assert main([*typed, "--method", "best"]) == 0
    summary = json.loads((pictures.parent / "out/evaluation.json").read_text())
    parts = "gradcamelementwise@middle x hirescam@middle x hirescam@last"
    assert summary["combined"] == {"best": parts}
    assert main([*typed, "--method", "gradcam"]) == 2
    assert "belongs to --method best" in capsys.readouterr().err


def test_sanity_names_what_the_best_is_made_of(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sanity", str(pictures / "a.png"), "--method", "best"]) == 2
    assert "give --method gradcamelementwise,hirescam." in capsys.readouterr().err


def read(typed: dict[str, Any] | None = None, **environ: str) -> Options:
    return resolve(typed or {}, config=None, cfg_options=(), environ=environ)


def test_preset_environment_and_flags_say_the_same(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('method = ["hirescam@layer3", "gradcam@layer4"]\ncombine = "product"\n')
    written = resolve({}, config=str(preset), cfg_options=(), environ={})
    typed = read({"method": ["hirescam@layer3,gradcam@layer4"], "combine": "product"})
    environment = read(CAMVIZ_METHOD="HiResCAM@layer3,gradcam@layer4", CAMVIZ_COMBINE="product")
    for options in (written, typed, environment):
        assert options.method == ("hirescam@layer3", "gradcam@layer4")
        assert options.combine == "product"
    chosen = read(CAMVIZ_METHOD="best", CAMVIZ_BEST_FOR="extent")
    assert (chosen.method, chosen.best_for) == (("best",), "extent")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best", "eigen_smooth": True}, "leave --eigen-smooth out"),
        ({"method": "best", "layer_fusion": "product"}, "leave --layer-fusion out"),
        ({"method": "best", "target_layers": "last"}, "leave --target-layers out"),
        ({"method": "hirescam@last"}, "give --combine product"),
        ({"best_for": "extent"}, "belongs to --method best"),
        ({"method": "all", "combine": "mean"}, "'all' stands for other methods"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_run(
    small: Classifier, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(small, from_keywords(**options))


def test_the_command_says_what_it_chose_and_how_to_say_it(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    assert main(["in/a.png", "--method", "best", "--save-path", "out", "--json"]) == 0
    printed = capsys.readouterr()
    parts = ["gradcamelementwise@_blocks.11._relu0", "hirescam@features"]
    by_hand = f"--method {','.join(parts)} --combine product"
    (line,) = [line for line in printed.err.splitlines() if by_hand in line]
    assert "balanced, for a convolutional network; measured with EfficientNet-Lite0" in line
    record = json.loads(printed.out)
    assert (record["method"], record["parts"], record["combination"]) == ("best", parts, "product")
    assert main(["in/a.png", *by_hand.split(), "--save-path", "out", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["maximum"] == pytest.approx(record["maximum"], rel=1e-4)
    assert main(["in/a.png", "--method", "hirescam@features"]) == 2
    assert "--method hirescam --target-layers features" in capsys.readouterr().err
