"""The user's own Python code: what a name means, and running it as Python would.

Nothing is imported but what the user named.  No torch here: options are checked without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from camcli.errors import CamvizError, ModelError, UnknownName, reason

INSTALLED = {"site-packages", "dist-packages"}
MOST_NAMES = 8


def is_code(name: str) -> bool:
    """Tells whether a name means code: `FILE.py:FUNCTION`, or `package.module:FUNCTION`."""
    place, _, function = name.rpartition(":")
    dotted = [*place.split("."), function]
    return name.endswith(".py") or place.endswith(".py") or all(p.isidentifier() for p in dotted)


@contextmanager
def running(name: str) -> Iterator[None]:
    """Makes what stands beside the named code importable; what it prints goes to standard error.

    Raises ModelError for whatever the code raises, with the line.
    """
    folder = _folder(name)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        with redirect_stdout(sys.stderr):
            yield
    except CamvizError:
        raise
    except (Exception, SystemExit) as error:  # a script may end the process: that is a mistake too
        raise ModelError(f"{name!r} failed. {where(error, name)}.") from error
    finally:
        # the code may have changed the path itself
        with suppress(ValueError):
            sys.path.remove(str(folder))


def find(name: str) -> Any:
    """Imports the code, and returns what builds the model; raises UnknownName or ModelError."""
    place, _, function = name.rpartition(":")
    if name.endswith(".py") or not function.isidentifier():
        raise ModelError(f"{name!r} names no function that builds the model: -m FILE.py:FUNCTION.")
    module = _from_file(place) if place.endswith(".py") else _from_path(place)
    found = getattr(module, function, None)
    if not callable(found):
        public = {n: v for n, v in vars(module).items() if callable(v) and not n.startswith("_")}
        own = [n for n, v in public.items() if getattr(v, "__module__", "") == module.__name__]
        hint = f"{place} has {', '.join(own[:MOST_NAMES]) or 'none'}."
        raise UnknownName(f"function of {place}", function, public, hint)
    return found


def where(error: BaseException, name: str) -> str:
    """Says which error arose on which line of the code: `File a.py, line 12: NameError: ...`."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"File {_shown(error.filename)}, line {error.lineno}: {kind}: {error.msg}"
    folder, frames = _folder(name), traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename, folder)]
    last = (own or frames)[-1]
    return f"File {_shown(last.filename)}, line {last.lineno}: {kind}: {reason(error)}"


def _folder(name: str) -> Path:
    place = name if name.endswith(".py") else name.rpartition(":")[0]
    return Path(place).expanduser().resolve().parent if place.endswith(".py") else Path.cwd()


def _from_file(place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        beside = [str(p) for p in sorted(Path(place).expanduser().parent.glob("*.py"))]
        raise UnknownName("file", place, beside, "-m FILE.py:FUNCTION runs a function of a file.")
    # a name of its own, so that it hides no other module of its name, nor another such file
    own_name = re.sub(r"\W", "_", str(path))
    # always a specification and a loader, for the name ends in .py
    spec = cast(ModuleSpec, importlib.util.spec_from_file_location(own_name, path))
    module = importlib.util.module_from_spec(spec)
    # kept there: dataclasses, pickle and torch.compile look up the module that a class names
    sys.modules[own_name] = module
    try:
        cast(Loader, spec.loader).exec_module(module)
    except BaseException:
        del sys.modules[own_name]
        raise
    return module


def _from_path(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        # a module that the named one asks for is a fault of its code
        if not f"{place}.".startswith(f"{error.name}."):
            raise
        hint = "It is neither in the current folder nor installed."
        raise UnknownName("module", place, (), hint) from error


def _is_own(file: str, folder: Path) -> bool:
    path = Path(file)
    return path.is_relative_to(folder) and not INSTALLED & set(path.parts)


def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
