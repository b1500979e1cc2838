"""Finds the library that a model's name is from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Literal

from camcli.errors import ModelError, UnknownName
from camcli.models import embedded
from camcli.models.hugging_face.repository import HUB, is_model_folder
from camcli.models.known_names import list_timm_names
from camcli.models.own_code.user_code import is_code
from camcli.utils.paths import is_file
from camcli.utils.profiling import stage

Origin = Literal["embedded", "python", "timm", "torchvision", "transformers", "open_clip"]
# imported when asked, for seconds are at stake
BUILDERS: Mapping[Origin, str] = {
    "embedded": "camcli.models.embedded.build",
    "python": "camcli.models.own_code.from_python",
    "timm": "camcli.models.from_timm",
    "torchvision": "camcli.models.from_torchvision",
    "open_clip": "camcli.models.words.from_open_clip",
    "transformers": "camcli.models.hugging_face.from_transformers",
}
LIBRARIES: tuple[Origin, ...] = ("timm", "torchvision")
# chosen by a prefix, a scheme or what a folder holds, never for a plain name
TRANSFORMERS: Origin = "transformers"
# of its versions the first that was tried, as the extra has it
LOWEST_TRANSFORMERS = (5, 24)
OPEN_CLIP: Origin = "open_clip"
OPEN_CLIP_SCHEME = "open_clip:"
FOLDER = "local-dir:"
# of files that are no models by themselves
OF_WEIGHTS = (".pth", ".pt", ".safetensors", ".ckpt")
TIMM_SCHEMES = ("hf-hub:", FOLDER)


def find_model(name: str) -> tuple[Origin, str]:
    """Returns where a model comes from and its name there; raises UnknownName."""
    if name == embedded.NAME:
        return "embedded", name
    if name.startswith(HUB) or (_is_path(name) and is_model_folder(name)):
        return TRANSFORMERS, name
    if name.startswith(OPEN_CLIP_SCHEME):
        return OPEN_CLIP, _find_open_clip(name.removeprefix(OPEN_CLIP_SCHEME))
    if name.startswith(TIMM_SCHEMES):
        return "timm", name
    if is_code(name):
        return "python", name
    prefix, _, rest = name.partition("/")
    chosen = [origin for origin in (*LIBRARIES, TRANSFORMERS) if origin == prefix]
    plain_name = rest if chosen else name
    known: list[str] = [] if chosen else [embedded.NAME]
    for origin in chosen or _list_libraries(name):
        library = import_builder(origin)
        if library.knows(plain_name):
            return origin, plain_name
        known += library.list_names()
    if not chosen and is_model_folder(name):
        return TRANSFORMERS, name
    where = f"in {prefix}" if chosen else "in timm or torchvision"
    hint = f"It is not {where}. Without --model the embedded classifier is used."
    if "," in name:
        hint = "A run has one model; --compare MODEL puts another beside it."
    elif is_file(name) or Path(name).suffix.lower() in OF_WEIGHTS:
        hint = "A file of weights goes to --checkpoint."
    elif ":" in name:
        hint = "Code of your own is FILE.py:FUNCTION, or package.module:FUNCTION."
    raise UnknownName("model", plain_name, known, hint)


def _find_open_clip(name: str) -> str:
    library = import_builder(OPEN_CLIP)
    if library.knows(name):
        return name
    raise UnknownName("model of open_clip", name.partition("/")[0], library.list_names())


def _is_path(name: str) -> bool:
    """Tells whether a name is spelled as a folder, so that no library need be asked for it."""
    return name.startswith((FOLDER, ".", "~", "/")) or Path(name).is_absolute()


def _list_libraries(name: str) -> tuple[Origin, ...]:
    """Returns the libraries in the order in which they are asked for a name without a prefix.

    timm's comes first where both have it; but only to hear that it has not, nobody waits for it.
    """
    return LIBRARIES if name.partition(".")[0] in _list_architectures() else LIBRARIES[::-1]


@cache
def _list_architectures() -> frozenset[str]:
    return frozenset(known.partition(".")[0] for known in list_timm_names())


@stage("import")
def import_builder(origin: Origin) -> ModuleType:
    """Imports the module whose `build` makes models of this origin.

    Raises ModelError for the extra that is not installed.
    """
    if origin == TRANSFORMERS:
        _check_transformers()
    return importlib.import_module(BUILDERS[origin])


def _check_transformers() -> None:
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        raise ModelError(
            "Models of transformers need the extra: pip install 'camviz[transformers]'. A folder "
            "that it saved can also be the weights of timm's network of the same architecture: "
            "--model NAME --checkpoint FOLDER."
        ) from None
    numbers = tuple(int(part) for part in installed.split(".")[:2] if part.isdecimal())
    if numbers < LOWEST_TRANSFORMERS:
        lowest = ".".join(map(str, LOWEST_TRANSFORMERS))
        raise ModelError(
            f"This is transformers {installed}, and camviz needs {lowest} or later: "
            "pip install -U 'camviz[transformers]'."
        )
