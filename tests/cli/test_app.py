"""Exit codes, messages, and what goes where."""

from __future__ import annotations

import errno
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from camcli.cli.app import app
from camcli.cli.commands.help import READING_ORDER, topics
from camcli.cli.misplaced_words import COMMANDS
from camcli.errors import ImageError, OutputError
from camcli.method_info import METHOD_INFO
from camcli.records import Box, Record
from camcli.registry import find_method_name
from tests.checkout import ROOT
from tests.cli.conftest import Asked, Run

RECORD = Record(
    source="cat.jpg",
    picture_size=(30, 40),
    view=Box(0, 0, 40, 30),
    model="resnet50",
    method="gradcam",
    layers=("layer4",),
    layer_reason="the last 7x7 grid",
    category=281,
    label="tabby",
    probability=0.931,
    rank=1,
    minimum=-1.0,
    maximum=float("nan"),
    outputs=("out/cat_gradcam.jpg", "out/cat_gradcam.jpg.npy"),
)


def test_bare_command_shows_the_help_and_is_a_usage_error(run: Run) -> None:
    result = run()
    assert (result.code, result.out) == (2, "")
    assert "--target-layers" in result.err


def test_help_of_the_command_and_of_the_default_are_alike(run: Run) -> None:
    result = run("--help")
    assert (result.code, result.err) == (0, "")
    assert "Usage: camviz [OPTIONS] [IMAGE]..." in result.out
    assert "Usage: camviz explain [OPTIONS] [IMAGE]..." in run("img.jpg", "--help").out


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("camviz 0.")


def test_a_result_line(asked: Asked, run: Run, image: str) -> None:
    asked.records = [RECORD]
    result = run(image, "-m", "resnet50")
    assert result.code == 0
    assert result.out == (
        "out/cat_gradcam.jpg, out/cat_gradcam.jpg.npy  tabby 93.1%  gradcam at layer4\n"
    )
    assert result.err == (
        "camviz: the weights are fake\n"
        "camviz: target layer layer4: the last 7x7 grid; --method best joins an earlier layer's "
        "map with this one's, or with attention's, and was measured to lie on the object more "
        "often\n"
    )
    assert "target layer" not in run(image, "--target-layers", "layer4").err


def test_what_the_models_own_crop_leaves_out_is_said_once(
    asked: Asked, run: Run, image: str
) -> None:
    cropped = replace(RECORD, view=Box(5, 0, 35, 30))
    asked.records = [replace(RECORD, view=Box(-9, 0, 40, 30)), cropped, cropped]
    said = (
        "camviz: the model's own crop leaves out 25% of cat.jpg, which is dimmed: --fit squash or "
        "pad shows the network all of it, --outside keep shows you the picture as it is\n"
    )
    assert run(image).err.count(said) == 1
    for knows in ("--fit=crop", "--outside=keep", "--outside=crop", "-q"):
        assert "leaves out" not in run(image, knows).err
    asked.records = [RECORD, replace(RECORD, view=None)]
    assert "leaves out" not in run(image).err


FRAME = replace(RECORD, source="clip.mp4", frame=0, outputs=("out/clip_gradcam.mp4",))


def test_a_video_is_a_line(asked: Asked, run: Run, image: str) -> None:
    def frames(*labels: str) -> list[Record]:
        warnings = ("the map is flat",)
        return [
            replace(FRAME, frame=n, label=label, probability=0.5 + n / 10, warnings=warnings)
            for n, label in enumerate(labels)
        ]

    asked.records = frames("tabby", "tabby", "tabby")
    result = run(image)
    assert result.out == (
        "out/clip_gradcam.mp4  tabby 50.0% to 70.0%  gradcam at layer4, 3 frames\n"
    )
    assert result.err.count("clip.mp4: the map is flat") == 1
    asked.records = [*frames("lynx", "tabby", "tabby"), replace(FRAME, error="cut", outputs=())]
    result = run(image)
    assert result.code == 1 and "clip.mp4: cut" in result.err
    assert result.out == (
        "out/clip_gradcam.mp4  tabby in 2, lynx in 1  gradcam at layer4, 3 frames\n"
    )
    other = replace(FRAME, method="cam", outputs=("out/clip_cam.mp4", "out/clip_0_cam.png"))
    asked.records = [*frames("tabby"), other, *frames("lynx", "fox", "cat", "dog")]
    assert run(image).out.splitlines() == [
        "out/clip_gradcam.mp4  tabby in 1, lynx in 1, fox in 1 and 2 more  gradcam at layer4, "
        "5 frames",
        "out/clip_cam.mp4  tabby 93.1%  cam at layer4, 1 frame",
    ]
    # as data, each frame is told
    assert len(run(image, "--json").out.splitlines()) == 6


BEST_PARTS = ("gradcamelementwise@layer3", "hirescam@layer4")


