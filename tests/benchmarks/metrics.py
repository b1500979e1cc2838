"""Times our faithfulness metrics beside the bare passes, grad-cam's, torch-cam's and Quantus's.

`python -m tests.benchmarks.metrics` prints a JSON object a round: seconds of the processor, which a
busy machine changes less than those of the clock.  Needs the extra `peers`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import camcli
from camcli.metrics.faithfulness.deletion import plan_deletion
from camcli.metrics.faithfulness.insertion import plan_insertion
from camcli.metrics.faithfulness.road import plan_road
from camcli.metrics.perturbation.pass_plan import PassPlan, carry_out

SIDE, STEPS = 224, 20
SHARES = tuple((i + 1) / (STEPS + 1) for i in range(STEPS))
BATCH = 16


class MetricScene:
    """A network, a picture, a map of it that is smooth as class activation maps are, a class."""

    def __init__(self, name: str) -> None:
        model = camcli.load_model(f"timm/{name}", pretrained=False).module
        self.model: nn.Module = model.to(memory_format=torch.channels_last)
        draw = torch.Generator().manual_seed(0)
        self.image = torch.randn(3, SIDE, SIDE, generator=draw)
        coarse = torch.rand(1, 1, 7, 7, generator=draw)
        self.maps = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0]
        self.category = 7

    def score(self, images: Tensor) -> Tensor:
        """Gives the class's probability."""
        with torch.inference_mode():
            inputs = images.contiguous(memory_format=torch.channels_last)
            probabilities: Tensor = self.model(inputs).softmax(1)
        return probabilities[:, self.category]


def contenders(scene: MetricScene) -> dict[str, Callable[[], Any]]:
    """Returns what is timed, by name; each is for one map."""
    maps, image = scene.maps, scene.image
    makers: dict[str, Callable[[], PassPlan]] = {
        "insertion": lambda: plan_insertion(maps, image, steps=STEPS),
        "deletion": lambda: plan_deletion(maps, image, steps=STEPS),
        "road": lambda: plan_road(maps, image, shares=SHARES),
    }

    def ours(*names: str) -> Callable[[], Any]:
        return lambda: carry_out({n: makers[n]() for n in names}, image, scene.score, BATCH)

    def bare(count: int) -> Callable[[], Any]:
        batch = image.expand(BATCH, -1, -1, -1)
        return lambda: [scene.score(batch[: count - i]) for i in range(0, count, BATCH)]

    passes = 2 * (STEPS + 1) + 2 * STEPS + 1
    return {
        f"bare, {passes} passes": bare(passes),
        "camviz, insertion, deletion and road": ours("insertion", "deletion", "road"),
        "camviz, road": ours("road"),
        "camviz, deletion": ours("deletion"),
        "camviz, insertion and deletion": ours("insertion", "deletion"),
        "grad-cam, road": lambda: _grad_cam(scene),
        "torch-cam, insertion and deletion": lambda: _torch_cam(scene),
        "Quantus, pixel flipping": lambda: _quantus(scene),
    }


def _grad_cam(scene: MetricScene) -> Any:
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    metric = ROADCombined([100 * share for share in SHARES])
    targets = [ClassifierOutputSoftmaxTarget(scene.category)]
    return metric(scene.image[None], scene.maps.numpy(), targets, scene.model)


def _torch_cam(scene: MetricScene) -> Any:
    from torchcam.metrics import DeletionInsertionMetric

    class Extractor:
        model = scene.model

        def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
            return [scene.maps]

        def fuse_cams(self, cams: list[Tensor]) -> Tensor:
            return cams[0]

        @contextmanager
        def _hooks_off(self) -> Iterator[None]:
            yield

    metric = DeletionInsertionMetric(Extractor(), lambda x: x.softmax(1), steps=STEPS)
    metric.update(scene.image[None], scene.category)
    return metric.summary()


def _quantus(scene: MetricScene) -> Any:
    import quantus

    metric = quantus.PixelFlipping(
        # it has to divide the pixels, and counts single values: 21 steps
        features_in_step=SIDE * SIDE // 7,
        perturb_baseline=0.0,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    return metric(
        model=scene.model,
        x_batch=scene.image[None].numpy(),
        y_batch=np.array([scene.category]),
        a_batch=scene.maps[None].numpy(),
        device="cpu",
        channel_first=True,
    )


def main() -> None:
    """Measures each contender in turns, the order turning."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.metrics")
    parser.add_argument("words", nargs="*", help="only contenders with one of these in the name")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    scene = MetricScene(args.model)
    runs = contenders(scene)
    order = [name for name in runs if not args.words or any(w in name for w in args.words)]
    scene.score(scene.image[None])
    for _ in range(args.rounds):
        taken = {}
        for name in order:
            start = time.process_time()
            runs[name]()
            taken[name] = round(time.process_time() - start, 3)
        print(json.dumps(taken), flush=True)
        order = order[1:] + order[:1]


if __name__ == "__main__":
    main()
