"""What is said of options stands once: `--help`, the handbook's table and docstrings agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

import camcli
from camcli.cli.options import OWN, Flags
from camcli.config import ALIASES, Options, PreprocessingOptions
from camcli.option_info import OPTION_INFO

PAGE = Path(camcli.__file__).parent / "docs" / "presets.md"


def list_rows() -> Iterator[str]:
    """Yields the rows of the handbook's table: a key, what it takes, what is said of it."""
    for name, field in Options.model_fields.items():
        if name == "preprocessing":
            for inner, inner_field in PreprocessingOptions.model_fields.items():
                short = f" (or `{inner}`)" if inner in ALIASES else ""
                key = f"`preprocessing.{inner}`{short}"
                yield f"| {key} | {inner_field.description} | {OPTION_INFO[inner]} |"
        else:
            yield f"| `{name}` | {field.description} | {OPTION_INFO[name]} |"
        if name == "set":
            words = OPTION_INFO["max_channels"]
            yield f"| `set.max_channels` (or `max_channels`) | a whole number from 1 | {words} |"


def test_every_option_has_its_sentence() -> None:
    keys = {*Options.model_fields, *PreprocessingOptions.model_fields, "max_channels"}
    assert set(OPTION_INFO) == keys
    for sentence in OPTION_INFO.values():
        assert sentence.endswith(".")
        assert sentence == " ".join(sentence.split())


@pytest.mark.parametrize("row", list(list_rows()), ids=lambda row: row.split("`")[1])
def test_the_handbook_has_its_row(row: str) -> None:
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    assert row in rows, f"{PAGE.name} has no such row:\n{row}"


def test_the_handbook_has_no_other_rows() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## All keys")[2].splitlines()
    rows = [line for line in table if line.startswith("| `")]
    assert rows == list(list_rows())


def test_help_begins_with_the_sentence() -> None:
    hints = get_type_hints(Flags, include_extras=True)
    for name in {field.name for field in fields(Flags)} - OWN:
        assert hints[name].__metadata__[0].help.startswith(OPTION_INFO[name])
