"""From sources to heatmaps, files and records."""

from camcli.pipeline.batches import explain
from camcli.pipeline.explanation import Explanation, overlay, why_empty
from camcli.pipeline.plan import plan
from camcli.pipeline.runner import Watch, carried_out, run
from camcli.pipeline.shutdown import Stop, interruptible

__all__ = [
    "Explanation",
    "Stop",
    "Watch",
    "carried_out",
    "explain",
    "interruptible",
    "overlay",
    "plan",
    "run",
    "why_empty",
]
