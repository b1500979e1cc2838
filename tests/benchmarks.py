"""Times camviz beside the bare forward pass and the peers: `python -m tests.benchmarks`.

Every contender takes its turn in every round, the order turning, so that a busy machine slows all
of them; what counts is the ratio to the bare pass of the same round, which is in inference mode and
channels_last.  camviz goes from inputs to maps of the picture's size, ready to draw.  Needs the
extra `peers`; prints the table and, with `--json FILE`, writes every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import camcli
from camcli.methods.compose import enlarge, normalise
from tests.peers.test_grad_cam import nhwc, tokens

# our name: grad-cam's, torch-cam's (where its formula is sound)
PEERS: Mapping[str, tuple[str, str]] = {
    "gradcam": ("GradCAM", "GradCAM"),
    "gradcam++": ("GradCAMPlusPlus", ""),
    "xgradcam": ("XGradCAM", "XGradCAM"),
    "layercam": ("LayerCAM", "LayerCAM"),
    "hirescam": ("HiResCAM", ""),
    "gradcamelementwise": ("GradCAMElementWise", ""),
    "fem": ("FEM", ""),
    "eigencam": ("EigenCAM", ""),
    "eigengradcam": ("EigenGradCAM", ""),
    "ablationcam": ("AblationCAM", ""),
    "scorecam": ("ScoreCAM", "ScoreCAM"),
}
NINE = tuple(PEERS)[:9]
EIGEN = ("eigencam", "eigengradcam")


@dataclass(frozen=True)
class Network:
    """A model with random weights, its target layer, and how a peer is told of its tokens."""

    name: str
    layer: str
    reshape: Callable[[Tensor], Tensor] | None = None
    bar: float = 1.10


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet50", "layer4"),
        Network("convnext_tiny", "stages"),
        Network("swin_tiny_patch4_window7_224", "norm", nhwc),
        Network("vit_base_patch16_224", "blocks.11.norm1", tokens, 1.25),
        Network("resnet18", "layer4"),
    )
}
Contender = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """What is timed: some methods of a model at a batch, and the bar for our ratio.

    Slow methods take as many passes as stand in `passes`, of a whole batch each.
    """

    network: str
    methods: tuple[str, ...]
    batch: int = 1
    categories: int = 1
    bar: float | None = None
    passes: int = 1
    rounds: int = 15
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        what = ", ".join(self.methods) if len(self.methods) < 3 else f"{len(self.methods)} methods"
        several = f", top {self.categories}" if self.categories > 1 else ""
        return f"{what}{several}, {self.network}, batch {self.batch}"


@dataclass(frozen=True)
class Measured:
    """A row's figures: seconds of the bare pass, and each contender's ratios to it."""

    row: Row
    bare: float
    ratios: Mapping[str, list[float]]
    apart: float | None

    def median(self, contender: str) -> float:
        return statistics.median(self.ratios[contender])


def rows() -> Iterator[Row]:
    """Lists what issue 5 sets a bar for."""
    for name in list(NETWORKS)[:4]:
        bar = NETWORKS[name].bar
        for batch in (1, 8):
            for method in NINE:
                high = 1.15 if method in EIGEN and bar < 1.15 else bar
                yield Row(name, (method,), batch, bar=high, rounds=15 if batch == 1 else 7)
    yield Row("resnet50", NINE, 1, bar=1.25)
    for name in list(NETWORKS)[:4]:
        yield Row(name, ("gradcam",), 1, 5, 1.7 if "vit" in name else 1.15)
    for name in ("resnet18", "resnet50"):
        yield Row(name, ("ablationcam",), rounds=3)
    yield Row("vit_base_patch16_224", ("ablationcam",), rounds=1)
    yield Row("resnet18", ("scorecam",), 32, passes=16, rounds=2, bar=1.10)


def measured(row: Row, device: torch.device, *, peers: bool = True) -> Measured:
    """Times a row's contenders in turns."""
    network = NETWORKS[row.network]
    classifier = camcli.load_model(f"timm/{row.network}", pretrained=False, device=device)
    module = classifier.module.to(memory_format=torch.channels_last)
    draw = torch.Generator().manual_seed(0)
    side = classifier.preprocessing.size[0]
    blobs = enlarge(torch.randn(row.batch, 3, 9, 9, generator=draw), (side, side))
    inputs = blobs.to(device).contiguous(memory_format=torch.channels_last)
    contenders = {"bare": lambda: _bare(module, inputs), "camviz": _ours(row, module, inputs)}
    if peers and len(row.methods) == 1 and row.categories == 1:
        contenders |= _peers(row, network, module, inputs)
    results = {name: run() for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(row.rounds):
        for name in order:
            times[name].append(_seconds(contenders[name], device))
        order = order[1:] + order[:1]
    ratios = {
        name: [t / (row.passes * b) for t, b in zip(taken, times["bare"], strict=True)]
        for name, taken in times.items()
        if name != "bare"
    }
    apart = None
    if "grad-cam" in results:
        theirs = normalise(torch.as_tensor(results["grad-cam"]).float())
        apart = float((normalise(results["camviz"].cpu()) - theirs).abs().max())
    return Measured(row, statistics.median(times["bare"]), ratios, apart)


def _bare(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = module(inputs)
    return logits


def _ours(row: Row, module: nn.Module, inputs: Tensor) -> Contender:
    n, layer = row.categories, NETWORKS[row.network].layer
    targets = [list(range(n))] * len(inputs) if n > 1 else [0] * len(inputs)
    size = (inputs.shape[-2], inputs.shape[-1])
    pictures = inputs[:1] if row.passes > 1 else inputs

    def run() -> Tensor:
        maps = camcli.heatmaps(
            module,
            pictures,
            row.methods,
            target_layers=layer,
            targets=targets[: len(pictures)],
            set=row.options,
        )
        return torch.stack([enlarge(normalise(m), size) for m in maps.values()])[0]

    return run


def _peers(row: Row, network: Network, module: nn.Module, inputs: Tensor) -> dict[str, Contender]:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam import methods as torchcam

    theirs, other = PEERS[row.methods[0]]
    layer = module.get_submodule(network.layer)
    pictures = inputs[:1] if row.passes > 1 else inputs
    targets = [ClassifierOutputTarget(0)] * len(pictures)

    def grad_cam() -> Any:
        options: dict[str, Any] = {"model": module, "target_layers": [layer]}
        options["reshape_transform"] = network.reshape
        if row.methods[0] == "ablationcam":
            from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit

            options["ablation_layer"] = AblationLayerVit() if network.reshape else AblationLayer()
        cam = getattr(pytorch_grad_cam, theirs)(**options)
        try:
            return cam(pictures.clone(), targets=targets)
        finally:
            cam.activations_and_grads.release()

    def torch_cam() -> Any:
        with getattr(torchcam, other)(module, network.layer) as extractor:
            logits = module(pictures.clone().requires_grad_())
            (maps,) = extractor([0] * len(pictures), logits)
        return enlarge(maps, (inputs.shape[-2], inputs.shape[-1]))

    found: dict[str, Contender] = {"grad-cam": grad_cam}
    if other and network.reshape is None and row.passes == 1:
        found["torch-cam"] = torch_cam
    return found


def _seconds(run: Contender, device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def table(found: Sequence[Measured]) -> Iterator[str]:
    """Writes one line a row."""
    yield "| what | bare pass | camviz | at most | grad-cam | torch-cam | maps apart |"
    yield "|---|---|---|---|---|---|---|"
    for m in found:
        ours = m.ratios["camviz"]
        low, high = (statistics.quantiles(ours, n=4)[i] for i in (0, 2)) if ours[1:] else ours * 2
        spread = f"{m.median('camviz'):.2f} ({low:.2f} to {high:.2f})"
        bar = f"{m.row.bar:.2f}" if m.row.bar else ""
        peers = [f"{m.median(p):.2f}" if p in m.ratios else "" for p in ("grad-cam", "torch-cam")]
        apart = "" if m.apart is None else f"{m.apart:.0e}"
        cells = (m.row.title, f"{m.bare * 1000:.0f} ms", spread, bar, *peers, apart)
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures the rows whose title holds the given words, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only rows whose title holds all of these")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-peers", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"  # the peers' progress bars
    found = []
    for row in rows():
        if all(word in row.title for word in args.words):
            found.append(measured(row, args.device, peers=not args.no_peers))
            print(list(table(found))[-1], flush=True)
    if args.json:
        where = {"machine": platform.processor(), "threads": torch.get_num_threads()}
        when = {"date": datetime.now(UTC).date().isoformat(), "torch": torch.__version__}
        figures = [{"row": asdict(m.row), "bare": m.bare, "ratios": m.ratios} for m in found]
        args.json.write_text(json.dumps({**when, **where, "figures": figures}))


if __name__ == "__main__":
    main()
