"""Suggests what a word that is no file may have meant, since an option takes one value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.cli.model_loading import load_structure
from camcli.errors import CamvizError, UnknownName, UsageError
from camcli.media.sources.listing import IMAGE_SUFFIXES
from camcli.models.own_code.user_code import is_code
from camcli.registry import find_method_name

if TYPE_CHECKING:
    from camcli.cli.options import Flags
    from camcli.config import Options

COMMANDS = (
    "evaluate",
    "explain",
    "sanity",
    "tune",
    "report",
    "summary",
    "serve",
    "methods",
    "metrics",
    "models",
    "merge",
    "verify",
    "help",
    "completion",
)
# words that people try as commands, and what is meant
TRIED = {
    "version": "camviz --version",
    "list": "camviz methods, or camviz models",
    "layers": "camviz --preview-model",
    "compare": "camviz IMAGE --compare MODEL",
    "presets": "camviz help presets",
    "docs": "camviz help",
}
# what is typed behind a switch
VALUES_OF_SWITCHES = ("true", "false", "yes", "no", "on", "off")
NAME = re.compile(r"[\w. -]*\w")
ALIKE = 0.75  # of their letters, in order: with it, `hlep` is meant for `help`


def check_words(words: Sequence[str], flags: Flags, options: Options) -> None:
    """Raises UsageError for a word that is no file but a command, method, layer, class or model.

    Code that is named by mistake is not run.
    """
    missing = [word for word in words if not _exists(word)]
    if missing[:1] == list(words[:1]) and words[0].lower() in TRIED:
        raise UsageError(f"{words[0]!r} is no file, and no command: {TRIED[words[0].lower()]}")
    for word in missing:
        if word.lower() in VALUES_OF_SWITCHES:
            raise UsageError(
                f"{word!r} is no file, and a switch takes no value: --pretrained, or "
                "--no-pretrained"
            )
    if missing[:1] == list(words[:1]) and (command := _find_command(words[0])):
        raise UsageError(f"{words[0]!r} is no file, and no command; did you mean camviz {command}?")
    for word in missing:
        if word in COMMANDS:
            raise UsageError(f"{word!r} is no file; a command comes first: camviz {word}")
        if "=" in word and not word.startswith("-"):
            raise UsageError(
                f"{word!r} is no file. --cfg-options, --model-kwargs and --set take one KEY=VALUE: "
                f"repeat the option before each."
            )
    _raise_for(missing, _is_code_of_a_file, "a function", "--model", None)
    _raise_for(missing, partial(_is_known, find_method_name), "a method", "--method", flags.method)
    # a missing picture is no layer: building the model takes seconds
    names = [w for w in missing if NAME.fullmatch(w) and Path(w).suffix not in IMAGE_SUFFIXES]
    if names:
        _check_model(names, flags, options)


def _find_command(word: str) -> str | None:
    """Finds the command that a word was meant for: one that it begins, or one much like it."""
    lower = word.lower()
    if lower in COMMANDS:  # said where a command is named behind pictures
        return None
    begun = [name for name in COMMANDS if name.startswith(lower) and len(lower) > 2]
    return next(iter([*begun, *get_close_matches(lower, COMMANDS, n=1, cutoff=ALIKE)]), None)


def _check_model(words: Sequence[str], flags: Flags, options: Options) -> None:
    from camcli.models.inspection.layer_lookup import find_layer
    from camcli.models.model_lookup import find_model

    try:
        classifier = load_structure(options)
    except CamvizError:
        return
    synonyms = {s.strip().lower() for label in classifier.labels or () for s in label.split(",")}
    of = f"of {classifier.name}"
    _raise_for(
        words,
        partial(_is_known, partial(find_layer, classifier.module)),
        f"a layer {of}",
        "--target-layers",
        flags.target_layers,
    )
    categories = flags.target_category
    contrasting = flags.contrast and not categories
    _raise_for(
        words,
        lambda word: word.lower() in synonyms,
        f"a class {of}",
        *(("--contrast", flags.contrast) if contrasting else ("--target-category", categories)),
    )
    libraries = [word for word in words if not is_code(word)]
    _raise_for(libraries, partial(_is_known, find_model), "a model", "--model", None)


def _raise_for(
    words: Sequence[str],
    names_one: Callable[[str], bool],
    what: str,
    option: str,
    typed: Sequence[str] | None,
) -> None:
    names = [word for word in words if names_one(word)]
    if names:
        meant = ",".join([*(typed or ()), *names])
        raise UsageError(f"{names[0]!r} is no file, but {what}; did you mean {option} {meant}?")


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # a name too long for the file system
        return False


def _is_code_of_a_file(word: str) -> bool:
    place = word.rpartition(":")[0]
    return bool(place) and is_code(word) and _exists(place)


def _is_known(find: Callable[[str], object], word: str) -> bool:
    try:
        find(word)
    except UnknownName:
        return False
    return True