def test_what_best_stands_for_is_told_once_with_the_way_to_say_it_oneself(
    asked: Asked, run: Run, image: str
) -> None:
    best = replace(
        RECORD,
        method="best",
        layers=("layer3", "layer4"),
        layer_reason="balanced, for a convolutional network; measured on two networks",
        parts=BEST_PARTS,
        combination="product",
    )
    asked.records = [best, replace(best, category=282)]
    result = run(image, "-m", "resnet50", "--method", "best")
    assert result.err == (
        "camviz: the weights are fake\n"
        "camviz: best: product of gradcamelementwise@layer3, hirescam@layer4: balanced, for a "
        "convolutional network; measured on two networks; to say it yourself: --method "
        "gradcamelementwise@layer3,hirescam@layer4 --combine product\n"
    )
    assert result.out.endswith("  best at layer3, layer4\n")
    record = json.loads(run(image, "--method", "best", "--json").out.splitlines()[0])
    assert (record["parts"], record["combination"]) == (list(BEST_PARTS), "product")


def test_beside_best_or_at_another_method_nothing_is_recommended(
    asked: Asked, run: Run, image: str
) -> None:
    best = replace(RECORD, method="best", parts=BEST_PARTS, combination="product")
    asked.records = [RECORD, best]
    assert "more often" not in run(image, "--method", "gradcam,best").err
    asked.records = [replace(RECORD, method="layercam")]
    assert "more often" not in run(image, "--method", "layercam").err


def test_methods_at_layers_of_their_own_are_read(asked: Asked, run: Run, image: str) -> None:
    run(image, "--method", "HiResCAM@blocks.-1.norm1,grad_cam", "--combine", "Product")
    assert asked.options
    assert asked.options.method == ("hirescam@blocks.-1.norm1", "gradcam")
    assert (asked.options.combine, asked.options.best_for) == ("product", None)
    run(image, "--method", "Best", "--best-for", "evidence")
    assert (asked.options.method, asked.options.best_for) == (("best",), "evidence")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--method", "bset"), "Closest: 'best'"),
        (("--method", "hirescm@layer4"), "hirescm"),
        (("--best-for", "all"), "--best-for all: takes balanced, evidence or extent."),
        (("--combine", "max"), "--combine max: takes mean or product."),
        (("--method", "best", "--set", "k=3"), "Method best has no options: leave 'k' out"),
    ],
)
def test_wrong_words_about_best_are_told(
    run: Run, image: str, typed: tuple[str, ...], message: str
) -> None:
    result = run(image, *typed)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "logit"}, "gradcam at layer4"),
        ({"target": "rest"}, "gradcam at layer4, rest"),
        ({"contrast_labels": ("lion", "ox")}, "gradcam at layer4, in contrast to lion, ox"),
    ],
)
def test_a_result_line_names_the_target(
    asked: Asked, run: Run, image: str, given: dict[str, Any], message: str
) -> None:
    asked.records = [replace(RECORD, **given)]
    assert run(image).out.endswith(f"  {message}\n")


def test_a_class_without_a_name_is_shown_by_its_index(asked: Asked, run: Run, image: str) -> None:
    asked.records = [replace(RECORD, label="", probability=None, outputs=("a.jpg",))]
    assert run(image).out == "a.jpg  class 281  gradcam at layer4\n"


