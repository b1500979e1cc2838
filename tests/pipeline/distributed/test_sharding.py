"""Runs that several processes share: which sources are whose, and how they are joined."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from camcli.cli.app import main
from camcli.config import Options, from_keywords
from camcli.errors import ConfigError, DeviceError, UsageError
from camcli.pipeline.distributed import sharding
from camcli.pipeline.distributed.ray_backend import RayWorkers, run_on_ray
from camcli.pipeline.shutdown import StopRequest
from camcli.records import Source
from camcli.runs import Manifest, RunInfo
from tests.runs.runs import PLAIN, explain, make_sources, read_records, run_to_end

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


@pytest.mark.parametrize("names", [TORCHRUN, SLURM])
def test_launchers_say_whose_share_it_is(names: tuple[str, str, str]) -> None:
    rank, world, _ = names
    assert sharding.find_shard({rank: "3", world: "8"}) == (3, 8)
    assert sharding.find_shard({rank: "0", world: "1"}) is None
    # one of them alone is somebody else's
    assert sharding.find_shard({rank: "3"}) is None
    assert sharding.find_shard({world: "8"}) is None


def test_torchrun_within_a_job_of_slurm_counts() -> None:
    environ = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "RANK": "5", "WORLD_SIZE": "16"}
    assert sharding.find_shard(environ) == (5, 16)
    assert sharding.find_shard({}) is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "8", "WORLD_SIZE": "8"}, "RANK=8 is not a rank among WORLD_SIZE=8"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 is not a rank among WORLD_SIZE=0"),
        ({"RANK": "-1", "WORLD_SIZE": "8"}, "RANK='-1' is not a whole number"),
        ({"RANK": "", "WORLD_SIZE": "8"}, "RANK='' is not a whole number"),
        ({"RANK": "²", "WORLD_SIZE": "8"}, "RANK='²' is not a whole number"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "two"}, "SLURM_NTASKS='two' is not a whole number"),
    ],
)
def test_numbers_that_make_no_share_are_refused(environ: Mapping[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        sharding.find_shard(environ)


@pytest.mark.parametrize("world", [1, 2, 3, 8, 30])
def test_shares_are_disjoint_complete_and_even(world: int) -> None:
    sources = make_sources(*(f"{n}.jpg" for n in range(23)))
    parts = [sharding.take_share(sources, (rank, world)) for rank in range(world)]
    assert sorted((s for part in parts for s in part), key=sources.index) == sources
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("seen", "device", "local", "expected"),
    [
        (8, "auto", "3", "cuda:3"),
        (8, "cuda", "3", "cuda:3"),
        (1, "cuda", "3", "cuda:0"),  # each process is shown its own alone
        (2, "auto", "5", "cuda:1"),
        (0, "auto", "3", "auto"),
        (8, "cpu", "3", "cpu"),
        (8, "cuda:0", "3", "cuda:0"),
        (8, "auto", None, "auto"),
    ],
)
@pytest.mark.parametrize("names", [TORCHRUN, SLURM])
def test_each_process_of_a_machine_has_its_gpu(
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, str, str],
    seen: int,
    device: str,
    local: str | None,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    environ = {names[0]: "11"} | ({} if local is None else {names[2]: local})
    assert sharding.choose_device(device, environ) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"save_path": "one.jpg"}, "name a folder"),
        ({"camera": 0}, "--camera is one source"),
        ({"scale": "run"}, "--scale MIN,MAX"),
    ],
)
def test_what_cannot_be_shared_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sharding.check_can_shard(from_keywords(**given))
    sharding.check_can_shard(from_keywords(scale="0,2"))


def test_shards_of_another_number_of_ranks_are_joined_first(tmp_path: Path) -> None:
    options = Options(save_path=tmp_path / "out")
    sharding.check_world(options, 2)
    run_to_end(tmp_path / "out", make_sources("a.jpg"), shard=(0, 2))
    sharding.check_world(options, 2)
    with pytest.raises(UsageError, match="shards of 2 ranks, and now there are 3: join them first"):
        sharding.check_world(options, 3)


def test_a_rank_that_goes_on_leaves_alone_what_another_one_wrote(tmp_path: Path) -> None:
    one, other = Source(Path("in/a.jpg")), Source(Path("in/deep/a.jpg"))
    run_to_end(tmp_path, [one], shard=(0, 2), until=0)
    run_to_end(tmp_path, [other], shard=(1, 2))
    with Manifest.open(tmp_path, RunInfo(PLAIN, shard=(0, 2)), "resume") as manifest:
        manifest.list_remaining([one])
        (made,) = explain(manifest, one, tmp_path)
    assert made.name.startswith("a_0~")
    assert (tmp_path / "a_0.jpg").read_text() == str(other)


# the command


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(5):
        Image.new("RGB", (32, 24), (50 * n, 9, 200)).save(folder / f"{n}.png")
    return folder


@pytest.mark.parametrize("names", [TORCHRUN, SLURM])
@pytest.mark.usefixtures("small_embedded")
def test_ranks_and_merge_find_every_picture_once(
    names: tuple[str, str, str],
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (pictures / "3.png").write_bytes(b"no picture")
    out = pictures.parent / "out"
    command = [str(pictures), "--save-path", str(out), "--device", "cpu"]
    for rank in range(2):
        for name, value in zip(names, (rank, 2, rank), strict=True):
            monkeypatch.setenv(name, str(value))
        # a rank does not fail with a picture: torchrun would end the others
        assert main(command) == 0
        message = capsys.readouterr().err
        assert f"rank {rank} of 2: {(3, 2)[rank]} of 5 pictures" in message
    shards = [f"manifest.rank-000{rank}-of-0002.jsonl" for rank in range(2)]
    done = [[Path(line["source"]).stem for line in read_records(out, name)] for name in shards]
    assert done == [["0", "2", "4"], ["1", "3"]]

    assert main(["merge", str(out)]) == 1
    assert (
        capsys.readouterr().out == f"{out / 'manifest.jsonl'}: 4 pictures, 4 heatmaps, 1 failed\n"
    )
    assert [Path(line["source"]).stem for line in read_records(out)] == ["0", "2", "4", "1", "3"]
    assert json.loads((out / "run.json").read_text())["shards"] == 2
    for name in names:
        monkeypatch.delenv(name)
    assert main([*command, "--resume"]) == 0
    assert "5 of 5 were done before" in capsys.readouterr().err


def test_merge_refuses_what_is_not_complete_unless_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_to_end(tmp_path, make_sources("a.jpg", "c.jpg"), shard=(0, 2))
    assert main(["merge", str(tmp_path)]) == 2
    assert "missing of 2: rank 1" in capsys.readouterr().err
    assert main(["merge", str(tmp_path), "--incomplete"]) == 0
    assert "2 pictures, 2 heatmaps" in capsys.readouterr().out
    assert main(["merge", str(tmp_path / "nowhere")]) == 2


def test_joined_too_early_and_gone_on_with_leaves_no_journal(tmp_path: Path) -> None:
    sources = make_sources("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    run_to_end(tmp_path, sources[0::2], shard=(0, 2))
    run_to_end(tmp_path, sources[1::2], shard=(1, 2), until=1)
    assert main(["merge", str(tmp_path), "--incomplete"]) == 0
    assert (tmp_path / ".camviz").exists()
    for rank in range(2):
        run_to_end(tmp_path, sources[rank::2], "resume", shard=(rank, 2))
    assert main(["merge", str(tmp_path)]) == 0
    assert len(read_records(tmp_path)) == 4
    assert not (tmp_path / ".camviz").exists()


def test_a_share_goes_into_no_single_file(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([str(pictures / "0.png"), "--save-path", str(pictures.parent / "one.png")]) == 2
    assert "name a folder" in capsys.readouterr().err


# Ray, without it


class FakeRay:
    def __init__(self, *nodes: dict[str, float]) -> None:
        self._nodes = [{"Resources": node, "Alive": True} for node in nodes]
        self._nodes.append({"Resources": {"CPU": 99, "GPU": 99}, "Alive": False})

    def nodes(self) -> list[dict[str, object]]:
        return self._nodes


@pytest.mark.parametrize(
    ("nodes", "asked", "count", "needs", "device", "threads"),
    [
        ([{"CPU": 32, "GPU": 8}], None, 8, {"num_gpus": 1, "num_cpus": 0}, "cuda", 4),
        ([{"CPU": 32, "GPU": 8}] * 2, None, 16, {"num_gpus": 1, "num_cpus": 0}, "cuda", 4),
        ([{"CPU": 32, "GPU": 8}], 16, 16, {"num_gpus": 0.5, "num_cpus": 0}, "cuda", 2),
        ([{"CPU": 99, "GPU": 1}], None, 1, {"num_gpus": 1, "num_cpus": 0}, "cuda", 8),
        # a head without a GPU takes none
        ([{"CPU": 2}, {"CPU": 16, "GPU": 4}], None, 4, {"num_gpus": 1, "num_cpus": 0}, "cuda", 4),
        ([{"CPU": 8}], None, 8, {"num_cpus": 1}, "cpu", 0),
        ([{"CPU": 8}], 2, 2, {"num_cpus": 4}, "cpu", 4),
        ([{"CPU": 4}] * 3, 4, 4, {"num_cpus": 2}, "cpu", 2),
        ([{"CPU": 2}], 4, 4, {"num_cpus": 0.5}, "cpu", 0),
        ([{"CPU": 64}], None, 20, {"num_cpus": 3}, "cpu", 3),  # no more than pictures
    ],
)
def test_workers_are_placed_where_they_fit(
    nodes: list[dict[str, float]],
    asked: int | None,
    count: int,
    needs: dict[str, float],
    device: str,
    threads: int,
) -> None:
    workers = RayWorkers.of(FakeRay(*nodes), Options(ray_workers=asked), 20)
    actual = workers.options
    assert (workers.count, workers.needs) == (count, needs)
    assert (actual.device, actual.workers) == (device, threads)


@pytest.mark.parametrize(
    ("nodes", "asked", "given"),
    [(1, 0.5, 0.125), (2, 0.5, 0.25), (3, 0.5, 0.25), (1, 2**30, 2**30)],
)
def test_workers_of_one_machine_share_its_memory(nodes: int, asked: float, given: float) -> None:
    options = Options(ray_workers=4, max_memory=asked)
    workers = RayWorkers.of(FakeRay(*[{"CPU": 8}] * nodes), options, 20)
    assert workers.options.max_memory == given


def test_ray_chooses_the_gpus() -> None:
    gpus, cpus = FakeRay({"CPU": 4, "GPU": 2}), FakeRay({"CPU": 4})
    assert RayWorkers.of(gpus, Options(device="cpu"), 20).needs == {"num_cpus": 1}
    for ray, device in ((gpus, "cuda:1"), (gpus, "mps"), (cpus, "cuda")):
        with pytest.raises(DeviceError, match=f"--device {device}"):
            RayWorkers.of(ray, Options(device=device), 20)


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    outcomes = run_on_ray(
        make_sources("a.jpg"), Options(engine="ray"), lambda _: None, StopRequest(), lambda _: None
    )
    with pytest.raises(UsageError, match=r"pip install 'camviz\[ray\]'"):
        next(outcomes)


def test_a_cluster_that_does_not_answer_is_given_up_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{nobody.getsockname()[1]}")
        options = Options(engine="ray", save_path=tmp_path / "out")
        outcomes = run_on_ray(
            make_sources("a.jpg"), options, lambda _: None, StopRequest(), lambda _: None
        )
        with pytest.raises(UsageError, match="Cannot join the Ray cluster at RAY_ADDRESS=127"):
            next(outcomes)


def test_ray_workers_are_for_ray() -> None:
    assert from_keywords(engine="Ray", ray_workers=2).ray_workers == 2
    with pytest.raises(UsageError, match="--ray-workers 2 is for --engine ray"):
        from_keywords(ray_workers=2)
    with pytest.raises(ConfigError, match="local or ray"):
        from_keywords(engine="dask")


def test_ray_is_started_once(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([str(pictures), "--engine", "ray"]) == 2
    assert "start camviz once" in capsys.readouterr().err
