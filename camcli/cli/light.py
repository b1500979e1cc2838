"""The help page without what typer imports for it and our pages never use."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType

# a parser of Markdown and a printer of errors, with all that they import: our pages are in rich's
# markup, and our errors are our own
UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def import_help_pages() -> None:
    """Imports typer's help pages with an empty class for each of these: a fifth of `--help`.

    For a process that shows help and ends: whoever would use those classes finds empty ones.
    """
    empty = {name: _empty(name) for name in UNUSED if name not in sys.modules}
    sys.modules.update(empty)
    # another typer may take more from them, and imports all of them by itself later
    with suppress(ImportError, AttributeError):
        import_module("typer.rich_utils")
    for name in empty:
        del sys.modules[name]


def _empty(name: str) -> ModuleType:
    module = ModuleType(name)
    setattr(module, UNUSED[name], type(UNUSED[name], (), {}))
    return module