def test_long_lines_are_not_wrapped(
    asked: Asked, run: Run, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    asked.records = [replace(RECORD, outputs=("long/" * 40 + "a.jpg",))]
    assert len(run(image).out.splitlines()) == 1


def test_quiet_prints_paths_alone(asked: Asked, run: Run, image: str) -> None:
    asked.records = [replace(RECORD, warnings=("the map is empty",))]
    result = run(image, "-q")
    assert result.out.splitlines() == list(RECORD.outputs)
    assert "embedded" not in result.err
    assert "camviz: cat.jpg: the map is empty\n" in result.err


def test_json_is_one_object_a_record(asked: Asked, run: Run, image: str) -> None:
    asked.records = [RECORD, replace(RECORD, error="cat.jpg: not an image", outputs=())]
    result = run(image, "--json")
    first, second = map(json.loads, result.out.splitlines())
    assert result.code == 1
    assert (first["label"], first["probability"]) == ("tabby", 0.931)
    assert first["view"] == {"left": 0, "top": 0, "right": 40, "bottom": 30}
    assert (first["minimum"], first["maximum"]) == (-1.0, None)
    assert first["outputs"] == list(RECORD.outputs)
    assert second["error"] == "cat.jpg: not an image"


def test_a_failed_picture_is_reported_and_the_others_are_printed(
    asked: Asked, run: Run, image: str
) -> None:
    asked.records = [Record(source="bad.jpg", error="it is empty"), RECORD]
    result = run(image)
    assert result.code == 1
    assert "camviz: bad.jpg: it is empty\n" in result.err
    assert result.out.startswith("out/cat_gradcam.jpg")


def test_the_default_model_is_named_in_one_line(asked: Asked, run: Run, image: str) -> None:
    assert asked.model == {}
    lines = run(image).err.splitlines()
    assert [line for line in lines if "embedded" in line and "--model" in line] == lines[:1]
    for chosen in (["-m", "embedded"], ["-m", "resnet50"], ["--config", "embedded"]):
        assert "demonstrator" not in run(image, *chosen).err


def test_names_cannot_steer_the_terminal(asked: Asked, run: Run, image: str) -> None:
    asked.records = [replace(RECORD, label="a\x1b[31m[bold]b", outputs=("x\r.jpg",))]
    out = run(image).out
    assert "\x1b" not in out and "\r" not in out
    assert "a\\x1b[31m[bold]b" in out


@pytest.mark.parametrize(
    ("problem", "code"),
    [(OutputError("Cannot write there."), 2), (ImageError("No image."), 1)],
)
def test_errors_are_a_message_and_a_code(
    asked: Asked, run: Run, image: str, problem: Exception, code: int
) -> None:
    asked.problem = problem
    result = run(image, "-m", "x")
    assert result.code == code
    assert result.err.splitlines()[-1] == f"camviz: {problem}"
    assert "Traceback" not in result.err


def test_debug_shows_the_traceback_and_keeps_the_code(
    asked: Asked, run: Run, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.problem = OutputError("Cannot write there.")
    result = run(image, "--debug")
    assert result.code == 2
    assert "Traceback" in result.err and "carry_out_plan" in result.err
    monkeypatch.setenv("CAMVIZ_DEBUG", "1")
    assert "Traceback" in run(image).err


def test_a_bug_is_called_a_bug(asked: Asked, run: Run, image: str) -> None:
    asked.problem = ZeroDivisionError("oh")
    result = run(image)
    assert result.code == 1
    assert "ZeroDivisionError: oh" in result.err and "--debug" in result.err
    assert "Traceback" not in result.err


def test_an_interruption(asked: Asked, run: Run, image: str) -> None:
    asked.problem, asked.records = KeyboardInterrupt(), [RECORD]
    result = run(image, "-q")
    assert result.code == 130
    assert result.out.splitlines() == list(RECORD.outputs)
    assert result.err.splitlines()[-1] == "camviz: interrupted"


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--nope"], "No such option: --nope"),
        (["--modle", "x"], "--model"),
        (["a.jpg", "--model"], "--model"),
        (["a.jpg", "--alpha", "2"], "--alpha 2: takes a number from 0 to 1, or auto."),
        (["a.jpg", "--method", "gradcm"], "Closest: 'gradcam'"),
        (["a.jpg", "--config", "resnet5"], "Closest: 'resnet50'"),
        (["a.jpg", "--cfg-options", "alpa=1"], "Closest: 'alpha'"),
        (["a.jpg", "--json", "-q"], "--quiet"),
        (["a.jpg"], "a.jpg"),
        (["-m", "x"], "No image given"),
        (["methods", "x"], "x"),
        (["help", "layer"], "Closest: 'layers'"),
    ],
)
def test_wrong_usage(run: Run, typed: list[str], message: str) -> None:
    result = run(*typed)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("camviz: ") and message in result.err
    assert "Traceback" not in result.err and "╭" not in result.err


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["gradcam++"], "--method gradcam++?"),
        (["--method", "cam", "layercam", "xgradcam"], "--method cam,layercam,xgradcam?"),
        (["--target-layers", "layer3", "layer4"], "--target-layers layer3,layer4?"),
        (["layer4", "--target-layers", "layer3"], "--target-layers layer3,layer4?"),
        (["--target-category", "0", "espresso"], "--target-category 0,espresso?"),
        (["--cfg-options", "a=1", "b=2"], "repeat the option"),
        (["--json", "methods"], "camviz methods"),
    ],
)
def test_a_stray_word_is_understood(run: Run, image: str, typed: list[str], message: str) -> None:
    result = run(*typed, image) if typed[0] != "--cfg-options" else run(image, *typed[2:])
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_a_word_that_names_nothing_is_a_missing_file(asked: Asked, run: Run, image: str) -> None:
    result = run(image, "layer9", "-m", "x")
    assert result.code == 2
    assert "'layer9' does not exist" in result.err
    assert asked.model["pretrained"] is False
    assert "'layer9' does not exist" in run(image, "layer9", "-m", "missing").err


def test_a_missing_picture_builds_no_model(asked: Asked, run: Run) -> None:
    assert "does not exist" in run("nowhere.jpg").err
    assert asked.model == {}
    assert run("long" * 100).code == 2


def test_a_stray_command_is_known_as_one() -> None:
    assert {command.name for command in app.registered_commands} == set(COMMANDS)


