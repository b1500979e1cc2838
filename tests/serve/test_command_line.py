"""The command that the page shows is the one that draws the same, whatever the names are."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from camcli.cli.commands.serve import spell_options
from camcli.serve.command_line import name_file, quote_word, spell_command
from camcli.serve.offered_models import OfferedModel
from camcli.serve.questions import read_question
from tests.serve.visitors import LABELS, Visitor, offer_small

HOSTILE = (
    "a b.jpg", "it's.png", "$(touch x).png", "`id`.png", "a;rm -rf ~.png", "a\nrm -rf ~.png",
    "\x1b]0;x\x07.png", "x\u202egnp.exe.png", "a\\b'c\x01d.png", "é ü.png", "\x7f1.png",
)  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE)
def test_a_shell_reads_a_word_as_it_is(word: str) -> None:
    shown = quote_word(word)
    assert shown.isprintable()
    out = subprocess.run(["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True)
    assert out.stdout.decode() == word


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat.jpg", "cat.jpg"), ("-q.jpg", "./-q.jpg"), ("@list.jpg", "./@list.jpg"),
        ("models", "./models"), ("a*.jpg", "./a*.jpg"), ("hf:x.jpg", "./hf:x.jpg"),
    ],
)  # fmt: skip
def test_a_file_is_taken_for_no_option_command_or_list(name: str, shown: str) -> None:
    assert name_file(name) == shown


def words_of(offered: OfferedModel, query: str) -> list[str]:
    return list(read_question(query, [offered]).words)


def test_the_command_says_what_was_chosen(offered: OfferedModel) -> None:
    query = "name=cat.jpg&method=gradcam&method=layercam&category=dog&layer=middle&alpha=0.3"
    own = ["camviz", "cat.jpg", "--model", "net.py:net"]
    assert words_of(offered, query) == [
        *own, "--method", "gradcam,layercam", "--target-category", "dog",
        "--target-layers", "middle", "--alpha", "0.3",
    ]  # fmt: skip
    assert words_of(offered, "name=cat.jpg") == [*own, "--method", "gradcam"]
    # a class has no part in it
    assert words_of(offered, "name=cat.jpg&method=eigencam&category=1")[-1] == "eigencam"


def test_a_class_is_named_so_that_it_is_found_again(offered: OfferedModel) -> None:
    for category in range(len(LABELS)):
        word = offered.name_category(category)
        assert offered.find_category(word) == category
    assert [offered.name_category(n) for n in (0, 1, 3, 4)] == ["cat", "dog", "bird", "4"]


def test_what_the_server_was_started_with_stands_in_the_command() -> None:
    offered = offer_small(alpha=0.7, target_layers=["middle"])
    words = words_of(offered, "name=a.png")
    assert words[-4:] == ["--target-layers", "middle", "--alpha", "0.7"]
    assert words_of(offered, "name=a.png&layer=last&alpha=1")[-3:] == ["last", "--alpha", "1"]


def test_options_are_spelt_without_the_folders_of_files() -> None:
    given = {
        "model": "/srv/models/net.py:net", "checkpoint": "/srv/best run/w.pth", "img_size": "64",
        "model_kwargs": ["a=1", "b=2"], "strict": False, "eigen_smooth": True,
        "method": ["gradcam"], "device": "cuda:3", "config": "C:\\presets\\mine.toml",
    }  # fmt: skip
    assert list(spell_options(given)) == [
        "--model", "net.py:net", "--checkpoint", "w.pth", "--img-size", "64",
        "--model-kwargs", "a=1", "--model-kwargs", "b=2", "--no-strict", "--eigen-smooth",
        "--config", "mine.toml",
    ]  # fmt: skip


def test_the_page_asks_for_it(visitor: Visitor) -> None:
    answer = visitor.get("/command?name=..%2Fmy+cat.jpg&method=layercam")
    expected = ["camviz", "my cat.jpg", "--model", "net.py:net", "--method", "layercam"]
    assert shlex.split(answer.json["command"].replace("'./my cat.jpg'", "'my cat.jpg'")) == expected
    assert answer.json["command"] == spell_command(expected)
    assert visitor.get("/command?method=no").status == 400
