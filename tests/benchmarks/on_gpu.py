"""What only a GPU is asked: the maps of the CPU, and what a folder waits for."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import camcli
from camcli.config import Options, from_keywords
from camcli.media.pictures.read import read_picture
from camcli.methods.postprocessing import normalise
from camcli.models.load import Classifier
from camcli.pipeline import run_sources
from camcli.pipeline.plan import Plan, make_plan
from camcli.pipeline.run_state import open_run
from camcli.pipeline.stages import PreparedPicture, explain_batch, prepare
from camcli.pipeline.workers.worker_pool import WorkerPool, default_workers, start_workers
from camcli.pipeline.writing.color_scale import ColorScales
from camcli.pipeline.writing.output_writer import OutputWriter
from camcli.records import Source
from camcli.utils.cpu import count_cores
from tests.benchmarks.commands import pictures
from tests.benchmarks.contenders import Scene
from tests.benchmarks.rows import NINE, USUAL, BenchmarkRow
from tests.checkout import ROOT

PICTURES = 1000
ROUNDS = 3
# processes that share a GPU, of which a machine with 16 cores has two for each
RANKS, SHARED = 8, 1500
# pictures a second of one process that others decode and draw for, and the cores that it keeps
BY_PROCESSES, LEAST = "the whole run with --processes", 700
CORES_OF_THE_RUN = 2
GPU = torch.device("cuda")


def devices() -> list[dict[str, Any]]:
    """Finds how far maps of the GPU are from those of the CPU, both from 0 to 1, in float32."""
    results = []
    for name in ("resnet50", "convnext_tiny", "vit_base_patch16_224"):
        scene = Scene(BenchmarkRow(name, NINE, 2), GPU)
        layer, asked = scene.network.layer, {"targets": [scene.category] * 2}
        gpu = camcli.heatmaps(scene.module, scene.inputs, NINE, target_layers=layer, **asked)
        module, inputs = scene.module.to("cpu"), scene.inputs.cpu()
        cpu = camcli.heatmaps(module, inputs, NINE, target_layers=layer, **asked)
        scene.module.to(GPU)
        apart = max(
            float((normalise(gpu[method].cpu()) - normalise(cpu[method])).abs().max())
            for method in NINE
        )
        title = f"{len(NINE)} methods, {name}: largest difference of CUDA's maps to the CPU's"
        results.append({"title": title, "value": apart, "bar": None, "unit": ""})
    return results


def folder() -> list[dict[str, Any]]:
    """Takes the pictures a second of a whole run, and of each of its parts by itself."""
    with tempfile.TemporaryDirectory() as place:
        pictures(Path(place, "in"), PICTURES)
        classifier = camcli.load_model("timm/resnet50", pretrained=False, device=GPU)
        return [
            {
                "title": f"{PICTURES} JPEGs of 500x375, resnet50, gradcam, bf16: {what}",
                "value": rate,
                "bar": LEAST if what == BY_PROCESSES else None,
                "unit": "pictures/s",
            }
            for what, rate in _rates(Path(place), classifier).items()
        ]


def ranks() -> list[dict[str, Any]]:
    """Takes the pictures a second of some processes that share a GPU, behind their start."""
    with tempfile.TemporaryDirectory() as place:
        pictures(Path(place, "in"), SHARED)
        command = f"""torchrun --standalone --nproc-per-node {RANKS} --no-python
            {sys.executable} -m camcli {place}/in -m timm/resnet50 --no-pretrained --device cuda
            --precision bf16 -b 64 -j 2 -q --save-path {place}/out"""
        subprocess.run(command.split(), cwd=ROOT, check=True, capture_output=True)
        summaries = Path(place, "out").glob("run.rank-*.json")
        seconds = max(json.loads(path.read_text())["seconds"] for path in summaries)
    title = f"{SHARED} JPEGs of 500x375, resnet50, gradcam, bf16: {RANKS} processes on one GPU"
    return [{"title": title, "value": SHARED / seconds, "bar": None, "unit": "pictures/s"}]


def _rates(place: Path, classifier: Classifier) -> dict[str, float]:
    sources = [Source(path) for path in sorted((place / "in").iterdir())]
    options = from_keywords(precision="bf16", batch_size=USUAL, save_path=place / "parts")
    plan = make_plan(classifier, options)
    count = default_workers("cuda")
    with open_run(plan, sources, options) as state, start_workers(count) as pool:
        parts = _Parts(plan, OutputWriter(plan, options, state, ColorScales(None)), pool)
        views = parts.read(sources)
        explained = parts.explain(views)
        rates = {
            f"reading by itself, {count} threads": _rate(lambda: parts.read(sources), PICTURES),
            "the bare pass by itself, pictures on the device": parts.bare_rate(views),
            "the model's maps by itself": _rate(lambda: parts.explain(views), PICTURES),
            f"drawing and writing by itself, {count} threads": _rate(
                lambda: parts.write(explained), PICTURES
            ),
        }
    processes = {"processes": max(1, count_cores() - CORES_OF_THE_RUN)}
    for title, changed in (("the whole run", {}), (BY_PROCESSES, processes)):
        chosen = options.model_copy(update=changed)
        outs = [place / f"{len(changed)}-{n}" for n in range(ROUNDS)]
        whole = [_whole(classifier, sources, chosen, out) for out in outs]
        rates[title] = sorted(whole)[ROUNDS // 2]
    return rates


class _Parts:
    """A run's parts, each by itself, with the run's own threads."""

    def __init__(self, plan: Plan, writer: OutputWriter, pool: WorkerPool) -> None:
        self.plan, self.writer, self.pool = plan, writer, pool

    def read(self, sources: Sequence[Source]) -> list[PreparedPicture]:
        def one(source: Source) -> PreparedPicture:
            return prepare(read_picture(source), self.plan)

        return [begun.result() for begun in [self.pool.submit(one, s) for s in sources]]

    def explain(self, views: Sequence[PreparedPicture]) -> list[Any]:
        batches = [views[i : i + USUAL] for i in range(0, len(views), USUAL)]
        return [one for batch in batches for one in explain_batch(batch, self.plan)]

    def write(self, explained: Sequence[Any]) -> list[Any]:
        def one(explanations: Any) -> list[Any]:
            return list(self.writer.write(explanations))

        return [begun.result() for begun in [self.pool.submit(one, e) for e in explained]]

    def bare_rate(self, views: Sequence[PreparedPicture]) -> float:
        module = self.plan.classifier.module.to(memory_format=torch.channels_last)
        inputs = torch.stack([view.view.inputs for view in views[:USUAL]]).to(GPU)
        inputs = inputs.contiguous(memory_format=torch.channels_last)

        def passes() -> None:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                for _ in range(10):
                    module(inputs)
            torch.cuda.synchronize()

        passes()
        return _rate(passes, 10 * USUAL)


def _rate(run_: Callable[[], Any], count: int) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run_()
        times.append(time.perf_counter() - begin)
    return count / sorted(times)[ROUNDS // 2]


def _whole(classifier: Classifier, sources: Sequence[Source], options: Options, out: Path) -> float:
    here = options.model_copy(update={"save_path": out})
    return _rate_once(lambda: list(run_sources(classifier, sources, here)), len(sources))


def _rate_once(run_: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter()
    run_()
    return count / (time.perf_counter() - begin)
