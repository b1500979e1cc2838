"""Whatever a record holds, and however its manifest is cut, it is read as it was written."""

import math
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from camcli.records import Record, Source
from camcli.runs import Counts, Manifest, RunInfo, read_manifest

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)
# any file name: what is no UTF-8 comes as lone surrogates
NAMES = st.text(min_size=1, max_size=40).filter(lambda t: not {"/", "\0"} & set(t) and t.strip("."))
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
RECORDS = st.builds(
    Record,
    source=st.text(max_size=40),
    label=st.text(max_size=40),
    probability=NUMBERS,
    minimum=NUMBERS,
    warnings=st.lists(st.text(max_size=20), max_size=2).map(tuple),
    error=st.text(max_size=20),
)


@PROPERTY
@given(st.lists(st.tuples(NAMES, st.lists(RECORDS, min_size=1, max_size=3)), max_size=4))
def test_what_is_read_is_what_was_written(runs: list[tuple[str, list[Record]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with Manifest.open(Path(folder), RunInfo({})) as manifest:
            for name, records in runs:
                manifest.append(Source(Path(folder, name)), records)
            manifest.finish(Counts())
        lines = list(read_manifest(Path(folder, "manifest.jsonl")))
    expected = [record for _, records in runs for record in records]
    assert len(lines) == len(expected)
    for line, record in zip(lines, expected, strict=True):
        assert (line["source"], line["label"]) == (record.source, record.label)
        assert (tuple(line["warnings"]), line["error"]) == (record.warnings, record.error)
        for name in ("probability", "minimum"):
            value = getattr(record, name)
            assert line[name] == (value if math.isfinite(value) else None)
    assert sum(line["last"] for line in lines) == len(runs)


@PROPERTY
@given(st.lists(NAMES, unique=True, min_size=1, max_size=5), st.data())
def test_wherever_it_is_cut_what_is_left_is_done_and_the_rest_is_not(
    names: list[str], data: st.DataObject
) -> None:
    sources = [Source(Path("/in", name)) for name in names]
    with tempfile.TemporaryDirectory() as place:
        folder, run = Path(place), RunInfo({})
        with Manifest.open(folder, run) as manifest:
            for source in manifest.list_remaining(sources):
                manifest.append(source, [Record(str(source)), Record(str(source))])
        file = folder / "manifest.jsonl"
        whole = file.read_bytes()
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        complete = file.read_bytes().count(b'"last": true')
        with Manifest.open(folder, run, "resume") as manifest:
            left = manifest.list_remaining(sources)
            assert len(left) in (len(sources) - complete, len(sources) - complete + 1)
            for source in left:
                manifest.append(source, [Record(str(source)), Record(str(source))])
            manifest.finish(Counts())
        actual = [line["source"] for line in read_manifest(file)]
    assert sorted(actual) == sorted(2 * [str(source) for source in sources])
