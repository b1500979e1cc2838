"""Finds what could stand where somebody presses Tab; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from camcli.method_info import METHOD_INFO
from camcli.method_terms import AT, BEST
from camcli.registry import ALL, find_method_name

Words = dict[str, str]  # what could stand there -> what is said of it
SHELLS = ("bash", "zsh", "fish")
# values of metavars that name something on the disc
OF_FILES = ("FILE", "PATH", "FOLDER")
# options that may have no value, so that a picture may follow them
STAND_ALONE = ("boxes", "sheet")
HOW_LAYERS_ARE_LEARNT = "camviz --preview-model -m {} shows the layers; from then on Tab knows them"


@dataclass(frozen=True)
class Candidates:
    """What could stand there; `files` are offered by the shell, a `message` says what is amiss."""

    words: Words = field(default_factory=dict)
    files: bool = False
    message: str = ""


@dataclass(frozen=True)
class _Line:
    """A line as far as it was typed: the command, its options by name, and the last word."""

    command: Any
    before: Sequence[str]
    current: str

    @property
    def options(self) -> Mapping[str, Any]:
        """What each option's name, with its dashes, stands for."""
        params = self.command.params
        return {name: p for p in params for name in (*p.opts, *p.secondary_opts) if name[0] == "-"}

    def find_value(self, *names: str) -> str | None:
        """Returns the last value that was typed for an option."""
        value = None
        for place, word in enumerate(self.before):
            name, equals, given = _normalise(word).partition("=")
            if name in names:
                value = given if equals else "".join(self.before[place + 1 : place + 2])
        return value


def find_candidates(group: Any, words: Sequence[str], default: str) -> Candidates:
    """Finds what could be the last of the words, which begin behind `camviz`."""
    current = words[-1] if words else ""
    if len(words) < 2:
        commands = {n: _first_line(c.help) for n, c in group.commands.items()}
        options = _find_in_line(_Line(group.commands[default], (), current), default)
        return Candidates(_keep(commands, current) | options.words, options.files)
    named = words[0] in group.commands
    command = words[0] if named else default
    return _find_in_line(_Line(group.commands[command], words[named:-1], current), command)


def _find_in_line(line: _Line, command: str) -> Candidates:
    if "--" in line.before:
        return Candidates(files=True)
    name, equals, value = line.current.partition("=")
    option = line.options.get(_normalise(name)) if equals else None
    if option is not None:
        found = _find_values(line, option, value)
        words = {f"{name}={word}": said for word, said in found.words.items()}
        return Candidates(words, found.files, found.message)
    last = line.options.get(_normalise(line.before[-1])) if line.before else None
    if last is not None and not last.is_flag:
        found = _find_values(line, last, line.current)
        return Candidates(found.words, files=True) if last.name in STAND_ALONE else found
    if line.current.startswith("-"):
        return Candidates(_keep(_list_options(line), line.current))
    return _find_argument(line, command)


def _list_options(line: _Line) -> Words:
    return {name: _first_line(p.help) for name, p in line.options.items() if name[:2] == "--"}


def _find_argument(line: _Line, command: str) -> Candidates:
    lists: Mapping[str, Callable[[str], Words]] = {
        "help": lambda _: _list_topics(),
        "methods": lambda _: _list_methods(),
        "models": _list_models,
        "completion": lambda _: dict.fromkeys(SHELLS, ""),
        # their names come with torch, which a person who completes does not wait for
        "metrics": lambda _: {},
        "serve": lambda _: {},
    }
    if command in lists:
        return Candidates(_keep(lists[command](line.current), line.current))
    return Candidates(files=True)


