"""camviz: see where an image classifier looks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camcli.engine.api import activations, heatmaps, packed
    from camcli.errors import CamvizError, CamvizWarning
    from camcli.models.load import Classifier, load_model
    from camcli.models.state import lock_model
    from camcli.models.words.prompts import prompt
    from camcli.pipeline import (
        Explanation,
        Explanations,
        compare_with,
        explain,
        overlay,
    )
    from camcli.pipeline.sheets.sheet import Sheet
    from camcli.pipeline.training import OverlayCallback, log_overlays
    from camcli.records import Box

__version__ = "0.1.0"
# the public interface: tests/api_surface.txt holds each name with its parameters and attributes
__all__ = [
    "Box",
    "CamvizError",
    "CamvizWarning",
    "Classifier",
    "Explanation",
    "Explanations",
    "OverlayCallback",
    "Sheet",
    "__version__",
    "activations",
    "compare_with",
    "explain",
    "heatmaps",
    "load_model",
    "lock_model",
    "log_overlays",
    "overlay",
    "packed",
    "prompt",
]

# imported when first asked for: torch alone takes seconds
_HOMES = {
    "Box": "camcli.records",
    "CamvizError": "camcli.errors",
    "CamvizWarning": "camcli.errors",
    "Classifier": "camcli.models.load",
    "Explanation": "camcli.pipeline",
    "Explanations": "camcli.pipeline",
    "OverlayCallback": "camcli.pipeline.training",
    "Sheet": "camcli.pipeline.sheets.sheet",
    "activations": "camcli.engine.api",
    "compare_with": "camcli.pipeline",
    "explain": "camcli.pipeline",
    "heatmaps": "camcli.engine.api",
    "load_model": "camcli.models.load",
    "lock_model": "camcli.models.state",
    "log_overlays": "camcli.pipeline.training",
    "overlay": "camcli.pipeline",
    "packed": "camcli.engine.api",
    "prompt": "camcli.models.words.prompts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        hint = _find_hint(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def _find_hint(name: str) -> str:
    """Says what a name of another library is here: `GradCAM`, `list_models`."""
    from camcli.method_info import METHOD_INFO

    method = name.lower().replace("plusplus", "++").replace("pp", "++")
    if method in METHOD_INFO and method != name:
        return f": methods are named, as in camcli.heatmaps(model, inputs, {method!r})"
    lists = {"list_methods": "methods", "list_models": "models"}
    return f": camviz {lists[name]} lists them" if name in lists else ""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
