"""Reads settings from presets, the environment, --cfg-options and flags, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from camcli.config.presets import read_toml
from camcli.config.value_parsers import parse_literal, parse_optional_text
from camcli.errors import ConfigError
from camcli.utils.paths import expand_home

ENVIRONMENT = "CAMVIZ_"
# variables that the command line reads itself
OTHER_VARIABLES = frozenset({"CAMVIZ_CONFIG", "CAMVIZ_DEBUG", "CAMVIZ_QUIET", "CAMVIZ_JSON"})
TABLES = frozenset({"preprocessing", "model_kwargs", "set"})
PATHS = frozenset({"checkpoint", "class_map", "save_path"})
ALIASES: Mapping[str, tuple[str, ...]] = {
    **{name: ("preprocessing", name) for name in ("mean", "std", "fit")},
    "max_channels": ("set", "max_channels"),
}
EXAMPLES = {
    "--cfg-options": "preprocessing.fit=squash",
    "--model-kwargs": "drop_rate=0.1",
    "--set": "samples=8",
}
# how a typed value below a table is converted; a method's signature tells the types of its options
PARSERS: Mapping[str, Callable[[str], object]] = {
    "model_kwargs": parse_literal,
    "set": parse_optional_text,
}


@dataclass(frozen=True)
class Setting:
    """One value of an option, with the place and the form in which it was written."""

    key: tuple[str, ...]
    value: object
    shown: str
    where: str = ""


def read_preset_file(path: Path) -> Iterator[Setting]:
    """Yields a preset's settings; paths are relative to its own folder.  Raises ConfigError."""
    for key, value in iterate_leaves((), read_toml(path)):
        placed = value
        if key[-1] in PATHS and isinstance(value, str) and value:
            placed = path.parent / expand_home(value)
        yield Setting(key, placed, f"{path}: {'.'.join(key)} = {_to_toml(value)}", str(path))


def read_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    """Yields the settings of the variables `CAMVIZ_...`."""
    for name, text in sorted(environ.items()):
        if name.startswith(ENVIRONMENT) and name not in OTHER_VARIABLES:
            key = tuple(name.removeprefix(ENVIRONMENT).lower().split("__"))
            for leaf, value in _iterate_text_leaves(key, text):
                yield Setting(leaf, value, f"{name}={text}", "the environment")


def read_cfg_options(texts: Iterable[str]) -> Iterator[Setting]:
    """Yields the settings `key=value` of --cfg-options; raises ConfigError."""
    for text in texts:
        key, value = _split_assignment(text, "--cfg-options")
        for leaf, part in _iterate_text_leaves(key, value):
            yield Setting(leaf, part, f"--cfg-options {text}", "--cfg-options")


def read_flags(flags: Mapping[str, object]) -> Iterator[Setting]:
    """Yields the settings of the command line's options; raises ConfigError."""
    for name, value in flags.items():
        shown = f"--{name.replace('_', '-')} {_format_value(value)}"
        for leaf, part in _iterate_text_leaves((name,), value):
            yield Setting(leaf, part, shown, "flags")


def _iterate_text_leaves(
    key: tuple[str, ...], value: object
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yields the values typed for a key; only those of `model_kwargs` have a guessed type."""
    table = key[0].replace("-", "_")
    read = PARSERS.get(table)
    if read is None:
        yield from iterate_leaves(key, value)
    elif len(key) > 1:
        yield from iterate_leaves(key, read(str(value)))
    else:
        for text in value if isinstance(value, list | tuple) else [value]:
            name, literal = _split_assignment(str(text), f"--{table.replace('_', '-')}")
            yield from iterate_leaves((*key, *name), read(literal))


def iterate_leaves(key: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yields the single values of a key: one for each entry of a table."""
    key = tuple(part.replace("-", "_") for part in key)
    key = (*ALIASES.get(key[0], key[:1]), *key[1:]) if key else key
    if isinstance(value, Mapping) and (not key or (len(key) == 1 and key[0] in TABLES)):
        for name, below in value.items():
            yield from iterate_leaves((*key, name), below)
    else:
        yield key, value


def _split_assignment(text: str, option: str) -> tuple[tuple[str, ...], str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{option} {text}: takes key=value, such as {option} {EXAMPLES[option]}.")
    return tuple(key.strip().split(".")), value.strip()


def _format_value(value: object) -> str:
    return (",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)) or "''"


def _to_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
