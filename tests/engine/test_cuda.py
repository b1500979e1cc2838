"""A GPU gives the maps of the CPU, in order, as fast as it can, and is left as it was found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import camcli
from camcli.cli.app import main
from camcli.config import from_keywords
from camcli.engine.answer_request import answer_request
from camcli.engine.compile import compile_model
from camcli.engine.device.batch_size import find_largest_batch, measure_memory
from camcli.engine.device.device_timer import DeviceTimer
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.targets import TopKCategories
from camcli.media.network_input import make_view
from camcli.media.pictures.read import make_picture
from camcli.methods.postprocessing import normalise
from camcli.models.load import Classifier
from camcli.pipeline import make_plan
from camcli.records import Precision
from camcli.registry import METHODS
from tests.checkout import ROOT
from tests.engine.device.test_precision import ATTENTION, FEW
from tests.networks import Staged, network_for, noise

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = torch.device("cuda")
PHOTOS = ("cat_and_coffee.jpg", "chelsea.png")
GIB = 2**30


@cache
def _classifier(name: str, device: str) -> Classifier:
    return camcli.load_model(name, pretrained=name == "embedded", device=device)


@cache
def _photos(name: str) -> Tensor:
    preprocessing = _classifier(name, "cpu").preprocessing
    pictures = [make_picture(ROOT / "demo_images" / photo) for photo in PHOTOS]
    return torch.stack([make_view(picture, preprocessing).inputs for picture in pictures])


@pytest.fixture
def flags() -> Iterator[tuple[bool, bool]]:
    """Settings of the caller's that are not torch's own, which a run has to put back."""
    owners = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [owner.allow_tf32 for owner in owners]
    for owner, value in zip(owners, (True, False), strict=True):
        owner.allow_tf32 = value
    yield True, False
    for owner, value in zip(owners, before, strict=True):
        owner.allow_tf32 = value


def _flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


# --- the maps


@pytest.mark.parametrize("name", METHODS)
def test_cuda_gives_the_maps_of_the_cpu(name: str) -> None:
    expected = camcli.heatmaps(network_for(name), noise(), name, targets=[1, 2])
    heatmap = camcli.heatmaps(network_for(name).cuda(), noise(), name, targets=[1, 2])
    assert heatmap.device.type == "cuda"
    torch.testing.assert_close(heatmap.cpu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_photos_have_the_same_maps(name: str) -> None:
    model = "timm/test_vit" if name in ATTENTION else "embedded"
    cpu = _classifier(model, "cpu").module
    options: dict[str, Any] = {"targets": [25, 99], "set": FEW.get(name)}
    expected = camcli.heatmaps(cpu, _photos(model), name, **options)
    heatmap = camcli.heatmaps(deepcopy(cpu).cuda(), _photos(model), name, **options)
    torch.testing.assert_close(normalise(heatmap.cpu()), normalise(expected), rtol=0, atol=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "auto"])
@pytest.mark.parametrize("name", METHODS)
def test_maps_in_half_precision_are_those_in_float32(name: str, precision: Precision) -> None:
    model = "timm/test_vit" if name in ATTENTION else "embedded"
    module, photos = _classifier(model, "cuda").module, _photos(model)
    options: dict[str, Any] = {"targets": [25, 99], "set": FEW.get(name)}
    expected = camcli.heatmaps(module, photos, name, **options)
    heatmap = camcli.heatmaps(module, photos, name, precision=precision, **options)
    assert heatmap.dtype == torch.float32 and not torch.equal(heatmap, expected)
    for one, other in zip(expected.cpu(), heatmap.cpu(), strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98


def test_a_map_does_not_depend_on_its_neighbours() -> None:
    module = _classifier("embedded", "cuda").module
    photos = _photos("embedded")
    together = camcli.heatmaps(module, photos, "gradcam", targets=[25, 99])
    alone = [
        camcli.heatmaps(module, photos[i : i + 1], "gradcam", targets=[target])
        for i, target in enumerate((25, 99))
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("auto", True)])
def test_tf32_is_only_in_what_is_not_float32(
    precision: Precision, allowed: bool, flags: tuple[bool, bool]
) -> None:
    network, seen = Staged().cuda(), []
    network.fc.register_forward_pre_hook(lambda *_: seen.append(_flags()))
    camcli.heatmaps(network, noise(), precision=precision, target_layers="last")
    assert set(seen) == {(allowed, allowed)}
    assert _flags() == flags


# --- the model, the caller's settings and memory


def test_the_model_and_the_random_numbers_are_left_as_they_were() -> None:
    network = Staged().cuda().train()
    network.pool = nn.Sequential(network.pool, nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.cuda.get_rng_state()
    camcli.heatmaps(network, noise(), ["gradcam", "ablationcam", "rise"], target_layers="last")
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert all(p.grad is None for p in network.parameters())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_nothing_stays_on_the_device() -> None:
    network, held = Staged().cuda(), []
    for _ in range(5):
        camcli.heatmaps(network, noise(8), ["gradcam", "scorecam", "ablationcam"])
        held.append(torch.cuda.memory_allocated())
    # libraries take their working space at the first call
    assert set(held[1:]) == {held[1]}


def test_a_batch_that_does_not_fit_is_halved_and_goes_on() -> None:
    module = _classifier("embedded", "cuda").module
    photos = _photos("embedded")
    inputs = photos[[i % 2 for i in range(4096)]].cuda()
    few = camcli.heatmaps(module, photos, targets=[25, 99])
    seen: list[int] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_allocated() + 2 * GIB
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        maps = camcli.heatmaps(module, inputs, targets=[25, 99] * 2048)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        handle.remove()
    assert seen[0] == 4096 and max(seen[-2:]) < 4096 and len(maps) == 4096
    expected = few[[i % 2 for i in range(4096)]]
    torch.testing.assert_close(maps, expected, rtol=1e-2, atol=1e-3)


def test_auto_finds_a_batch_by_the_memory_of_the_device() -> None:
    classifier = _classifier("embedded", "cuda")
    plan = make_plan(classifier, from_keywords(batch_size="auto"))
    assert plan.batch_size == plan.request.chunk == 256
    # what four pictures take is measured, not guessed
    size, module = classifier.preprocessing.size, classifier.module
    request = make_plan(classifier, from_keywords()).request
    actual = find_largest_batch(module, request, (3, *size), lambda n: plan.choice([None] * n))
    assert actual == 256
    one = torch.empty(GIB // 4, device=GPU)
    del one
    taken = measure_memory(GPU, lambda: torch.empty(GIB // 4, device=GPU).fill_(1).sum())  # type: ignore[arg-type,return-value]
    assert GIB <= taken < 1.01 * GIB


def test_time_is_that_of_the_device() -> None:
    torch.cuda.synchronize()
    clock = DeviceTimer(GPU)
    torch.cuda._sleep(200_000_000)
    clock.stop()
    again = DeviceTimer(GPU)
    again.stop()
    assert 0.05 < clock.seconds < 2 and again.seconds < 0.01


@pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler, which Triton needs")
@pytest.mark.filterwarnings("ignore")  # torch's own, of old names inside
def test_compiled_blocks_give_the_same_maps() -> None:
    pytest.importorskip("triton")
    torch.compiler.reset()
    module = camcli.load_model("timm/test_resnet", pretrained=False, device="cuda").module
    inputs = noise(4, size=(64, 64)).cuda()
    request = ExplainRequest(("gradcam",), ("layer4",), chunk=4)
    expected = answer_request(module, inputs, TopKCategories(), request).maps["gradcam"]["layer4"]
    with compile_model(module, request, (3, 64, 64), 4) as blocks:
        actual = answer_request(module, inputs, TopKCategories(), request).maps["gradcam"]["layer4"]
    assert blocks > 0
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


# --- the command and the pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine pictures, one of which cannot be read."""
    place = tmp_path / "in"
    place.mkdir()
    with Image.open(ROOT / "demo_images" / PHOTOS[0]) as photo:
        for number in range(9):
            photo.rotate(10 * number).resize((320, 200 + 10 * number)).save(place / f"{number}.png")
    (place / "4.png").write_bytes(b"no picture")
    return place


