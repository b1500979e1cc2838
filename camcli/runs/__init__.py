"""Keeps in the output folder what a run did, and what it needs to be resumed."""

from camcli.runs.jsonl import STATE, read_manifest, unwritable_error, write_durably
from camcli.runs.locks import FolderLocks
from camcli.runs.manifest import WHOLE, Manifest, Mode, list_outputs
from camcli.runs.manifest_tail import ManifestTail, parse_record
from camcli.runs.map_records import average_cells, describe_map, pack_map, unpack_map
from camcli.runs.merge import list_world_sizes, merge_shards
from camcli.runs.output_owners import Rename
from camcli.runs.resume import describe_differences
from camcli.runs.run_info import Counts, RunInfo, read_summary, write_json
from camcli.runs.source_ids import identify_source
from camcli.runs.verify import CheckedFile, is_unfinished, read_stamp, verify_folder

__all__ = [
    "STATE",
    "WHOLE",
    "CheckedFile",
    "Counts",
    "FolderLocks",
    "Manifest",
    "ManifestTail",
    "Mode",
    "Rename",
    "RunInfo",
    "average_cells",
    "describe_differences",
    "describe_map",
    "identify_source",
    "is_unfinished",
    "list_outputs",
    "list_world_sizes",
    "merge_shards",
    "pack_map",
    "parse_record",
    "read_manifest",
    "read_stamp",
    "read_summary",
    "unpack_map",
    "unwritable_error",
    "verify_folder",
    "write_durably",
    "write_json",
]