def test_methods(run: Run) -> None:
    text = run("methods").out
    objects = [json.loads(line) for line in run("methods", "--json").out.splitlines()]
    assert [actual["name"] for actual in objects] == list(METHOD_INFO)
    for name, card in METHOD_INFO.items():
        assert name in text and card.shows in text and card.paper in text
    by_name = {actual["name"]: actual for actual in objects}
    assert by_name["rollout"]["asks_class"] is False
    assert by_name["gradcam"]["cost"] == "1 forward, 1 backward"
    assert {"name": "sigma", "type": "float", "default": 0.15} in by_name["smoothgradcam++"][
        "options"
    ]


@pytest.mark.parametrize("typed", ["gradcam", "Score-CAM", "rise"])
def test_one_method(run: Run, typed: str) -> None:
    result = run("methods", typed)
    name = find_method_name(typed)
    card = METHOD_INFO[name]
    for words in (name, card.shows, card.cost, card.where, card.paper):
        assert words in result.out
    assert f"https://arxiv.org/abs/{card.paper.removeprefix('arXiv:')}" in result.out
    for option, value in card.options.items():
        assert f"{option}={value!r} (" in result.out
    (line,) = run("methods", typed, "--json").out.splitlines()
    every = [json.loads(one) for one in run("methods", "--json").out.splitlines()]
    assert json.loads(line) in every and json.loads(line)["name"] == name


def test_an_unknown_method_is_not_shown(run: Run) -> None:
    result = run("methods", "gradcm")
    assert (result.code, result.out) == (2, "")
    assert "Unknown method 'gradcm'. Closest: 'gradcam'" in result.err


def test_the_pages_of_the_handbook_are_listed_in_reading_order(run: Run) -> None:
    listed = run("help").out
    places = [re.search(rf"(?m)^{name} ", listed) for name in topics()]
    # a new page has a place in it
    assert set(topics()) <= set(READING_ORDER) and all(places)
    starts = [place.start() for place in places if place]
    assert starts == sorted(starts)
    assert (next(iter(topics())), list(topics())[-1]) == ("start", "architecture")


def test_help_pages(run: Run) -> None:
    listed = run("help").out
    docs = ROOT / "camcli" / "docs"
    for page in docs.glob("*.md"):
        assert page.stem in listed
        heading = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert heading in listed
        assert heading in run("help", page.stem.upper()).out


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (MemoryError(), "Out of memory: MemoryError. Try --batch-size 1"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Out of memory: Default"),
        (OSError(errno.EIO, "Input/output error", "a/b"), "Input/output error: 'a/b'. --debug"),
    ],
)
def test_what_the_system_refuses_is_no_bug(
    asked: Asked, run: Run, image: str, problem: Exception, message: str
) -> None:
    asked.problem = problem
    result = run(image)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"camviz: {message}")


def test_anything_else_is_reported_as_a_bug(asked: Asked, run: Run, image: str) -> None:
    asked.problem = ValueError("that cannot be")
    result = run(image)
    assert result.code == 1
    assert "camviz: ValueError: that cannot be\nThis is a bug in camviz." in result.err


@pytest.mark.usefixtures("asked")
def test_a_model_that_does_not_fit_is_reported(
    run: Run, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 TB")

    monkeypatch.setattr(sys.modules["camcli.models.load"], "load_model", load_model)
    result = run(image, "--num-classes", "4000000000")
    assert result.code == 2
    assert "'embedded' does not fit into memory: DefaultCPUAllocator" in result.err


def test_what_the_models_own_code_raises_is_no_bug(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Picky(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        if x.any() and x[:, 0].std() < 1e-3: raise ValueError('of one colour')\n"
        "        return x\n"
        "def build():\n"
        "    conv, ends = torch.nn.Conv2d(3, 2, 5, 4), torch.nn.AdaptiveAvgPool2d(1)\n"
        "    return torch.nn.Sequential(Picky(), conv, torch.nn.ReLU(), ends, torch.nn.Flatten())\n"
    )
    Image.new("RGB", (32, 32), "red").save("red.png")
    result = run("red.png", "-m", "own.py:build", "--img-size", "32")
    assert result.code == 2
    assert "camviz: File own.py, line 4: ValueError: of one colour. The model's own" in result.err
    assert "a bug" not in result.err


def test_the_page_of_benchmarks_is_one_screen_and_its_table_a_page_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = run("help", "benchmarks").out
    assert len(page.splitlines()) <= 45
    assert "camviz help tables/benchmarks" in " ".join(page.split())
    table = run("help", "Tables/Benchmarks").out
    assert "How fast it is: all rows" in table and len(table) > 10 * len(page)
    wrong = run("help", "tables/benchmark")
    assert wrong.code == 2 and "Closest: 'tables/benchmarks'" in wrong.err
