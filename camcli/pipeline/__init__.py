"""Takes sources to heatmaps, files and records."""

from camcli.pipeline.explanation import Explanation, explain_empty, overlay
from camcli.pipeline.picture_api import explain
from camcli.pipeline.plan import make_plan
from camcli.pipeline.references import compare_with
from camcli.pipeline.runner import RunCallbacks, carry_out_plan, run_sources
from camcli.pipeline.sheets.explanations import Explanations
from camcli.pipeline.shutdown import StopRequest, handle_interrupts

__all__ = [
    "Explanation",
    "Explanations",
    "RunCallbacks",
    "StopRequest",
    "carry_out_plan",
    "compare_with",
    "explain",
    "explain_empty",
    "handle_interrupts",
    "make_plan",
    "overlay",
    "run_sources",
]
