"""Keeps in the output folder what a run did, and what it needs to go on."""

from camcli.runs.jsonl import read_manifest
from camcli.runs.manifest import Manifest, Mode, list_outputs
from camcli.runs.map_statistics import describe_map
from camcli.runs.merge import merge_shards
from camcli.runs.run_info import Counts, RunInfo
from camcli.runs.verify import CheckedFile, is_unfinished, read_stamp, verify_folder

__all__ = [
    "CheckedFile",
    "Counts",
    "Manifest",
    "Mode",
    "RunInfo",
    "describe_map",
    "is_unfinished",
    "list_outputs",
    "merge_shards",
    "read_manifest",
    "read_stamp",
    "verify_folder",
]