def _run(folder: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    command = [str(folder), "--save-path", str(out), "-q", "-b", "2", *options]
    assert main(command) == 1
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("workers", ["0", "4"])
def test_a_folder_comes_out_in_order_as_on_the_cpu(
    workers: str, folder: Path, tmp_path: Path
) -> None:
    cpu, gpu = tmp_path / "cpu", tmp_path / "gpu"
    expected = _run(folder, cpu, "--device", "cpu", "-j", workers)
    actual = _run(folder, gpu, "--device", "cuda", "-j", workers)
    assert [Path(record["source"]).name for record in actual] == [f"{i}.png" for i in range(9)]
    assert [bool(record["error"]) for record in actual] == [i == 4 for i in range(9)]
    for one, other in zip(expected, actual, strict=True):
        if one["error"]:
            continue
        assert other["category"] == one["category"] and other["outputs"] == one["outputs"]
        assert other["probability"] == pytest.approx(one["probability"], abs=1e-4)
        assert 0 < other["seconds"] < 10
        with Image.open(cpu / one["outputs"][0]) as a, Image.open(gpu / other["outputs"][0]) as b:
            apart = np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16))
        assert apart.mean() < 0.5


def test_a_run_tells_what_it_waits_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(folder, tmp_path / "out", "--device", "cuda", "--profile", "--batch-size", "auto")
    said = capsys.readouterr().err
    assert "fetch " in said and "forward " in said


def test_pictures_from_python_are_explained_on_the_device() -> None:
    explained = {
        device: list(
            camcli.explain(
                _classifier("embedded", device),
                [ROOT / "demo_images" / photo for photo in PHOTOS],
                method=["gradcam", "dff", "fullgrad", "guidedgradcam"],
                top_k=2,
                set={"dff.concepts": 2},
            )
        )
        for device in ("cpu", "cuda")
    }
    for one, other in zip(explained["cpu"], explained["cuda"], strict=True):
        assert (one.method, one.label) == (other.method, other.label)
        scale = np.abs(one.heatmap).max()
        np.testing.assert_allclose(other.heatmap / scale, one.heatmap / scale, rtol=0, atol=1e-3)
        assert one.details.keys() == other.details.keys()
