"""From sources to heatmaps, files and records."""

from camcli.pipeline.explanation import Explanation, explain, overlay, why_empty
from camcli.pipeline.outputs import carried_out, run
from camcli.pipeline.plan import plan

__all__ = ["Explanation", "carried_out", "explain", "overlay", "plan", "run", "why_empty"]