def _find_values(line: _Line, option: Any, typed: str) -> Candidates:
    """Finds the values of an option that begin with what was typed."""
    listed, _, item = typed.rpartition(",")
    head = f"{listed}," if "," in typed else ""
    found: Candidates
    if option.name in ("method", "methods"):
        found = _find_methods(line, item)
    elif option.name in ("target_layers", "layers"):
        found = _find_layers(line, item)
    elif option.name == "set":
        return Candidates(_keep(_list_method_options(line), typed))
    elif option.name == "model":
        words = _keep(_list_models(typed), typed)
        return Candidates(words, files=not words)
    elif option.name == "config":
        return Candidates(_keep(_list_presets(), typed), files=True)
    elif option.name == "colormap":
        return Candidates(_keep(_list_colormaps(), typed))
    else:
        words = _keep(dict.fromkeys(_list_choices(option.name), ""), typed)
        return Candidates(words, files=any(w in (option.metavar or "") for w in OF_FILES))
    used = set(listed.split(",")) if head else set()
    words = {f"{head}{word}": said for word, said in found.words.items() if word not in used}
    return Candidates(words, found.files, found.message)


def _find_methods(line: _Line, item: str) -> Candidates:
    method, at, layer = item.partition(AT)
    if not at:
        return Candidates(_keep(_list_methods(), item))
    found = _find_layers(line, layer)
    words = {f"{method}{AT}{name}": said for name, said in found.words.items()}
    return Candidates(words, message=found.message)


def _find_layers(line: _Line, typed: str) -> Candidates:
    """Finds layers of the model that was typed, one level below what is there."""
    from camcli.models.known_names import EMBEDDED, read_layers

    model = line.find_value("--model", "-m") or EMBEDDED
    layers = read_layers(model)
    if not layers:
        return Candidates(message=HOW_LAYERS_ARE_LEARNT.format(model))
    level = typed.count(".")
    return Candidates(_keep({n: "" for n in layers if n.count(".") == level}, typed))


def _list_methods() -> Words:
    shown = {name: info.shows for name, info in METHOD_INFO.items()}
    return {**shown, BEST: "what was measured to be best", ALL: "all that fit, on one sheet"}


def _list_method_options(line: _Line) -> Words:
    typed = line.find_value("--method", "--methods") or "gradcam"
    words: Words = {}
    for name in _iterate_known(typed.split(",")):
        for option, value in METHOD_INFO[name].options.items():
            words.setdefault(f"{option}={value}", f"an option of {name}")
    return words


def _iterate_known(typed: Iterable[str]) -> Iterator[str]:
    from camcli.errors import UnknownName

    for name in typed:
        try:
            yield find_method_name(name.partition(AT)[0])
        except UnknownName:
            continue


def _list_models(typed: str) -> Words:
    """Lists models, and their weights' tags only behind the dot: there are as many again."""
    from camcli.models.known_names import list_architectures, list_timm_names

    return dict.fromkeys(list_timm_names() if "." in typed else list_architectures(), "")


def _list_presets() -> Words:
    from camcli.config import list_presets

    return dict.fromkeys(list_presets(), "a preset")


def _list_colormaps() -> Words:
    from camcli.render.colormap import COLORMAPS

    return dict.fromkeys(COLORMAPS, "")


def _list_topics() -> Words:
    from camcli.cli.commands.help import read_title, topics

    return {name: read_title(path) for name, path in topics().items()}


def _list_choices(name: str) -> tuple[str, ...]:
    """Returns the words that an option takes, where it takes some words and no others."""
    from camcli.config import Options, PreprocessingOptions

    if name == "device":
        return ("auto", "cpu", "cuda", "mps")
    known = {**Options.model_fields, **PreprocessingOptions.model_fields}
    return tuple(_iterate_literals(known[name].annotation)) if name in known else ()


def _iterate_literals(annotation: Any) -> Iterator[str]:
    if getattr(annotation, "__origin__", None) is Literal:
        yield from (value for value in get_args(annotation) if isinstance(value, str))
        return
    for inner in get_args(annotation):
        yield from _iterate_literals(inner)


def _keep(words: Words, typed: str) -> Words:
    return {word: said for word, said in words.items() if word.startswith(_normalise(typed))}


def _normalise(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]
