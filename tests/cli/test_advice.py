"""What a person guesses is met: with the right command, option, model or layer."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from camcli.cli.advice import keep_model
from tests.cli.conftest import Asked, Run


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ("methdos", "methods"),
        ("modles", "models"),
        ("modles '*vit*'", "models"),
        ("evalute photos --top-k 2", "evaluate"),
        ("eval photos", "evaluate"),
        ("hlep", "help"),
        ("Method", "methods"),
    ],
)
def test_a_command_is_suggested_and_no_file(run: Run, typed: str, command: str) -> None:
    word = typed.split()[0]
    result = run(*shlex.split(typed))
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"camviz: {word!r} is no file, and no command; did you mean camviz {command}?\n"
    )


def test_a_file_is_no_command(
    asked: Asked, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("methdos").touch()
    assert run("methdos").code == 0
    assert [str(source) for source in asked.sources] == ["methdos"]


@pytest.mark.parametrize(
    ("typed", "option"),
    [
        ("-model resnet50", "--model"),
        ("-model=resnet50", "--model"),
        ("-method gradcam++", "--method"),
        ("-top_k 3", "--top-k"),
        ("-no-pretrained", "--no-pretrained"),
        ("-json", "--json"),
    ],
)
def test_an_option_with_one_dash(run: Run, image: str, typed: str, option: str) -> None:
    result = run(image, *typed.split())
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"camviz: No such option: {typed.split()[0]}. Did you mean {option}, with two dashes?\n"
    )


def test_of_other_commands_too(run: Run) -> None:
    result = run("models", "-here")
    assert result.code == 2 and "Did you mean --here, with two dashes?" in result.err


@pytest.mark.parametrize("typed", ["-m resnet50", "-mresnet50", "-b4 -j2 -m resnet50 -q"])
def test_one_letter_has_one_dash(asked: Asked, run: Run, image: str, typed: str) -> None:
    assert run(image, *typed.split()).code == 0
    assert asked.model["name"] == "resnet50"


@pytest.mark.parametrize(
    ("typed", "closest"),
    [
        ("swin_tiny", "'swin_tiny_patch4_window7_224'"),
        ("vit_base_patch16", "'vit_base_patch16_224'"),
        ("resnet5", "'resnet50'"),
        ("convnext_tin", "'convnext_tiny'"),
    ],
)
def test_models_that_begin_so_come_first(run: Run, image: str, typed: str, closest: str) -> None:
    result = run(image, "-m", typed)
    assert result.code == 2
    assert f"Unknown model {typed!r}. Closest: {closest}" in result.err


def test_the_advice_for_an_unknown_layer_keeps_the_model(run: Run, image: str) -> None:
    typed = "-m test_resnet --no-pretrained --model-kwargs drop_rate=0.1 --target-layers layer9"
    result = run(image, *typed.split())
    assert result.code == 2
    assert "Unknown layer 'layer9'. Closest: 'layer" in result.err
    assert result.err.endswith(
        " All: camviz --preview-model -m test_resnet --model-kwargs drop_rate=0.1\n"
    )


@pytest.mark.parametrize(
    ("typed", "advised"),
    [
        ("a.jpg", ""),
        ("a.jpg --model=resnet50", " --model=resnet50"),
        ("a.jpg -mresnet50 --alpha 1", " -mresnet50"),
        ("--checkpoint 'my w.pth' a.jpg", " --checkpoint 'my w.pth'"),
        ("--config mine.toml a.jpg", " --config mine.toml"),
        ("a.jpg -- -m resnet50", ""),
    ],
)
def test_what_is_kept_of_the_model(typed: str, advised: str) -> None:
    said = keep_model("Unknown. All: camviz --preview-model", shlex.split(typed))
    assert said == f"Unknown. All: camviz --preview-model{advised}"
