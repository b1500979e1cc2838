"""From sources to heatmaps, files and records."""

from camcli.pipeline.explanation import Explanation, overlay, why_empty
from camcli.pipeline.picture_api import explain
from camcli.pipeline.plan import make_plan
from camcli.pipeline.runner import RunCallbacks, carry_out_plan, run
from camcli.pipeline.shutdown import StopRequest, handle_interrupts

__all__ = [
    "Explanation",
    "RunCallbacks",
    "StopRequest",
    "carry_out_plan",
    "explain",
    "handle_interrupts",
    "make_plan",
    "overlay",
    "run",
    "why_empty",
]
