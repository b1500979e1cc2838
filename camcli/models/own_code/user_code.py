"""Runs the user's own Python code, as Python itself would.

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

from camcli.errors import CamvizError, ModelError, UnknownName, first_line
from camcli.utils.paths import expand_home, is_file

SITE_FOLDERS = {"site-packages", "dist-packages"}
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
# this package, which may be run from its source
KEPT_MODULES = {__name__.partition(".")[0], "__main__"}
MOST_NAMES = 8


def is_code(name: str) -> bool:
    """Tells whether a name means code: `FILE.py:FUNCTION`, or `package.module:FUNCTION`."""
    place, _, function = name.rpartition(":")
    dotted = [*place.split("."), function]
    return name.endswith(".py") or place.endswith(".py") or all(p.isidentifier() for p in dotted)


@contextmanager
def run_user_code(name: str) -> Iterator[None]:
    """Runs the named code as Python would by itself; what it prints goes to standard error.

    It reads no arguments of camviz's, and imports what stands beside it or in the current folder,
    in this order; the current folder is put back.  Raises ModelError for whatever the code raises,
    with the line.
    """
    here = Path.cwd()
    folders = list(dict.fromkeys((str(_find_folder(name)), str(here))))
    arguments, sys.argv = sys.argv, [_parse_place(name)]
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        with _hide_namesakes(folders), redirect_stdout(sys.stderr):
            yield
    except CamvizError:
        raise
    except (Exception, SystemExit) as error:  # a script may end the process: that is a mistake too
        way_on = _advise(error, name)
        raise ModelError(f"{name!r} failed. {describe_error(error, name)}.{way_on}") from error
    finally:
        # scripts go where their files are, and pictures are named from here
        os.chdir(here)
        sys.argv = arguments
        for folder in folders:
            # the code may have changed the path itself
            with suppress(ValueError):
                sys.path.remove(folder)


@contextmanager
def _hide_namesakes(folders: Sequence[str]) -> Iterator[None]:
    """Puts modules of other projects aside whose names stand in these folders, too, meanwhile.

    Two projects that each have a `utils` would share the one that was imported first.
    """
    aside: dict[str, ModuleType] = {}
    for name in [name for name in sys.modules if "." not in name]:
        if _has_namesake(name, folders):
            aside |= {key: sys.modules.pop(key) for key in _list_imported(name)}
    try:
        yield
    finally:
        for name in [key for key in aside if "." not in key]:
            for key in _list_imported(name):
                del sys.modules[key]
        sys.modules.update(aside)


def _has_namesake(name: str, folders: Sequence[str]) -> bool:
    """Tells whether a module was imported from elsewhere that stands in one of the folders, too."""
    spec = None if name in KEPT_MODULES else PathFinder.find_spec(name, folders)
    if spec is None:
        return False
    origins = spec.submodule_search_locations or [spec.origin or ""]
    places = [Path(place).resolve() for place in origins]
    files = (getattr(sys.modules[key], "__file__", None) for key in _list_imported(name))
    paths = [Path(file).resolve() for file in files if file]
    # what is installed, or Python's own, is what others have imported by this name
    if any(map(_is_installed, paths)):
        return False
    return not all(any(path.is_relative_to(place) for place in places) for path in paths)


def _list_imported(name: str) -> list[str]:
    """Lists a module that was imported, and all that was of the package that it is."""
    return [key for key in sys.modules if key == name or key.startswith(f"{name}.")]


def import_builder(name: str) -> Any:
    """Imports the code, and returns what builds the model; raises UnknownName or ModelError."""
    place, _, function = name.rpartition(":")
    if name.endswith(".py") or not function.isidentifier():
        raise ModelError(f"{name!r} names no function that builds the model: -m FILE.py:FUNCTION.")
    module = _import_file(place) if place.endswith(".py") else _import_path(place)
    builder = getattr(module, function, None)
    if not callable(builder):
        public = {n: v for n, v in vars(module).items() if callable(v) and not n.startswith("_")}
        own = [n for n, v in public.items() if getattr(v, "__module__", "") == module.__name__]
        hint = f"{place} has {', '.join(own[:MOST_NAMES]) or 'none'}."
        raise UnknownName(f"function of {place}", function, public, hint)
    return builder


def describe_error(error: BaseException, name: str) -> str:
    """Says which error arose on which line of the code: `File a.py, line 12: NameError: ...`."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"File {_shorten_path(error.filename)}, line {error.lineno}: {kind}: {error.msg}"
    folder, frames = _find_folder(name), traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename, folder)]
    last = (own or frames)[-1]
    return f"File {_shorten_path(last.filename)}, line {last.lineno}: {kind}: {first_line(error)}"


