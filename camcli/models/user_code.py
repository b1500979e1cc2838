"""The user's own Python code: what a name means, and running it as Python would.

Nothing is imported but what the user named.  No torch here: options are checked without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from camcli.errors import CamvizError, ModelError, UnknownName, reason
from camcli.paths import expand_home, is_file

INSTALLED = {"site-packages", "dist-packages"}
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
# this package, which may be run from its source
KEPT = {__name__.partition(".")[0], "__main__"}
MOST_NAMES = 8


def is_code(name: str) -> bool:
    """Tells whether a name means code: `FILE.py:FUNCTION`, or `package.module:FUNCTION`."""
    place, _, function = name.rpartition(":")
    dotted = [*place.split("."), function]
    return name.endswith(".py") or place.endswith(".py") or all(p.isidentifier() for p in dotted)


@contextmanager
def running(name: str) -> Iterator[None]:
    """Runs the named code as Python would by itself; what it prints goes to standard error.

    It reads no arguments of camviz's, and imports what stands beside it or in the current folder,
    in this order; the current folder is put back.  Raises ModelError for whatever the code raises,
    with the line.
    """
    here = Path.cwd()
    folders = list(dict.fromkeys((str(_folder(name)), str(here))))
    arguments, sys.argv = sys.argv, [_place(name)]
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        with _namesakes_aside(folders), redirect_stdout(sys.stderr):
            yield
    except CamvizError:
        raise
    except (Exception, SystemExit) as error:  # a script may end the process: that is a mistake too
        way_on = _way_on(error, name)
        raise ModelError(f"{name!r} failed. {where(error, name)}.{way_on}") from error
    finally:
        # scripts go where their files are, and pictures are named from here
        os.chdir(here)
        sys.argv = arguments
        for folder in folders:
            # the code may have changed the path itself
            with suppress(ValueError):
                sys.path.remove(folder)


@contextmanager
def _namesakes_aside(folders: Sequence[str]) -> Iterator[None]:
    """Puts modules of other projects aside whose names stand in these folders, too, meanwhile.

    Two projects that each have a `utils` would share the one that was imported first.
    """
    aside: dict[str, ModuleType] = {}
    for name in [name for name in sys.modules if "." not in name]:
        if _has_namesake(name, folders):
            aside |= {key: sys.modules.pop(key) for key in _imported(name)}
    try:
        yield
    finally:
        for name in [key for key in aside if "." not in key]:
            for key in _imported(name):
                del sys.modules[key]
        sys.modules.update(aside)


def _has_namesake(name: str, folders: Sequence[str]) -> bool:
    """Tells whether a module was imported from elsewhere that stands in one of the folders, too."""
    spec = None if name in KEPT else PathFinder.find_spec(name, folders)
    if spec is None:
        return False
    found = spec.submodule_search_locations or [spec.origin or ""]
    there = [Path(place).resolve() for place in found]
    files = (getattr(sys.modules[key], "__file__", None) for key in _imported(name))
    paths = [Path(file).resolve() for file in files if file]
    # what is installed, or Python's own, is what others have imported by this name
    if any(map(_is_installed, paths)):
        return False
    return not all(any(path.is_relative_to(place) for place in there) for path in paths)


def _imported(name: str) -> list[str]:
    """Lists a module that was imported, and all that was of the package that it is."""
    return [key for key in sys.modules if key == name or key.startswith(f"{name}.")]


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


def own_line(error: BaseException) -> str:
    """Says on which line of the user's own code an error arose as torch ran it, if it did so there.

    That is what is neither camviz's nor installed nor Python's own.
    """
    camviz, found, was_called = Path(__file__).parents[1], "", False
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(camviz):
            found, was_called = "", False
        elif path.is_absolute() and _is_installed(path.resolve()):
            was_called = True
        elif path.is_absolute() and was_called:
            found = f"File {_shown(frame.filename)}, line {frame.lineno}"
    return found


def _is_installed(path: Path) -> bool:
    return bool(INSTALLED & set(path.parts)) or path.is_relative_to(STANDARD)


def _way_on(error: BaseException, name: str) -> str:
    """Says what to do about an error that comes of running code out of its project."""
    frames = traceback.extract_tb(error.__traceback__)
    main = 'behind `if __name__ == "__main__":`.'
    parses = any(Path(frame.filename).name == "argparse.py" for frame in frames)
    if parses or (isinstance(error, IndexError) and "argv" in (frames[-1].line or "")):
        return f" It reads arguments and is given none: let them have defaults, or put that {main}"
    if isinstance(error, SystemExit):
        return f" It ends the program: put that {main}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        beside = Path(*error.name.split("."))
        return _where_it_lies(error.name, beside, _folder(name))
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        return _where_it_lies(error.filename, Path(error.filename), _folder(name))
    if isinstance(error, ImportError) and "relative import" in str(error):
        return _as_part_of_its_package(name, frames[-1])
    return ""


def _where_it_lies(name: str, beside: Path, folder: Path) -> str:
    """Names the code's folder, or one above it, in which what it asks for lies, if not this one."""
    if beside.is_absolute():
        return ""
    # nobody keeps a project in the root folder, whose names (lib, home) say nothing
    for root in (folder, *folder.parents[:-1]):
        here = root / beside
        if root != Path.cwd() and (here.exists() or here.with_suffix(".py").is_file()):
            return f" {name!r} lies in {root}: run camviz in that folder."
    return ""


def _as_part_of_its_package(name: str, failed: traceback.FrameSummary) -> str:
    """Names the form in which Python knows of what package a file is a part.

    That is one as high as the import goes that failed.
    """
    place, function = _place(name), name.rpartition(":")[2]
    if place.endswith(".py"):
        file, here = expand_home(place).resolve(), Path.cwd()
        root = here if file.is_relative_to(here) and file.parent != here else _root(file)
        dots = re.match(r"from\s+(\.+)", failed.line or "")
        if dots and Path(failed.filename) == file:
            height = max(len(dots[1]), len(file.parent.relative_to(root).parts))
            root = file.parents[min(height, len(file.parents) - 1)]
    else:
        # dots that go above the folder in which camviz runs
        file, root = Path.cwd().joinpath(*place.split(".")), Path.cwd().parent
    parts = file.relative_to(root).with_suffix("").parts
    if not all(part.isidentifier() for part in parts):
        return ""
    there = "" if root == Path.cwd() else f" in {root}"
    return f" As a part of its package it is -m {'.'.join(parts)}:{function}{there}."


def _root(file: Path) -> Path:
    """Returns the folder that the file's outermost package stands in."""
    return next(p for p in file.parent.parents if not (p / "__init__.py").exists())


def _place(name: str) -> str:
    return name if name.endswith(".py") else name.rpartition(":")[0]


def _folder(name: str) -> Path:
    place = _place(name)
    is_there = place.endswith(".py") and is_file(place)
    return expand_home(place).resolve().parent if is_there else Path.cwd()


def _from_file(place: str) -> ModuleType:
    if not is_file(place):
        beside = [str(p) for p in sorted(expand_home(place).parent.glob("*.py"))]
        raise UnknownName("file", place, beside, "-m FILE.py:FUNCTION runs a function of a file.")
    path = expand_home(place).resolve()
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
