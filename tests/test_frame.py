"""The project's frame: its top level, the arrows between its parts, what importing it costs."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import camcli
from tests.checkout import ROOT, TOP_LEVEL, list_tracked, project_files

PACKAGE = "camcli"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
LAYERS = [
    {part.strip() for part in layer.split("|")}
    for contract in CONTRACTS
    if contract["type"] == "layers"
    for layer in contract["layers"]
]
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
FORBIDDEN = [contract for contract in CONTRACTS if contract["type"] == "forbidden"]
# the Python interface and `python -m camcli` stand above the layers
ABOVE = {PACKAGE, f"{PACKAGE}.__main__"}
HEAVY = {"torch", "torchvision", "timm", "cv2", "numpy", "av"}
MACHINE_PATH = re.compile(r"(?<![\w.:~/-])/(?:work|home|root|Users|opt|mnt)/\w+|[A-Z]:\\+Users")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


@cache
def imports(importer: str, tree: ast.AST) -> tuple[str, ...]:
    """Lists what a module imports anywhere in it, as `package.module` wherever that is one."""
    return tuple(walk_imports(importer, tree))


def walk_imports(importer: str, tree: ast.AST) -> Iterator[str]:
    path = SOURCES.get(importer)
    place = [*importer.split("."), *(["__init__"] if path and path.stem == "__init__" else [])]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = place[: -node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in SOURCES or base == PACKAGE else base


def part_of(module: str) -> str | None:
    """Finds the part of the house that a module stands in."""
    names = module.split(".")
    ancestors = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((name for name in ancestors if name in RANKS), None)


def is_allowed(here: str, imported: str) -> bool:
    """Tells whether a part may import something: what is below it, and what is not camviz."""
    present = part_of(imported)
    if present is not None:
        return present == here or RANKS[present] > RANKS[here]
    # the Python interface reaches everything, so only the top may ask the package for anything
    return imported.split(".")[0] != PACKAGE or RANKS[here] == 0


def upward(importer: str, tree: ast.AST) -> list[str]:
    """Lists the imports that run upward, sideways, or round by the package itself."""
    here = part_of(importer)
    actual = imports(importer, tree) if here else ()
    return [f"{importer} imports {name}" for name in actual if here and not is_allowed(here, name)]


def homes(contract: dict[str, Any]) -> set[str]:
    """Returns the packages in which a contract lets its libraries be imported."""
    return {ignored.split(".**")[0] for ignored in contract["ignore_imports"]}


def forbidden(contract: dict[str, Any], importer: str, tree: ast.AST) -> list[str]:
    """Lists the imports that a contract forbids to this module."""
    if any(importer == home or importer.startswith(f"{home}.") for home in homes(contract)):
        return []
    libraries = set(contract["forbidden_modules"])
    imported = imports(importer, tree)
    return [f"{importer} imports {name}" for name in imported if name.split(".")[0] in libraries]


@pytest.mark.parametrize("name", [n for n in TREES if n not in ABOVE])
def test_every_module_stands_in_a_layer(name: str) -> None:
    assert part_of(name) is not None, f"{name} is in no layer of pyproject.toml"


def test_arrows_run_downward() -> None:
    assert [wrong for name, tree in TREES.items() for wrong in upward(name, tree)] == []


@pytest.mark.parametrize("contract", FORBIDDEN, ids=lambda contract: contract["name"])
def test_libraries_are_known_in_their_place_alone(contract: dict[str, Any]) -> None:
    assert [wrong for n, tree in TREES.items() for wrong in forbidden(contract, n, tree)] == []


@pytest.mark.parametrize("contract", FORBIDDEN, ids=lambda contract: contract["name"])
def test_a_contract_names_the_homes_of_its_libraries(contract: dict[str, Any]) -> None:
    names = {home.removeprefix(f"{PACKAGE}.") for home in homes(contract)}
    assert names
    assert names <= set(re.findall(r"\w+", contract["name"]))


@pytest.mark.parametrize(
    ("importer", "source", "wrong"),
    [
        ("camcli.methods.gradient", "from camcli.engine import explain_request", "camcli.engine"),
        ("camcli.methods.gradient", "import camcli.pipeline as p", "camcli.pipeline"),
        (
            "camcli.engine.batch_context",
            "def f():\n    from camcli.media import read",
            "camcli.media",
        ),
        ("camcli.errors", "from . import records", "camcli.records"),
        ("camcli.engine.batch_context", "from camcli import explain", "camcli.explain"),
        ("camcli.engine.batch_context", "import camcli", "camcli"),
    ],
)
def test_the_walker_sees_a_wrong_arrow(importer: str, source: str, wrong: str) -> None:
    (actual,) = upward(importer, ast.parse(source))
    assert actual.startswith(f"{importer} imports {wrong}")


def test_the_walker_lets_right_arrows_pass() -> None:
    source = "import torch\nfrom camcli.models.load import load_model\nfrom camcli import errors"
    assert upward("camcli.engine.batch_context", ast.parse(source)) == []


def test_the_walker_sees_a_library_out_of_its_place() -> None:
    source = "def f():\n    from timm.data import create_transform"
    actual = [
        w for c in FORBIDDEN for w in forbidden(c, "camcli.engine.batch_context", ast.parse(source))
    ]
    assert actual == ["camcli.engine.batch_context imports timm.data"]


def list_imports_of(*arguments: str) -> set[str]:
    """Runs Python in a process of its own and returns the top-level names of what it imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = ran.stderr.splitlines()
    timed = [line for line in lines if line.startswith("import time:")]
    assert ran.returncode == 0, "\n".join(line for line in lines if line not in timed)
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in timed}


