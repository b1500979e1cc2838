"""The docstrings of the public interface: their arguments, their errors, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import camcli
from camcli import errors
from camcli.config import Options
from camcli.option_info import OPTION_INFO
from tests.checkout import ROOT
from tests.test_frame import SOURCES

EXAMPLES = sorted(n for n, path in SOURCES.items() if ">>>" in path.read_text(encoding="utf-8"))
# where an option has another name in Python
OTHER_NAMES = {("load_model", "name"): "model"}
# what is another thing than the option of the command line that has its name
OTHERS = {
    ("Explanation.overlay", "scale"),
    ("Explanation.overlay", "boxes"),
    ("Explanation.sized_map", "outside"),
}
# how many options at least are described, lest the reading of docstrings finds none
FEWEST = {"heatmaps": 17, "explain": 25, "load_model": 13, "overlay": 2, "activations": 2}


def list_public() -> Iterator[tuple[str, Any]]:
    """Yields the public functions, the classes that they give, and these classes' methods."""
    for name in camcli.__all__:
        value = getattr(camcli, name)
        if inspect.isfunction(value):
            yield name, value
        elif value in (camcli.Classifier, camcli.Explanation):
            yield name, value
            for member, inside in inspect.getmembers(value, inspect.isfunction):
                if not member.startswith("_"):
                    yield f"{name}.{member}", inside


PUBLIC = dict(list_public())
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def read_section(documented: object, title: str) -> dict[str, str]:
    """Returns a section's entries, `name: text`, with each text on one line."""
    text = inspect.getdoc(documented) or ""
    match = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
    entries: dict[str, str] = {}
    for line in (match[1] if match else "").splitlines():
        if entry := re.match(r"    ([\w*]+): (.*)", line):
            entries[name := entry[1]] = entry[2]
        elif line.strip():
            entries[name] += f" {line.strip()}"
    return entries


def list_parameters(function: Callable[..., Any]) -> list[str]:
    kinds = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(function).parameters.values()
    return [f"{kinds.get(p.kind, '')}{p.name}" for p in parameters if p.name != "self"]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo_images").symlink_to(ROOT / "demo_images")
    monkeypatch.chdir(tmp_path)
    # what a reader has who imported the names of this module alone
    tested = importlib.import_module(module)
    own = {n: v for n, v in vars(tested).items() if getattr(v, "__module__", None) == module}
    failures, count = doctest.testmod(tested, globs=own)
    assert (failures, count > 0) == (0, True), "see what doctest printed above"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_has_an_example(name: str) -> None:
    assert ">>> " in (PUBLIC[name].__doc__ or "")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_public_lists_its_arguments(name: str) -> None:
    assert list(read_section(FUNCTIONS[name], "Args")) == list_parameters(FUNCTIONS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_keyword_that_nobody_knows_is_refused_with_the_closest(name: str) -> None:
    parameter = list_parameters(FUNCTIONS[name])[-1] if list_parameters(FUNCTIONS[name]) else ""
    with pytest.raises(errors.UnknownName, match=f"argument of .*{parameter}"):
        FUNCTIONS[name](**{f"{parameter}x": 1})


def test_a_class_that_people_make_refuses_such_a_keyword_by_its_name() -> None:
    with pytest.raises(errors.UnknownName, match=r"argument of Sheet 'colourmap'.*`colormap`"):
        camcli.Sheet([], colourmap="hot")  # type: ignore[call-arg]


def test_the_defaults_of_explain_are_those_of_the_command_line() -> None:
    shared = set(Options.model_fields) & set(inspect.signature(camcli.explain).parameters)
    given = {name: inspect.signature(camcli.explain).parameters[name].default for name in shared}
    defaults = {name: Options.model_fields[name].default for name in shared}
    # None where the default depends on what else is given, and a name for a list of one
    expected = {n: d if given[n] is not None else None for n, d in defaults.items()}
    assert given == {**expected, "method": "gradcam"}
    assert len(shared) > 20


def test_the_signature_of_explain_names_the_same_values_as_the_options() -> None:
    hints = get_type_hints(camcli.explain)
    kinds = inspect.Parameter
    assert all(
        p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
        for p in inspect.signature(camcli.explain).parameters.values()
    )
    named = {name: _list_words(hints[name]) for name in hints if name in Options.model_fields}
    expected = {name: _list_words(Options.model_fields[name].annotation) for name in named}
    assert named == expected and sum(map(bool, named.values())) >= 6


def _list_words(hint: Any) -> set[str]:
    """Lists the words that a type allows, wherever in it they stand."""
    inside = get_args(hint)
    if get_origin(hint) is Literal:
        return set(inside)
    return {word for part in inside for word in _list_words(part)}


def test_explain_and_heatmaps_have_the_same_words() -> None:
    one, other = (inspect.signature(f).parameters for f in (camcli.explain, camcli.heatmaps))
    assert {"inputs", "method", "target_layers", "target_category", "target"} <= {*one} & {*other}
    # of tensors or modules alone, or of pictures alone
    assert {*other} - {*one} == {"module", "image_input"}
    assert "targets" not in {*one, *other}


@pytest.mark.parametrize("name", [n for n in PUBLIC if n not in FUNCTIONS])
def test_public_classes_list_their_fields(name: str) -> None:
    assert list(read_section(PUBLIC[name], "Attributes")) == list(PUBLIC[name].__annotations__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_errors_that_are_listed_are_ours(name: str) -> None:
    for error in read_section(FUNCTIONS[name], "Raises"):
        assert issubclass(getattr(errors, error), errors.CamvizError)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_option_is_described_as_on_the_command_line(name: str) -> None:
    listed = read_section(FUNCTIONS[name], "Args")
    options = {
        OTHER_NAMES.get((name, argument), argument): text for argument, text in listed.items()
    }
    expected = {o: OPTION_INFO[o] for o in options if o in OPTION_INFO and (name, o) not in OTHERS}
    actual = {option: options[option][: len(text)] for option, text in expected.items()}
    assert actual == expected, "begin with the sentences of camcli/option_info.py"
    assert len(expected) >= FEWEST.get(name, 0)


def test_sections_are_read() -> None:
    def example() -> None:
        """Does something.

        Args:
            one: Its text goes
                on, with: a colon.
            **two: Another.

        Raises:
            ValueError: Never.
        """

    assert read_section(example, "Args") == {
        "one": "Its text goes on, with: a colon.",
        "**two": "Another.",
    }
    assert read_section(example, "Raises") == {"ValueError": "Never."}
    assert read_section(example, "Example") == {}
