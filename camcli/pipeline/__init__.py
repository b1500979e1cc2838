"""From sources to heatmaps, files and records."""

from camcli.pipeline.explanation import Explanation, explain, overlay, why_empty
from camcli.pipeline.outputs import run

__all__ = ["Explanation", "explain", "overlay", "run", "why_empty"]
