"""Completes the commands that errors advise by what was typed of the model."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

ADVISED = "camviz --preview-model"
# what decides which layers a model has
OF_THE_MODEL = ("--model", "-m", "--checkpoint", "--model-kwargs", "--config")


def keep_model(message: str, typed: Sequence[str]) -> str:
    """Puts the typed options of the model behind the command that shows its layers."""
    options = typed[: typed.index("--")] if "--" in typed else typed
    words = list(_list_model_words(options))
    return message.replace(ADVISED, shlex.join([*ADVISED.split(), *words]))


def _list_model_words(typed: Sequence[str]) -> Iterator[str]:
    for place, word in enumerate(typed):
        name, equals, _ = word.replace("_", "-").partition("=")
        if name in OF_THE_MODEL:
            yield from [word] if equals else typed[place : place + 2]
        elif word.startswith("-m") and not word.startswith("--"):
            yield word