def find_own_line(error: BaseException) -> str:
    """Says on which line of the user's own code an error arose as torch ran it, if it did so there.

    That is what is neither camviz's nor installed nor Python's own.
    """
    camviz, own, was_called = Path(__file__).parents[2], "", False
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(camviz):
            own, was_called = "", False
        elif path.is_absolute() and _is_installed(path.resolve()):
            was_called = True
        elif path.is_absolute() and was_called:
            own = f"File {_shorten_path(frame.filename)}, line {frame.lineno}"
    return own


def _is_installed(path: Path) -> bool:
    return bool(SITE_FOLDERS & set(path.parts)) or path.is_relative_to(STANDARD)


def _advise(error: BaseException, name: str) -> str:
    """Says what to do about an error that comes of running code out of its project."""
    frames = traceback.extract_tb(error.__traceback__)
    main = 'behind `if __name__ == "__main__":`.'
    parses = any(Path(frame.filename).name == "argparse.py" for frame in frames)
    if parses or (isinstance(error, IndexError) and "argv" in (frames[-1].line or "")):
        return f" It reads arguments and is given none: let them have defaults, or put that {main}"
    if isinstance(error, SystemExit):
        return f" It ends the program: put that {main}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        module_path = Path(*error.name.split("."))
        return _name_folder(error.name, module_path, _find_folder(name))
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        return _name_folder(error.filename, Path(error.filename), _find_folder(name))
    if isinstance(error, ImportError) and "relative import" in str(error):
        return _suggest_package_form(name, frames[-1])
    return ""


def _name_folder(name: str, module_path: Path, folder: Path) -> str:
    """Names the code's folder, or one above it, in which what it asks for lies, if not this one."""
    if module_path.is_absolute():
        return ""
    # nobody keeps a project in the root folder, whose names (lib, home) say nothing
    for root in (folder, *folder.parents[:-1]):
        here = root / module_path
        if root != Path.cwd() and (here.exists() or here.with_suffix(".py").is_file()):
            return f" {name!r} lies in {root}: run camviz in that folder."
    return ""


def _suggest_package_form(name: str, failed: traceback.FrameSummary) -> str:
    """Names the form in which Python knows of what package a file is a part.

    That is one as high as the import goes that failed.
    """
    place, function = _parse_place(name), name.rpartition(":")[2]
    if place.endswith(".py"):
        file, here = expand_home(place).resolve(), Path.cwd()
        root = here if file.is_relative_to(here) and file.parent != here else _find_root(file)
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
    location = "" if root == Path.cwd() else f" in {root}"
    return f" As a part of its package it is -m {'.'.join(parts)}:{function}{location}."


def _find_root(file: Path) -> Path:
    """Returns the folder that the file's outermost package stands in."""
    return next(p for p in file.parent.parents if not (p / "__init__.py").exists())


def _parse_place(name: str) -> str:
    return name if name.endswith(".py") else name.rpartition(":")[0]


def _find_folder(name: str) -> Path:
    place = _parse_place(name)
    is_there = place.endswith(".py") and is_file(place)
    return expand_home(place).resolve().parent if is_there else Path.cwd()


def _import_file(place: str) -> ModuleType:
    if not is_file(place):
        neighbours = [str(p) for p in sorted(expand_home(place).parent.glob("*.py"))]
        raise UnknownName(
            "file", place, neighbours, "-m FILE.py:FUNCTION runs a function of a file."
        )
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


def _import_path(place: str) -> ModuleType:
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
    return path.is_relative_to(folder) and not SITE_FOLDERS & set(path.parts)


def _shorten_path(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