@pytest.mark.parametrize("arguments", [("-c", "import camcli"), ("-m", "camcli", "--help")])
def test_what_needs_no_model_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    imported = list_imports_of(*arguments)
    assert PACKAGE in imported
    assert imported & HEAVY == set()


@pytest.mark.slow  # starts Python once more, and builds models of three libraries
def test_a_model_of_another_library_does_not_import_transformers() -> None:
    code = (
        "from camcli import load_model; load_model(device='cpu')\n"
        "for name in ('timm/test_vit', 'torchvision/squeezenet1_1'):\n"
        "    load_model(name, pretrained=False, device='cpu')\n"
    )
    imported = list_imports_of("-c", code)
    assert {"torch", "timm", "torchvision"} <= imported
    assert imported & {"transformers", "peft"} == set()


def test_ffmpeg_is_imported_where_a_video_is_met_and_not_before() -> None:
    for module, tree in TREES.items():
        at_once = ast.Module([node for node in tree.body if not isinstance(node, ast.If)], [])
        of_functions = (node for node in ast.walk(at_once) if isinstance(node, ast.FunctionDef))
        inside = {id(inner) for function in of_functions for inner in ast.walk(function)}
        outside = (node for node in ast.walk(at_once) if id(node) not in inside)
        for node in outside:
            if isinstance(node, ast.Import | ast.ImportFrom):
                actual = imports(module, ast.Module([node], []))
                assert "av" not in {name.split(".")[0] for name in actual}, module


def test_the_package_and_its_metadata_tell_one_version() -> None:
    assert PROJECT["project"]["version"] == camcli.__version__


def test_the_top_level_holds_only_what_belongs_there() -> None:
    files = list_tracked()
    if not files:
        pytest.skip("needs a git checkout")
    assert {f.parts[0] for f in files if not f.parts[0].startswith(".")} == TOP_LEVEL


def test_every_public_function_and_class_has_a_docstring() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    silent = [
        f"{name}.{node.name}"
        for name, tree in TREES.items()
        for node in tree.body
        if isinstance(node, kinds) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    named = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        named += [f"{path.relative_to(ROOT)}: {m[0]}" for m in MACHINE_PATH.finditer(text)]
    assert named == []
