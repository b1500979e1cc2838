"""What is typed reaches the pipeline as options."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from camcli.cli.options import OWN, Flags
from camcli.config import ALIASES, Options, PreprocessingOptions
from camcli.records import Span
from tests.cli.conftest import Asked, Run


def options_of(asked: Asked, run: Run, *arguments: str) -> Options:
    result = run(*arguments)
    assert (result.code, asked.options is None) == (0, False), result.err
    assert asked.options is not None
    return asked.options


def test_only_what_was_typed_is_given(asked: Asked, run: Run, image: str) -> None:
    assert options_of(asked, run, image) == Options()
    assert options_of(asked, run, image).model_fields_set == set()
    assert options_of(asked, run, image, "--alpha", "0.5").model_fields_set == {"alpha"}


def test_every_option_arrives(
    asked: Asked, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("w.pt", "c.txt"):
        Path(name).touch()
    # a camera takes the place of pictures
    typed = (
        "-m x --checkpoint w.pt --no-pretrained --no-strict --num-classes 3 --img-size 64x32 "
        "--model-kwargs a=1 --model-kwargs b=c --class-map c.txt --target-layers l1,l2 "
        "--target-layers l3 --layer-fusion max --vit-like --num-extra-tokens 0 --method CAM "
        "--method ablation-cam --target-category 3 --target-category a,b --aug-smooth "
        "--target Log_Probability --contrast 4 --contrast c,d --contrast-strength 1 "
        "--set ablationcam.max_channels=4 --max-channels 8 --output-key 0 "
        "--outputs Independent "
        "--eigen-smooth --noise-smooth 4 --noise-sigma 0.1 "
        "--seed 5 --mean 0.5,0.4,0.3 --std 0.25 --fit pad --no-recursive --device cpu "
        "-b 4 -j 3 --resume --fail-fast --max-failures 7 --colormap turbo --alpha 0.25 "
        "--every 2 --frames 10:50 --camera 1 --smooth-frames 5 --save-frames --scale 0,2.5 "
        "--save-path out --format png --save-map npy --max-pixels 1.5M --max-memory 2G "
        "--map-size image --engine Local --boxes all --box-threshold 0.5 --contour --export COCO "
        "--outside Keep --caption"
    )
    assert options_of(asked, run, *typed.split()) == Options(
        model="x",
        checkpoint=Path("w.pt"),
        pretrained=False,
        strict=False,
        num_classes=3,
        img_size=(64, 32),
        model_kwargs={"a": 1, "b": "c"},
        class_map=Path("c.txt"),
        target_layers=("l1", "l2", "l3"),
        layer_fusion="max",
        vit_like=True,
        num_extra_tokens=0,
        method=("cam", "ablationcam"),
        target_category=("3", "a,b"),
        target="log-probability",
        contrast=("4", "c,d"),
        contrast_strength=1.0,
        set={"ablationcam": {"max_channels": "4"}, "max_channels": "8"},
        output_key="0",
        outputs="independent",
        aug_smooth=True,
        eigen_smooth=True,
        noise_smooth=4,
        noise_sigma=0.1,
        seed=5,
        preprocessing=PreprocessingOptions(mean=(0.5, 0.4, 0.3), std=(0.25,), fit="pad"),
        recursive=False,
        device="cpu",
        batch_size=4,
        max_pixels=1_500_000,
        max_memory=2**31,
        workers=3,
        resume=True,
        fail_fast=True,
        max_failures=7,
        every=2,
        frames=Span(10, 50),
        camera=1,
        smooth_frames=5,
        save_frames=True,
        scale=(0.0, 2.5),
        colormap="turbo",
        alpha=0.25,
        save_path=Path("out"),
        format="png",
        save_map="npy",
        map_size="image",
        engine="local",
        boxes="all",
        box_threshold=0.5,
        contour=True,
        export="coco",
        outside="keep",
        caption=True,
    )


def test_other_ways_to_choose_classes_arrive(asked: Asked, run: Run, image: str) -> None:
    options = options_of(asked, run, image, "--top-k", "2", "--threshold", "0.25")
    assert (options.top_k, options.threshold) == (2, 0.25)


def test_every_option_of_config_is_a_flag_and_the_other_way_round() -> None:
    flags = {field.name for field in fields(Flags)} - OWN
    short = set(ALIASES)
    assert flags - short == set(Options.model_fields) - {"preprocessing"}
    assert short - {"max_channels"} <= set(PreprocessingOptions.model_fields)


@pytest.mark.parametrize("before", ["", "explain"])
@pytest.mark.parametrize(
    "spelled", ["--target-layers=a", "--target_layers=a", "--target_layers a", "--target-layers a"]
)
def test_both_spellings_with_and_without_the_command(
    asked: Asked, run: Run, image: str, before: str, spelled: str
) -> None:
    words = [*before.split(), image, *spelled.split(), "--no_aug_smooth", "--num_extra_tokens", "1"]
    options = options_of(asked, run, *words)
    assert (options.target_layers, options.num_extra_tokens) == (("a",), 1)


def test_a_run_goes_on_in_one_way(asked: Asked, run: Run, image: str) -> None:
    options = options_of(asked, run, image, "--skip-existing", "--no-resume")
    assert (options.resume, options.skip_existing) == (False, True)
    result = run(image, "--resume", "--skip-existing")
    assert (result.code, "give one of them" in result.err) == (2, True)


def test_options_may_come_first(asked: Asked, run: Run, image: str) -> None:
    assert options_of(asked, run, "--alpha", "0.1", "-q", image).alpha == 0.1
    assert [str(source) for source in asked.sources] == [image]


def test_a_file_may_be_named_like_a_command_or_an_option(
    asked: Asked, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("methods", "-odd.jpg"):
        Path(name).touch()
    assert run("./methods").code == 0
    assert [source.path.name for source in asked.sources] == ["methods"]
    assert run("--", "-odd.jpg").code == 0
    assert [source.path.name for source in asked.sources] == ["-odd.jpg"]


def test_preset_and_environment_reach_the_run(
    asked: Asked, run: Run, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMVIZ_TOP_K", "3")
    options = options_of(asked, run, image, "--config", "vgg16", "--cfg-options", "fit=squash")
    assert (options.model, options.top_k, options.preprocessing.fit) == ("vgg16", 3, "squash")
    assert (asked.model["fit"], asked.model["preprocessing"]) == ("squash", {})


def test_the_model_is_loaded_as_asked(asked: Asked, run: Run, image: str) -> None:
    run(image, "-m", "resnet50", "--num-classes", "5", "--device", "cpu")
    assert asked.model == {
        "name": "resnet50",
        "pretrained": True,
        "checkpoint": None,
        "strict": True,
        "num_classes": 5,
        "img_size": None,
        "class_map": None,
        "model_kwargs": {},
        "device": "cpu",
        "fit": None,
        "preprocessing": {},
        "output_key": None,
        "outputs": None,
    }


def test_mean_and_std_reach_the_model(asked: Asked, run: Run, image: str) -> None:
    run(image, "--mean", "0.5,0.4,0.3", "--std", "0.2")
    assert asked.model["preprocessing"] == {"mean": (0.5, 0.4, 0.3), "std": (0.2,)}


def test_help_tells_the_true_defaults(run: Run) -> None:
    text = re.sub(r"[│\s]+", " ", run("--help-all").out)
    for name in ("model", "layer_fusion", "seed", "device", "batch_size", "colormap", "alpha"):
        default = Options.model_fields[name].default
        row = re.search(rf"--{name.replace('_', '-')} .*?default ([\w.-]+?)\.? ", text)
        assert row, name
        assert row[1] == str(default), name
    assert f"default {Options().save_path}." in text
    assert f"default {Options().map_size}." in text
    assert f"default {Options().method[0]}." in text
