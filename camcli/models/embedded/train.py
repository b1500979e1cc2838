"""Trains the embedded classifier: `python -m camcli.models.embedded.train --data DIR --out FILE`.

The folder DIR holds `train.npz`, `val.npz` and `classes.txt`: small JPEGs end to end (`jpeg` uint8,
`offset` [n+1], `label` [n]).  A run that was cut off goes on from `FILE.state`.
"""

import argparse
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from camcli.models.embedded.network import Network

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
STEPS_BETWEEN_SAVES = 100
PHOTOS_TO_RECALIBRATE = 3072


@dataclass(frozen=True)
class Recipe:
    """What a training run is made of; learning rates are for `batch` pictures a step."""

    epochs: int
    learning_rate: float
    batch: int = 128
    size: int = 64
    warm_up: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    smallest_crop: float = 0.3
    cutmix: float = 0.5
    average: float = 0.998
    seed: int = 0


@dataclass(frozen=True)
class Photos:
    """A set of decoded photos: pixels uint8 [n 3 h w], labels int64 [n]."""

    pixels: Tensor
    labels: Tensor

    @classmethod
    def read(cls, file: Path) -> "Photos":
        """Decodes every JPEG of an .npz file into memory."""
        with np.load(file) as data:
            jpeg, offset, label = data["jpeg"], data["offset"], data["label"]
        spans = pairwise(offset)
        pictures = [
            np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes())).convert("RGB"))
            for a, b in tqdm(spans, f"decode {file.name}", len(label), mininterval=1)
        ]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        return cls(pixels, torch.from_numpy(label.astype(np.int64)))


def normalised(pixels: Tensor) -> Tensor:
    """Turns uint8 or 0..255 pixels into network input.  [b 3 h w] -> [b 3 h w]"""
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def random_views(pixels: Tensor, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Crops, flips and recolours each picture at random.  uint8 [b 3 h w] -> 0..255 [b 3 H W]"""
    b = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(b, generator=draw) * (high - low) + low

    area, log_aspect = uniform(recipe.smallest_crop, 1), uniform(math.log(3 / 4), math.log(4 / 3))
    width = (area * log_aspect.exp()).sqrt().clamp(max=1)
    height = (area / log_aspect.exp()).sqrt().clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros(b)
    across = torch.stack([width * flip, zero, uniform(-1, 1) * (1 - width)], 1)
    down = torch.stack([zero, height, uniform(-1, 1) * (1 - height)], 1)
    box = torch.stack([across, down], 1).to(pixels.device)
    grid = F.affine_grid(box, [b, 3, recipe.size, recipe.size], align_corners=False)
    views = F.grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)

    def strength() -> Tensor:
        return uniform(0.7, 1.3).view(b, 1, 1, 1).to(pixels.device)

    views = views * strength()
    views = torch.lerp(views.mean((1, 2, 3), keepdim=True), views, strength())
    return torch.lerp(views.mean(1, keepdim=True), views, strength()).clamp(0, 255)


def cutmix(views: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """CutMix, arXiv:1905.04899.  [b 3 h w] -> mixed [b 3 h w], partner [b], original's share"""
    b, _, h, w = views.shape
    side = math.sqrt(1 - float(torch.rand((), generator=draw)))
    y, x = (int(torch.randint(n, (), generator=draw)) for n in (h, w))
    top, bottom = (min(max(y + s * int(h * side / 2), 0), h) for s in (-1, 1))
    left, right = (min(max(x + s * int(w * side / 2), 0), w) for s in (-1, 1))
    partner = torch.randperm(b, generator=draw).to(views.device)
    mixed = views.clone()
    mixed[:, :, top:bottom, left:right] = views[partner, :, top:bottom, left:right]
    return mixed, partner, 1 - (bottom - top) * (right - left) / (h * w)


class Training:
    """One training run: the network, its running average, the optimiser, and how far they are."""

    def __init__(self, network: Network, recipe: Recipe, steps_per_epoch: int) -> None:
        self.network, self.recipe, self.steps_per_epoch = network, recipe, steps_per_epoch
        r = recipe
        self.average = torch.optim.swa_utils.AveragedModel(
            network,
            avg_fn=lambda mean, new, _: mean + (new - mean) * (1 - r.average),
            use_buffers=True,
        )
        weights = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": weights, "weight_decay": r.weight_decay},
            {"params": others},
        ]
        self.optimiser = torch.optim.SGD(groups, r.learning_rate, r.momentum, nesterov=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, r.learning_rate, r.epochs * steps_per_epoch, pct_start=r.warm_up
        )
        self.steps_done = 0

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        """Takes one step on a batch and returns its loss.  uint8 [b 3 h w], [b] -> loss"""
        r = self.recipe
        draw = torch.Generator().manual_seed(r.seed * 1_000_003 + self.steps_done)
        views = random_views(pixels, r, draw)
        partner, share = torch.arange(len(labels), device=labels.device), 1.0
        if float(torch.rand((), generator=draw)) < r.cutmix:
            views, partner, share = cutmix(views, draw)
        inputs = normalised(views).contiguous(memory_format=torch.channels_last)
        logits = self.network(inputs).float()
        loss: Tensor = sum(  # type: ignore[assignment]
            part * F.cross_entropy(logits, target, label_smoothing=r.label_smoothing)
            for part, target in ((share, labels), (1 - share, labels[partner]))
        )
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.network)
        self.steps_done += 1
        return float(loss.detach())

    def batches(self, photos: Photos) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches that are still to come, in an order that only the seed decides."""
        b = self.recipe.batch
        for epoch in range(self.steps_done // self.steps_per_epoch, self.recipe.epochs):
            draw = torch.Generator().manual_seed(self.recipe.seed + epoch)
            order = torch.randperm(len(photos.labels), generator=draw)
            for step in range(self.steps_done % self.steps_per_epoch, self.steps_per_epoch):
                rows = order[step * b : (step + 1) * b]
                yield photos.pixels[rows], photos.labels[rows]

    PARTS = ("network", "average", "optimiser", "schedule")

    def save(self, file: Path) -> None:
        """Writes all that `load` needs to go on; a run cut off meanwhile keeps the older file."""
        state = {part: getattr(self, part).state_dict() for part in self.PARTS}
        partial = file.with_name(file.name + ".partial")
        torch.save(state | {"steps_done": self.steps_done}, partial)
        partial.replace(file)

    def load(self, file: Path) -> None:
        """Goes on where `save` left off."""
        state = torch.load(file, weights_only=True)
        for part in self.PARTS:
            getattr(self, part).load_state_dict(state[part])
        self.steps_done = state["steps_done"]


@torch.inference_mode()
def accuracy(network: nn.Module, photos: Photos, size: int) -> float:
    """Returns the share of photos whose best class is right, enlarged bicubically to `size`."""
    network.eval()
    device = next(network.parameters()).device
    right = 0
    for pixels, labels in zip(
        torch.split(photos.pixels, 250), torch.split(photos.labels, 250), strict=True
    ):
        logits = network(_enlarged(pixels, size).to(device))
        right += int((logits.argmax(1).cpu() == labels).sum())
    return right / len(photos.labels)


@torch.no_grad()
def recalibrate(network: nn.Module, photos: Photos, size: int) -> None:
    """Measures BatchNorm's statistics anew on whole photos, enlarged bicubically to `size`.

    Random crops show objects larger than whole photos do (arXiv:1906.06423).
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    rows = torch.randperm(len(photos.labels), generator=torch.Generator().manual_seed(0))
    device = next(network.parameters()).device
    network.train()
    for chunk in torch.split(rows[:PHOTOS_TO_RECALIBRATE], 128):
        network(_enlarged(photos.pixels[chunk], size).to(device))
    network.eval()


