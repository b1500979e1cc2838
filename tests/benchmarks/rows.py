"""What is timed, and the bars that it is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

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
# a call for itself, and one of many that follow one another
PACKED = "packed"
OURS = ("camviz", PACKED)
NINE = tuple(PEERS)[:9]
# pictures in a batch that is usual on a GPU, and in one that fills it
USUAL, LARGE = 128, 512
# of a single picture's passes on a CPU: medians of 15 rounds, on a machine that others use, too,
# differed by up to 0.04 from run to run
MOST_ROUNDS = 120
EIGEN = ("eigencam", "eigengradcam")


@dataclass(frozen=True)
class Network:
    """A model with random weights, its target layer, and how a peer reshapes its tokens."""

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
        Network("resnet18", "layer4", bar=1.06),
        Network("mobilenetv3_small_100", "blocks", bar=1.12),
        Network("convnext_atto", "stages", bar=1.06),
        Network("tf_efficientnet_lite0", "bn2", bar=1.06),
    )
}
# networks whose pass takes so little that what stands around it counts
SMALL = tuple(NETWORKS)[4:]


@dataclass(frozen=True)
class BenchmarkRow:
    """Some methods of a model at a batch, the bars, and how often it is timed.

    `bar` is what our ratio is to stay under, `faster` how many times faster than grad-cam we are to
    be.  Where a method needs many `passes` (None for one a live channel), the ratio is that to as
    many pictures in the best of three batches, and one picture is explained.
    """

    network: str
    methods: tuple[str, ...]
    batch: int = 1
    categories: int = 1
    bar: float | None = None
    faster: float | None = None
    passes: int | None = 1
    rounds: int = 15
    # so many at most, where the median of fewer is not sure
    most_rounds: int = 0
    precision: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    # grad-cam and torch-cam take part where they have such a method
    peers: bool = True
    # camviz with --compile, the others and the bare pass without
    compiled: bool = False

    @property
    def altering(self) -> bool:
        """Whether the method runs many passes of altered pictures."""
        return self.passes != 1

    @property
    def packs(self) -> bool:
        """Whether weights are prepacked between calls only inside `camcli.packed`."""
        return not self.altering and not self.compiled

    @property
    def title(self) -> str:
        """Names the row; no other one has that name."""
        what = ", ".join(self.methods) if len(self.methods) < 3 else f"{len(self.methods)} methods"
        several = f", top {self.categories}" if self.categories > 1 else ""
        precision = "" if self.precision == "float32" else f", {self.precision}"
        compiled = ", --compile" if self.compiled else ""
        return f"{what}{several}, {self.network}, batch {self.batch}{precision}{compiled}"

    @property
    def comparable(self) -> bool:
        """Whether the peer's map is the same by its definition.

        Components have an arbitrary sign, FEM is centred otherwise, and where activations are
        negative grad-cam sets an ablated channel to a very small number, not to zero.
        """
        ablated = self.methods[0] == "ablationcam" and NETWORKS[self.network].reshape is not None
        return self.methods[0] not in (*EIGEN, "fem") and not ablated


def rows(device: str = "cpu") -> Iterator[BenchmarkRow]:
    """Lists what is measured on a device: on the CPU, what issues 5 and 28 set a bar for."""
    yield from _on_cuda() if device == "cuda" else _on_cpu()


def _on_cuda() -> Iterator[BenchmarkRow]:
    for name in ("resnet50", "convnext_tiny", "vit_base_patch16_224"):
        for batch in (1, 8, LARGE):
            for method in NINE:
                yield _in_bf16(name, (method,), batch)
        yield _in_bf16(name, ("gradcam",), USUAL)
        yield _in_bf16(name, NINE, LARGE)
        yield _in_bf16(name, ("gradcam",), LARGE, 5)
        yield BenchmarkRow(name, ("gradcam",), 8)
        yield _in_bf16(name, ("gradcam",), USUAL, compiled=True)
    for precision in ("float32", "bf16"):
        yield BenchmarkRow("resnet18", ("scorecam",), passes=None, rounds=2, precision=precision)
        yield BenchmarkRow(
            "resnet50", ("scorecam",), passes=None, rounds=2, precision=precision, peers=False
        )
        for name in ("resnet18", "resnet50", "vit_base_patch16_224"):
            yield BenchmarkRow(name, ("ablationcam",), rounds=2, precision=precision)


def _in_bf16(
    name: str,
    methods: tuple[str, ...],
    batch: int,
    categories: int = 1,
    *,
    compiled: bool = False,
) -> BenchmarkRow:
    return BenchmarkRow(
        name,
        methods,
        batch,
        categories,
        # nine times out of ten of the bare pass's pictures, where a batch fills the GPU
        bar=1 / 0.9 if batch == LARGE and len(methods) == categories == 1 else None,
        rounds=15 if batch < USUAL else 7,
        precision="bf16",
        peers=batch < USUAL,
        compiled=compiled,
    )


def _on_cpu() -> Iterator[BenchmarkRow]:
    for name in list(NETWORKS)[:4]:
        bar = NETWORKS[name].bar
        for batch in (1, 8):
            for method in NINE:
                high = 1.15 if method in EIGEN and bar < 1.15 else bar
                faster = None if method in (*EIGEN, "fem") or "vit" in name else 3
                rounds, most = (15, MOST_ROUNDS) if batch == 1 else (7, 0)
                yield BenchmarkRow(
                    name,
                    (method,),
                    batch,
                    bar=high,
                    faster=faster,
                    rounds=rounds,
                    most_rounds=most,
                )
        faster = None if "vit" in name else 3
        yield BenchmarkRow(name, ("gradcam",), bar=bar, faster=faster, compiled=True)
    for name in SMALL:
        yield BenchmarkRow(name, ("gradcam",), bar=NETWORKS[name].bar, most_rounds=MOST_ROUNDS)
    yield BenchmarkRow("resnet50", NINE, 1, bar=1.25, most_rounds=MOST_ROUNDS)
    for name in list(NETWORKS)[:4]:
        high = 1.7 if "vit" in name else 1.15
        yield BenchmarkRow(name, ("gradcam",), 1, 5, high, most_rounds=MOST_ROUNDS)
    for name in ("resnet18", "resnet50"):
        yield BenchmarkRow(name, ("ablationcam",), faster=80, rounds=3)
    yield BenchmarkRow("vit_base_patch16_224", ("ablationcam",), faster=8, rounds=1)
    for precision, faster in (("float32", 1.5), ("bf16", 3)):
        yield BenchmarkRow(
            "resnet18",
            ("scorecam",),
            bar=1.10,
            faster=faster,
            passes=None,
            rounds=2,
            precision=precision,
        )
    for method, passes, options in (
        ("rise", 64, {"masks": 64}),
        # a window every 28 of 224 pixels, and the picture as it is
        ("occlusion", 65, {"window": 56, "stride": 28}),
        ("sscam", 64, {"samples": 4, "max_channels": 16}),
        ("iscam", 64, {"samples": 4, "max_channels": 16}),
    ):
        yield BenchmarkRow(
            "resnet18", (method,), bar=1.15, passes=passes, rounds=3, options=options
        )
