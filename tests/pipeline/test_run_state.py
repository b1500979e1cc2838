"""What a run keeps of itself: it goes on where it was cut off, and overwrites nobody else's."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from camcli import explain, load_model
from camcli.config import from_keywords
from camcli.errors import ImageError, UsageError
from camcli.media.sources.listing import find_sources
from camcli.models.load import Classifier
from camcli.pipeline import RunCallbacks, StopRequest, carry_out_plan, make_plan
from camcli.pipeline.run_state import RunState
from camcli.records import Outcome, Preprocessing, Source
from camcli.runs import Manifest, read_manifest, verify_folder
from tests.networks import Staged
from tests.outputs import outputs
from tests.small_models import small_in_place_of_embedded

NAMES = [f"{n}.png" for n in range(6)]
BAD = "3.png"


@pytest.fixture(scope="module")
def small() -> Classifier:
    with small_in_place_of_embedded():
        return load_model("embedded")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for n, name in enumerate(NAMES):
        Image.new("RGB", (40 + n, 40), (40 * n, 90, 200 - 30 * n)).save(folder / name)
    (folder / BAD).write_bytes(b"none")
    return folder


class Runner:
    """Explains pictures into a folder, and remembers what the last run began with."""

    def __init__(self, classifier: Classifier, pictures: Path, out: Path) -> None:
        self.classifier, self.pictures, self.out = classifier, pictures, out
        self.kept: RunState | None = None

    def __call__(
        self,
        until: int | None = None,
        named: str = "",
        left_out: Callable[[int], None] = lambda _: None,
        **given: Any,
    ) -> list[str]:
        options = from_keywords(**{"save_path": self.out, "batch_size": 2, **given})
        sources = find_sources([named or self.pictures])
        stop, done = StopRequest(), list[Outcome]()
        watch = RunCallbacks(self._begins, left_out=left_out)
        plan = make_plan(self.classifier, options)
        try:
            for outcome in carry_out_plan(plan, sources, options, stop, watch):
                done.append(outcome)
                if len(done) == until:
                    stop.ask(KeyboardInterrupt())
        except KeyboardInterrupt:
            assert until
        return [outcome.source.path.name for outcome in done]

    def _begins(self, kept: RunState) -> None:
        self.kept = kept

    @property
    def manifest(self) -> list[dict[str, Any]]:
        return list(read_manifest(self.out / "manifest.jsonl"))

    def check_whole(self) -> None:
        """Every picture is there once, with its files, and there is nothing else."""
        assert Counter(Path(r["source"]).name for r in self.manifest) == Counter(NAMES)
        assert [Path(r["source"]).name for r in self.manifest if r["error"]] == [BAD]
        named = {name for record in self.manifest for name in record["outputs"]}
        assert {p.relative_to(self.out).as_posix() for p in outputs(self.out)} == named


@pytest.fixture
def run(small: Classifier, pictures: Path, tmp_path: Path) -> Runner:
    return Runner(small, pictures, tmp_path / "out")


def test_a_run_says_what_it_did(run: Runner) -> None:
    assert run() == NAMES
    run.check_whole()
    summary = json.loads((run.out / "run.json").read_text())
    expected = {"pictures": 5, "heatmaps": 5, "failed": 1, "skipped": 0}
    assert summary["counts"] == expected
    assert summary["configuration"]["method"] == ["gradcam"]
    first = run.manifest[0]
    assert first["weights"] == summary["configuration"]["weights"]
    assert first["run"] == summary["run"] and first["last"] and first["versions"]["torch"]
    (raw,) = explain(run.classifier, run.pictures / NAMES[0])
    assert first["statistics"]["std"] == pytest.approx(float(raw.heatmap.std()), rel=1e-3)
    assert first["maximum"] == pytest.approx(float(raw.heatmap.max()), rel=1e-3)
    assert first["minimum"] == pytest.approx(float(raw.heatmap.min()), rel=1e-3, abs=1e-9)
    assert 0 < first["seconds"] < summary["seconds"] + 1


@pytest.mark.parametrize(
    "asked",
    [
        {"save_map": "npy"},
        {"method": ["gradcam", "guided-backprop"], "workers": 2},
    ],
)
def test_every_file_is_known_again(run: Runner, asked: dict[str, Any]) -> None:
    run(named=str(run.pictures / NAMES[0]), **asked)
    checked = {file.path: file.state for file in verify_folder(run.out)}
    assert checked == {path.relative_to(run.out).as_posix(): "whole" for path in outputs(run.out)}
    assert len(checked) > 1


def test_a_picture_that_was_cut_is_made_again(run: Runner) -> None:
    run()
    (name,) = run.manifest[1]["files"]
    content = (run.out / name).read_bytes()
    (run.out / name).write_bytes(content[:-1])
    assert run(resume=True) == [NAMES[1]]
    assert (run.out / name).read_bytes() == content
    run.check_whole()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_another_process_has_is_left_out_and_looked_at_again(
    run: Runner, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    asked = Counter[str]()

    def claim(_: Manifest, source: Source) -> bool:
        name = source.path.name
        asked[name] += 1
        # the one dies over 1.png, and finishes 4.png
        return name not in ("1.png", "4.png") or (name == "1.png" and asked[name] == 2)

    monkeypatch.setattr(Manifest, "claim", claim)
    message: list[int] = []
    assert run(workers=workers, left_out=message.append) == ["0.png", *NAMES[2:4], "5.png", "1.png"]
    assert message == [1, 1, -1]
    counts = json.loads((run.out / "run.json").read_text())["counts"]
    assert counts == {"pictures": 4, "heatmaps": 4, "failed": 1, "skipped": 1}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (Path("x" * 300), "File name too long"),
        (Path(*["x" * 200] * 30), "File name too long"),
        (Path("taken"), "File exists"),
    ],
)
def test_a_name_that_the_file_system_refuses_is_the_pictures_failure(
    run: Runner, folder: Path, message: str, workers: int
) -> None:
    run.out.mkdir()
    (run.out / "taken").touch()
    sources = [Source(run.pictures / name) for name in NAMES[:3]]
    sources[1] = replace(sources[1], folder=folder)
    options = from_keywords(save_path=run.out, workers=workers, save_map="npy")
    done = list(carry_out_plan(make_plan(run.classifier, options), sources, options))
    assert [outcome.failed for outcome in done] == [False, True, False]
    (error,) = {record.error for record in done[1].records}
    assert error.startswith("Cannot write") and message in error
    again = options.model_copy(update={"resume": True})
    assert list(carry_out_plan(make_plan(run.classifier, again), sources, again)) == []
    assert {file.state for file in verify_folder(run.out)} == {"whole"}


def test_what_stands_there_of_a_picture_that_failed_is_known(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ImageError("Cannot write it: File name too long.")

    monkeypatch.setattr("camcli.pipeline.writing.output_writer.write_map", refuse)
    run(named=str(run.pictures / NAMES[0]), save_map="npy")
    (line,) = run.manifest
    assert line["error"] and {p.name for p in outputs(run.out)} == set(line["outputs"])


@pytest.mark.parametrize("until", [1, 3, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_goes_on(run: Runner, until: int, workers: int) -> None:
    before = run(until, workers=workers)
    assert not (run.out / "run.json").exists()
    after = run(resume=True, workers=workers)
    assert before + after == NAMES
    assert run.kept and run.kept.skipped == len(before)
    run.check_whole()
    assert run(resume=True) == []


def test_a_torn_line_and_an_orphan_are_done_again(run: Runner) -> None:
    before = run(4)
    manifest = run.out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    # its file is there, and no line names it
    assert run(resume=True)[0] == before[-1]
    run.check_whole()


def test_another_configuration_is_refused(run: Runner) -> None:
    before = run(2, alpha=0.4)
    with pytest.raises(UsageError, match=r"alpha 0\.4 \(now 0\.5\)"):
        run(resume=True)
    # how fast it goes is no part of it
    assert before + run(resume=True, alpha=0.4, batch_size=3, workers=0) == NAMES
    run.check_whole()


def test_failed_pictures_are_tried_again_where_the_others_exist(run: Runner) -> None:
    run()
    Image.new("RGB", (50, 50)).save(run.pictures / BAD)
    assert run(resume=True) == []
    assert run(skip_existing=True) == [BAD]
    assert Counter(Path(r["source"]).name for r in run.manifest) == Counter(NAMES)
    assert not any(record["error"] for record in run.manifest)


def test_a_file_that_is_gone_is_made_again(run: Runner) -> None:
    run()
    (run.out / run.manifest[1]["outputs"][0]).unlink()
    assert run(resume=True) == [NAMES[1]]
    run.check_whole()


def test_the_same_command_again_replaces_its_own_files(run: Runner) -> None:
    run()
    written = {path.name for path in outputs(run.out)}
    assert run() == NAMES
    assert run.kept and run.kept.replaced == 5
    assert {path.name for path in outputs(run.out)} == written
    run.check_whole()


def test_what_another_run_or_another_input_wrote_stays(run: Runner, tmp_path: Path) -> None:
    run()
    before = {path.name: path.read_bytes() for path in outputs(run.out)}
    run(alpha=0.2)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run.pictures, elsewhere)
    Image.new("RGB", (60, 60), "white").save(elsewhere / NAMES[0])
    run(named=str(elsewhere))
    after = {path.name: path.read_bytes() for path in outputs(run.out)}
    assert before.items() <= after.items()
    assert len(after) == 3 * len(before)
    assert len({tuple(record["outputs"]) for record in run.manifest if record["outputs"]}) == 15


def test_a_foreign_file_is_not_overwritten(run: Runner) -> None:
    run.out.mkdir()
    name = _name_of_the_first(run)
    shutil.rmtree(run.out)
    run.out.mkdir()
    (run.out / name).write_bytes(b"mine")
    run()
    assert (run.out / name).read_bytes() == b"mine"
    assert run.manifest[0]["outputs"][0].startswith(name.removesuffix(".png") + "~")


def _name_of_the_first(run: Runner) -> str:
    run()
    name: str = run.manifest[0]["outputs"][0]
    return name


def test_a_single_file_keeps_nothing(run: Runner, tmp_path: Path) -> None:
    one = tmp_path / "one" / "a.png"
    run(named=str(run.pictures / NAMES[0]), save_path=one)
    assert [path.name for path in one.parent.iterdir()] == ["a.png"]


def test_a_list_names_categories(run: Runner, tmp_path: Path) -> None:
    rows = [f"in/{NAMES[0]},7", f"in/{NAMES[1]},", f"in/{NAMES[2]},no such thing"]
    listed = tmp_path / "list.csv"
    listed.write_text("\n".join(["path,category", *rows]))
    run(named=f"@{listed}")
    first, second, third = run.manifest
    assert first["category"] == 7 and first["rank"] > 1
    assert second["rank"] == 1
    assert "Unknown category 'no such thing'" in third["error"]
    for also in ({"top_k": 2}, {"target_category": ["1"]}):
        with pytest.raises(UsageError, match="leave --target-category and --top-k out"):
            run(named=f"@{listed}", **also)


def test_a_list_of_categories_needs_classes(tmp_path: Path) -> None:
    module = Staged()
    module.num_classes = 0
    size = Preprocessing((64, 64), (64, 64))
    headless = Classifier(module, "none", "python", size, None, "", 0)
    listed = tmp_path / "list.csv"
    listed.write_text("path,category\na.png,7\n")
    run = Runner(headless, tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="has no classes"):
        run(named=f"@{listed}", method=["eigencam"], target_layers=["last"])
