"""Who takes part: the bare pass, camviz, grad-cam and torch-cam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.compile import compile_model
from camcli.engine.device.precision import use_precision
from camcli.engine.explain_request import ExplainRequest
from camcli.methods.postprocessing import enlarge, has_contrast, normalise
from camcli.models.acceleration.faster_forwards import accelerate
from camcli.models.acceleration.prepack_cache import PrepackCache
from camcli.models.load import Classifier
from tests.benchmarks.rows import NETWORKS, PACKED, PEERS, BenchmarkRow, Network

Contender = Callable[[], Any]
BATCHES = (8, 16, 32)


@lru_cache(1)
def _classifier(name: str, device: torch.device) -> Classifier:
    return camcli.load_model(f"timm/{name}", pretrained=False, device=device)


class Scene:
    """A row's model with its inputs, and the classes that are explained."""

    def __init__(self, row: BenchmarkRow, device: torch.device) -> None:
        self.row, self.network = row, NETWORKS[row.network]
        classifier = _classifier(row.network, device)
        self.module: nn.Module = classifier.module.to(memory_format=torch.channels_last)
        draw = torch.Generator().manual_seed(0)
        side = classifier.preprocessing.size[0]
        # smooth blobs: every stage has something to say
        blobs = enlarge(torch.randn(row.batch, 3, 9, 9, generator=draw), (side, side))
        self.inputs = blobs.to(device).contiguous(memory_format=torch.channels_last)
        self.size, self.device = (side, side), device
        # the best class's logit is positive, without which ablations turn grad-cam's map over
        self.category = int(_bare(self, self.inputs)()[0].argmax())

    def passes(self) -> int:
        """How many passes of a picture a row is measured against, for each of its batch."""
        if self.row.passes is not None:
            return self.row.passes
        maps = camcli.activations(self.module, self.inputs[:1], self.network.layer)
        return int(has_contrast(maps[self.network.layer][0]).sum())

    def bare(self, batch: int) -> Contender:
        """Returns the bare pass of so many pictures."""
        repeated = self.inputs[[i % len(self.inputs) for i in range(batch)]]
        return _bare(self, repeated.contiguous(memory_format=torch.channels_last))

    def contenders(self, stack: ExitStack, *, peers: bool) -> dict[str, Contender]:
        """Returns all but the bare pass, by name; what is compiled is so until the stack's end."""
        module = stack.enter_context(_compile(self)) if self.row.compiled else self.module
        row = self.row
        actual: dict[str, Contender] = {"camviz": _ours(self, module)}
        if row.packs and self.device.type == "cpu":
            actual[PACKED] = _prepack(module, actual["camviz"])
        if (
            peers
            and row.peers
            and len(row.methods) == 1
            and row.categories == 1
            and row.methods[0] in PEERS
        ):
            actual |= _peers(self, self.network)
        return actual


def _bare(scene: Scene, inputs: Tensor) -> Contender:
    def run() -> Tensor:
        with torch.inference_mode(), use_precision(scene.row.precision, scene.device):
            logits: Tensor = scene.module(inputs)
        return logits

    return run


@contextmanager
def _compile(scene: Scene) -> Iterator[nn.Module]:
    """Gives a copy of a scene's model whose blocks are compiled."""
    module = deepcopy(scene.module)
    batch, *shape = scene.inputs.shape
    request = ExplainRequest(
        scene.row.methods, (scene.network.layer,), precision=scene.row.precision
    )
    with compile_model(module, request, (shape[0], shape[1], shape[2]), batch):
        yield module


def _ours(scene: Scene, module: nn.Module) -> Contender:
    row, n = scene.row, scene.row.categories
    chosen: list[Any] = [list(range(n))] if n > 1 else [scene.category]

    def run() -> Tensor:
        maps = camcli.heatmaps(
            module,
            scene.inputs,
            row.methods,
            target_layers=scene.network.layer,
            targets=chosen * len(scene.inputs),
            precision=row.precision,
            set=row.options,
        )
        return torch.stack([enlarge(normalise(m), scene.size) for m in maps.values()])[0]

    return run


def _prepack(module: nn.Module, ours: Contender) -> Contender:
    """Returns ours as in the block of one `packed`, which lays weights out at the second call."""
    prepack_cache = PrepackCache()

    def run() -> Tensor:
        # not one block around all: the bare pass is of the same model, and takes its turn
        with accelerate(module, prepack_cache):
            maps: Tensor = ours()
        return maps

    return run


def _peers(scene: Scene, network: Network) -> dict[str, Contender]:
    import pytorch_grad_cam
    import tqdm
    from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam import methods as torchcam

    method = scene.row.methods[0]
    # as their users have them: neither package lays a model or its inputs out channels last
    module = deepcopy(scene.module).to(memory_format=torch.contiguous_format)
    inputs = scene.inputs.contiguous()
    theirs, other = PEERS[method]
    layer = module.get_submodule(network.layer)
    targets = [ClassifierOutputTarget(scene.category)] * len(inputs)
    options: dict[str, Any] = {"reshape_transform": network.reshape}

    def grad_cam() -> Any:
        if method == "ablationcam":
            options["ablation_layer"] = AblationLayerVit() if network.reshape else AblationLayer()
        cam = getattr(pytorch_grad_cam, theirs)(module, [layer], **options)
        try:
            with patch("tqdm.tqdm", partial(tqdm.tqdm, disable=True)):
                return cam(inputs.clone(), targets=targets)
        finally:
            cam.activations_and_grads.release()

    def torch_cam() -> Any:
        with getattr(torchcam, other)(module, network.layer) as extractor:
            logits = module(inputs.clone().requires_grad_())
            (maps,) = extractor([scene.category] * len(inputs), logits)
        return enlarge(maps, scene.size)

    actual: dict[str, Contender] = {"grad-cam": grad_cam}
    if other and network.reshape is None:
        actual["torch-cam"] = torch_cam
    return actual


@contextmanager
def compare_alike() -> Iterator[None]:
    """Gives grad-cam our normalising and enlarging, which are no part of a method's formula.

    It adds 1e-7 to a map's largest value, which decides the maps of random weights, and puts the
    corners' centres of Score-CAM's masks at the corners.
    """

    def scale_cams(cams: np.ndarray, target_size: tuple[int, int] | None = None) -> np.ndarray:
        maps = normalise(torch.from_numpy(np.asarray(cams)).float())
        return (maps if target_size is None else enlarge(maps, target_size[::-1])).numpy()

    def make_enlarge(size: Any) -> Callable[[Tensor], Tensor]:
        return lambda maps: enlarge(maps, tuple(size))

    with (
        patch("pytorch_grad_cam.base_cam.scale_cam_image", scale_cams),
        patch("torch.nn.UpsamplingBilinear2d", make_enlarge),
    ):
        yield
