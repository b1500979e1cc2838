"""What a run did: a manifest of its heatmaps in the output folder, and what it needs to go on."""

from camcli.report.lines import read_manifest
from camcli.report.manifest import Manifest, Mode, made_in
from camcli.report.run import Counts, Run
from camcli.report.shards import merge
from camcli.report.statistics import statistics
from camcli.report.verify import CheckedFile, is_unfinished, read_stamp, verify

__all__ = [
    "CheckedFile",
    "Counts",
    "Manifest",
    "Mode",
    "Run",
    "is_unfinished",
    "made_in",
    "merge",
    "read_manifest",
    "read_stamp",
    "statistics",
    "verify",
]
