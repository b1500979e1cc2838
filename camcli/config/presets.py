"""Finds shipped presets and users' own, and reads their TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

from camcli.errors import ConfigError, UnknownName, first_line
from camcli.utils.paths import expand_home, is_file
from camcli.utils.text_files import read_text

# no preset needs more, and more could exhaust the stack or Python's conversion of numbers
LARGEST_FILE = 2**20  # bytes
DEEPEST, LARGEST_NUMBER = 16, 2**63


def find_config(given: str) -> Path:
    """Finds a preset by name or a config file by path; raises UnknownName."""
    shipped = list_presets()
    name = given.lower().replace("-", "_")
    if name in shipped:
        return shipped[name]
    if is_file(given):
        return expand_home(given)
    hint = f"Presets: {', '.join(shipped)}; or name a TOML file that exists."
    raise UnknownName("config", given, shipped, hint)


def list_presets() -> dict[str, Path]:
    """Returns the shipped presets {name: file}, from the wheel or else from the checkout."""
    package = Path(__file__).parents[1]
    folders = (package / "configs", package.parent / "configs")
    folder = next((f for f in folders if f.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_toml(path: Path) -> dict[str, object]:
    """Reads a TOML file of limited size and depth; raises ConfigError."""
    try:
        table = tomllib.loads(read_text(path, largest=LARGEST_FILE))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file in UTF-8.") from error
    except (ValueError, RecursionError) as error:  # not every mistake raises a TOMLDecodeError
        raise ConfigError(f"{path} is not valid TOML: {first_line(error)}.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if _is_absurd(table):
        raise ConfigError(
            f"{path} nests values more than {DEEPEST} deep, or has a whole number of more than 64 "
            "bits."
        )
    return table


def _is_absurd(value: object, depth: int = 0) -> bool:
    if isinstance(value, int):
        return abs(value) > LARGEST_NUMBER
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > DEEPEST or any(_is_absurd(part, depth + 1) for part in inner)