def _enlarged(pixels: Tensor, size: int) -> Tensor:
    """Makes network input of whole photos.  uint8 [b 3 h w] -> [b 3 size size]"""
    pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
    enlarged = [np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in pictures]
    batch = torch.from_numpy(np.stack(enlarged)).permute(0, 3, 1, 2)
    return normalised(batch).contiguous(memory_format=torch.channels_last)


def blend(network: nn.Module, other: Mapping[str, Tensor]) -> None:
    """Averages a network's weights with those of another run from the same start (2203.05482)."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor.device), 0.5)


def train(photos: Photos, training: Training, state_file: Path) -> None:
    """Runs the training to its end, saving its state on the way."""
    device = next(training.network.parameters()).device
    bar = tqdm(
        training.batches(photos),
        "train",
        initial=training.steps_done,
        total=training.recipe.epochs * training.steps_per_epoch,
        mininterval=5,
    )
    for pixels, labels in bar:
        training.network.train()
        # bf16 pays on CUDA, and on CPUs with AMX or AVX512-BF16; on older ones it is slower
        with torch.autocast(device.type, torch.bfloat16, enabled=_bf16_pays(device)):
            loss = training.step(pixels.to(device), labels.to(device))
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if training.steps_done % STEPS_BETWEEN_SAVES == 0:
            training.save(state_file)
    training.save(state_file)


def _bf16_pays(device: torch.device) -> bool:
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


def _start_weights(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    weights: dict[str, Tensor] = torch.load(file, weights_only=True)
    return weights


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train camviz's embedded classifier.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.safetensors)")
    parser.add_argument("--start", type=Path, help="weights to start from (else from nothing)")
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--size", type=int, default=64, help="pixels of a training view")
    parser.add_argument("--smallest-crop", type=float, default=0.3, help="share of the area")
    parser.add_argument("--cutmix", type=float, default=0.5, help="share of batches that are mixed")
    parser.add_argument("--blend", type=Path, help="weights to average the trained ones with")
    parser.add_argument("--input-size", type=int, default=88, help="pixels of a whole photo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    """Trains, writes the averaged weights, and prints the accuracy at several input sizes."""
    args = _arguments()
    torch.manual_seed(args.seed)
    classes = (args.data / "classes.txt").read_text(encoding="utf-8").splitlines()
    network = Network(len(classes)).to(memory_format=torch.channels_last).to(args.device)
    if args.start:
        network.load_state_dict(_start_weights(args.start))
    recipe = Recipe(
        args.epochs,
        args.learning_rate,
        size=args.size,
        smallest_crop=args.smallest_crop,
        cutmix=args.cutmix,
        seed=args.seed,
    )
    photos = Photos.read(args.data / "train.npz")
    training = Training(network, recipe, len(photos.labels) // recipe.batch)
    state_file = args.out.with_name(args.out.name + ".state")
    if state_file.exists():
        training.load(state_file)
    train(photos, training, state_file)
    averaged = training.average.module
    if args.blend:
        blend(averaged, _start_weights(args.blend))
    recalibrate(averaged, photos, args.input_size)
    save_file({k: v.contiguous() for k, v in averaged.state_dict().items()}, args.out)
    validation = Photos.read(args.data / "val.npz")
    for size in (64, 72, 80, 88, 96):
        print(f"{size} px: top-1 {accuracy(averaged, validation, size):.2%}")


if __name__ == "__main__":
    main()
