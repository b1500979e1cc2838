"""Writes the preset of a choice: a TOML file for `--config` that makes the measured maps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.errors import OutputError, UsageError
from camcli.media.atomic_files import check_writable, write_file
from camcli.models.own_code.user_code import is_code
from camcli.pipeline.tuning.candidates import Candidate
from camcli.pipeline.tuning.tuning_plan import TuningPlan
from camcli.registry import list_changed_options

NAME = "camviz-tune.toml"
# options that decide a map beside the choice: the model, its input, and what is explained
KEPT = (
    "pretrained", "checkpoint", "strict", "num_classes", "img_size", "model_kwargs", "class_map",
    "output_key", "outputs", "vit_like", "num_extra_tokens", "target", "contrast",
    "contrast_strength", "precision", "preprocessing",
)  # fmt: skip


def check_place(given: Path | None, folder: Path) -> None:
    """Raises OutputError if no preset can be written there, and UsageError if the file exists.

    Without a given name the preset gets a free name in the folder.
    """
    if given is None:
        check_writable(folder)
        return
    if given.is_dir():
        raise OutputError(f"--save-preset {given} is a folder: name a file in it, such as {NAME}.")
    if given.exists():
        raise UsageError(
            f"--save-preset {given} exists already, and nothing is overwritten: name another file, "
            "or remove that one."
        )
    check_writable(given.parent)


def write_preset(
    tuning: TuningPlan,
    chosen: Candidate,
    notes: Sequence[str],
    given: Path | None,
) -> Path:
    """Writes the preset of a choice under a free name, and returns its path; raises OutputError.

    The notes are comments at its head.
    """
    path = find_free_name(given or tuning.options.save_path / NAME)
    comments = [f"# {line}" for note in notes for line in note.splitlines()]
    lines = [*comments, "", *_list_lines(tuning, chosen)]
    write_file(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"), path)
    return path


def find_free_name(path: Path) -> Path:
    """Returns a path that does not exist yet: this one, or one with a number behind its stem."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _list_lines(tuning: TuningPlan, chosen: Candidate) -> Iterator[str]:
    options = tuning.options
    if is_code(options.model):
        yield f"# a preset runs no code: name the model yourself, --model {options.model}"
    else:
        yield f"model = {_to_toml(options.model)}"
    tables: dict[str, Mapping[str, Any]] = {}
    for name in KEPT:
        value = getattr(options, name)
        if name not in options.model_fields_set or value is None:
            continue
        if name == "preprocessing":
            tables[name] = value.model_dump(exclude_none=True, exclude_unset=True)
        elif isinstance(value, Mapping):
            tables[name] = value
        else:
            yield f"{name} = {_to_toml(value)}"
    yield f"method = {_to_toml(chosen.terms if chosen.combination else [chosen.parts[0][0]])}"
    if chosen.combination:
        yield f"combine = {_to_toml(chosen.combination)}"
    elif chosen.parts[0][1]:
        yield f"target_layers = {_to_toml([chosen.parts[0][1]])}"
    methods = dict.fromkeys(method for method, _ in chosen.parts)
    given = tuning.plan.request.options
    for method in methods:
        if changed := list_changed_options(method, given.get(method, {})):
            tables["set"] = {
                **tables.get("set", {}),
                **{f"{method}.{name}": value for name, value in changed.items()},
            }
    for name, table in tables.items():
        yield from _list_table(name, table)


def _list_table(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"[{name}]"
    for key, value in table.items():
        if value is None:
            yield f"# TOML has no none: give --{name.replace('_', '-')} {key}=none"
        else:
            yield f"{_to_toml_key(key)} = {_to_toml(value)}"


def _to_toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _to_toml(key)


def _to_toml(value: Any) -> str:
    """Encodes a value as TOML; raises UsageError for a value that TOML cannot hold."""
    if isinstance(value, Path):
        return _to_toml(str(value.absolute()))
    if isinstance(value, str):
        # TOML's basic strings escape as JSON does, and may not contain DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_to_toml, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{_to_toml_key(key)} = {_to_toml(inner)}" for key, inner in value.items())
        return f"{{ {', '.join(pairs)} }}"
    raise UsageError(f"A preset cannot hold a {type(value).__name__}: {value!r}.")
