"""Perturbation methods against slow replicas from their papers, and what they cost."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.engine.answer_request import answer_request
from camcli.engine.batch_context import BatchContext
from camcli.engine.explain_request import WHOLE, ExplainRequest
from camcli.engine.targets import FixedCategories, TopKCategories
from camcli.errors import UsageError
from camcli.methods.perturbation import ablationcam, iscam, occlusion, rise, scorecam, sscam
from camcli.models.acceleration.memory_format import trust_channels_last
from camcli.records import Detailed
from camcli.registry import METHODS, depends_on_category, depends_on_layer
from tests.conftest import FEW
from tests.networks import Counting, Staged, Straight, noise

MASKING = {"scorecam": scorecam, "sscam": sscam, "iscam": iscam}
WEIGHTING = ("ablationcam", *MASKING)
BLACK_BOXES = ("rise", "occlusion")
NAMES = (*WEIGHTING, *BLACK_BOXES)

SIZE = (6, 9)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INPUTS, ACTIVATIONS = _draw(2, 3, *SIZE), _draw(2, 5, 3, 4, seed=1)
# a curved score of each picture, [H W] weights a colour
KERNELS = _draw(2, 3, *SIZE, seed=2) / 4


def _curve(images: Tensor, owner: int) -> Tensor:
    return (images * KERNELS[owner]).flatten(1).sum(1).tanh() + images[:, 0, 0, 0].sin()


def _count_calls(
    function: Callable[[Tensor, int], Tensor], sizes: list[int] | None = None
) -> Callable[..., Tensor]:
    """A score as the engine gives it, three rows at a time."""

    def score(altered: Callable[[slice], Tensor], count: int, owner: int) -> Tensor:
        results = []
        for start in range(0, count, 3):
            rows = altered(slice(start, min(start + 3, count)))
            assert len(rows) == min(3, count - start)
            results.append(function(rows, owner))
            if sizes is not None:
                sizes.append(len(rows))
        return torch.cat(results)

    return score


# slow replicas, in loops


def _enlarge(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, half-pixel centres, the border's values beyond the border."""

    def at(i: int, long: int, short: int) -> tuple[int, int, float]:
        place = min(max((i + 0.5) * short / long - 0.5, 0), short - 1)
        first = min(int(place), short - 1)
        return first, min(first + 1, short - 1), place - first

    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        top, bottom, v = at(i, size[0], small.shape[0])
        left, right, u = at(j, size[1], small.shape[1])
        above = (1 - u) * small[top, left] + u * small[top, right]
        below = (1 - u) * small[bottom, left] + u * small[bottom, right]
        out[i, j] = (1 - v) * above + v * below
    return out


def _score_of(image: np.ndarray, owner: int) -> float:
    return float(_curve(torch.from_numpy(image).float()[None], owner))


def _mask_replica(owner: int, samples: Callable[[np.ndarray], list[np.ndarray]]) -> np.ndarray:
    image, maps = INPUTS[owner].numpy(), ACTIVATIONS[owner].numpy()
    blank = _score_of(np.zeros_like(image), owner)
    increases = []
    for channel in maps:
        mask = _enlarge(channel, SIZE)
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        scores = [_score_of(sample * image, owner) - blank for sample in samples(mask)]
        increases.append(sum(scores) / len(scores))
    alphas = np.exp(increases) / np.exp(increases).sum()
    return sum(alpha * channel for alpha, channel in zip(alphas, maps, strict=True))


@pytest.mark.parametrize("owner", [0, 1])
def test_scorecam_is_its_replica(owner: int) -> None:
    scores = scorecam(ACTIVATIONS, INPUTS, _count_calls(_curve)).sum(1)[owner]
    np.testing.assert_allclose(scores, _mask_replica(owner, lambda m: [m]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("owner", [0, 1])
def test_sscam_is_its_replica_with_the_same_draws(owner: int) -> None:
    actual = sscam(ACTIVATIONS, INPUTS, _count_calls(_curve), samples=4, sigma=0.5, seed=7).sum(1)
    draws = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(7)).numpy()
    expected = _mask_replica(owner, lambda mask: [mask + 0.5 * d for d in draws])
    np.testing.assert_allclose(actual[owner], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("owner", [0, 1])
def test_iscam_is_its_replica(owner: int) -> None:
    actual = iscam(ACTIVATIONS, INPUTS, _count_calls(_curve), samples=4).sum(1)

    def grow_mask(mask: np.ndarray) -> list[np.ndarray]:
        steps, total = [], np.zeros_like(mask)
        for i in range(1, 5):
            total = total + i / 4 * mask
            steps.append(total)
        return steps

    expected = _mask_replica(owner, grow_mask)
    np.testing.assert_allclose(actual[owner], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "actual",
    [
        sscam(ACTIVATIONS, INPUTS, _count_calls(_curve), samples=3, sigma=0.0),
        iscam(ACTIVATIONS, INPUTS, _count_calls(_curve), samples=1),
    ],
    ids=["no noise", "one step"],
)
def test_its_children_without_what_they_add_are_scorecam(actual: Tensor) -> None:
    torch.testing.assert_close(actual, scorecam(ACTIVATIONS, INPUTS, _count_calls(_curve)))


def test_scorecam_enlarges_before_it_normalises() -> None:
    seen: list[Tensor] = []

    def note(images: Tensor, _: int) -> Tensor:
        seen.append(images[:, 0])
        return images.sum((1, 2, 3))

    scorecam(ACTIVATIONS[:1], torch.ones(1, 3, 12, 16), _count_calls(note))
    masks = torch.cat(seen)
    assert masks.amin((1, 2)).eq(0).all()
    # enlarged last, a peak between the pixels' centres would fall short of 1
    assert masks.amax((1, 2)).eq(1).all()


def _mix(maps: Tensor, owner: int) -> Tensor:
    return (maps.mean((2, 3)) @ _draw(5, seed=owner + 5)).exp() + 0.5 * maps[:, 2].amax((1, 2))


@pytest.mark.parametrize("owner", [0, 1])
def test_ablationcam_is_its_replica(owner: int) -> None:
    actual = ablationcam(ACTIVATIONS, _count_calls(_mix)).sum(1)[owner]
    maps = ACTIVATIONS[owner]
    whole = float(_mix(maps[None], owner))
    expected = np.zeros(maps.shape[1:])
    for k in range(len(maps)):
        without = maps.clone()
        without[k] = 0
        expected += (whole - float(_mix(without[None], owner))) / abs(whole) * maps[k].numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_ablationcam_is_not_turned_over_by_a_negative_score() -> None:
    """The paper divides by the score: below zero, what speaks for the class would be cold."""

    def lower(maps: Tensor, owner: int) -> Tensor:
        return _mix(maps, owner) - 100

    plain = ablationcam(ACTIVATIONS, _count_calls(_mix))
    low = ablationcam(ACTIVATIONS, _count_calls(lower))
    whole = torch.cat([_mix(ACTIVATIONS[i : i + 1], i) for i in range(2)])
    ratio = whole.abs() / (whole - 100).abs()
    assert (whole < 100).all()
    torch.testing.assert_close(low, plain * ratio[:, None, None, None], rtol=1e-2, atol=1e-4)


def test_rise_by_hand_with_one_cell() -> None:
    """Each mask shows all or nothing; the score of nothing is 0."""
    n, probability = 7, 0.3
    open_ = torch.rand(n, 1, 1, generator=torch.Generator().manual_seed(4)) < probability
    share = open_.float().mean()
    assert 0 < share < 1
    full = torch.tensor([3.0, -5.0])

    def score(images: Tensor, owner: int) -> Tensor:
        return full[owner] * images.mean((1, 2, 3))

    options = {"masks": n, "cells": 1, "probability": probability, "seed": 4}
    scores = rise(torch.ones(2, 3, *SIZE), _count_calls(score), **options)
    expected = full * share * (1 - share) / probability
    torch.testing.assert_close(scores, expected[:, None, None].expand(2, *SIZE))


def _rise_masks(masks: int, cells: int, probability: float, seed: int) -> np.ndarray:
    draw = torch.Generator().manual_seed(seed)
    grids = (torch.rand(masks, cells, cells, generator=draw) < probability).double().numpy()
    high, wide = (math.ceil(side / cells) for side in SIZE)
    down = torch.randint(high, (masks,), generator=draw)
    across = torch.randint(wide, (masks,), generator=draw)
    out = np.zeros((masks, *SIZE))
    for i in range(masks):
        large = _enlarge(grids[i], (high * (cells + 1), wide * (cells + 1)))
        y, x = int(down[i]), int(across[i])
        out[i] = large[y : y + SIZE[0], x : x + SIZE[1]]
    return out


@pytest.mark.parametrize("owner", [0, 1])
def test_rise_is_its_papers_map_less_the_mean_scores(owner: int) -> None:
    n, probability = 40, 0.4
    masks = _rise_masks(n, 4, probability, seed=2)
    actual = rise(INPUTS, _count_calls(_curve), masks=n, cells=4, probability=probability, seed=2)
    scores = [_score_of(mask * INPUTS[owner].numpy(), owner) for mask in masks]
    paper = sum(s * m for s, m in zip(scores, masks, strict=True)) / (n * probability)
    expected = paper - np.mean(scores) * masks.mean(0) / probability
    np.testing.assert_allclose(actual[owner], expected, rtol=1e-4, atol=1e-5)


def test_rise_does_not_see_what_is_added_to_every_score() -> None:
    """Logits may be: in the paper's own map, this one would drown the picture in its masks."""

    def raise_score(images: Tensor, owner: int) -> Tensor:
        return _curve(images, owner) - 1000

    actual = rise(INPUTS, _count_calls(raise_score), masks=60)
    torch.testing.assert_close(
        actual, rise(INPUTS, _count_calls(_curve), masks=60), rtol=0, atol=1e-3
    )


def test_rise_finds_the_pixels_that_count() -> None:
    def corner(images: Tensor, _: int) -> Tensor:
        return images[:, :, :8, :8].mean((1, 2, 3))

    actual = rise(torch.ones(1, 3, 32, 48), _count_calls(corner), masks=500)[0]
    assert actual[:8, :8].mean() > 4 * actual[16:, 16:].abs().mean()
    assert actual[:8, :8].min() > actual[16:, 16:].max()


def test_occlusion_by_hand() -> None:
    """A window as wide as the stride, and a score that adds pixels: each cell is its own sum."""
    images = torch.arange(48.0).view(1, 1, 6, 8).expand(1, 3, 6, 8)
    actual = occlusion(images, _count_calls(lambda x, _: x[:, 0].sum((1, 2))), window=2, stride=2)
    torch.testing.assert_close(actual[0], images[0, 0].unfold(0, 2, 2).unfold(1, 2, 2).sum((2, 3)))


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 2), (4, 4), (5, 3), (50, 4)])
def test_occlusion_is_its_replica(window: int, stride: int) -> None:
    actual = occlusion(INPUTS, _count_calls(_curve), window=window, stride=stride)
    h, w = (math.ceil(side / stride) for side in SIZE)
    assert actual.shape == (2, h, w)
    for owner, i, j in np.ndindex(2, h, w):
        image = INPUTS[owner].numpy().copy()
        top = math.floor((i + 0.5) * SIZE[0] / h - window / 2 + 0.5)
        left = math.floor((j + 0.5) * SIZE[1] / w - window / 2 + 0.5)
        image[:, max(top, 0) : top + window, max(left, 0) : left + window] = 0
        drop = _score_of(INPUTS[owner].numpy(), owner) - _score_of(image, owner)
        assert float(actual[owner, i, j]) == pytest.approx(drop, abs=1e-5)


# constant channels and empty maps


def test_constant_channels_get_no_pass_and_no_weight() -> None:
    maps = ACTIVATIONS.clone()
    maps[0, 1], maps[0, 3] = 0.0, 2.5
    maps[1] = 0.0
    for name, masking in MASKING.items():
        sizes: list[int] = []
        actual = masking(maps, INPUTS, _count_calls(_curve, sizes))
        samples = 1 if name == "scorecam" else FEW[name]["samples"]
        assert sum(sizes) == 3 * samples
        assert not actual[0, [1, 3]].any()
        assert not actual[1].any()
        others = masking(maps[:1, [0, 2, 4]], INPUTS[:1], _count_calls(_curve))
        torch.testing.assert_close(actual[0, [0, 2, 4]], others[0])
    sizes = []
    actual = ablationcam(maps, _count_calls(_mix, sizes))
    assert sum(sizes) == 1 + 4 + 1  # the maps as they are, and the channels that are not zero
    assert actual.isfinite().all()


def test_a_score_of_zero_gives_no_nan() -> None:
    def none(images: Tensor, _: int) -> Tensor:
        return torch.zeros(len(images))

    for actual in (
        ablationcam(ACTIVATIONS, _count_calls(none)),
        rise(INPUTS, _count_calls(none), masks=5),
        occlusion(INPUTS, _count_calls(none)),
    ):
        assert not actual.any()
    assert scorecam(ACTIVATIONS, INPUTS, _count_calls(none)).isfinite().all()


# options


@pytest.mark.parametrize("name", WEIGHTING)
def test_max_channels_takes_those_with_the_highest_means(name: str) -> None:
    asked = {"rescore": _count_calls(_mix), "score": _count_calls(_curve)}
    evidence = {"activations": ACTIVATIONS, "inputs": INPUTS, **asked}
    method = METHODS[name]

    def actual(k: int) -> Tensor:
        return method.function(*(evidence[e] for e in method.evidence), max_channels=k)

    torch.testing.assert_close(actual(99), actual(0))
    torch.testing.assert_close(actual(5), actual(0))
    used = actual(2).flatten(2).any(2)
    strongest = ACTIVATIONS.mean((2, 3)).topk(2).indices
    assert torch.equal(used.nonzero()[:, 1].view(2, 2), strongest.sort().values)
    if name == "ablationcam":  # no softmax shares out the weights
        torch.testing.assert_close(actual(2)[used], actual(0)[used])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("scorecam", {"max_channels": -1}, "max_channels is 0 or more, not -1"),
        ("ablationcam", {"max_channels": -1}, "max_channels is 0 or more"),
        ("sscam", {"samples": 0}, "samples is 1 or more, not 0"),
        ("iscam", {"samples": 0}, "samples is 1 or more"),
        ("rise", {"masks": 0}, "masks is 1 or more"),
        ("rise", {"cells": 0}, "cells is 1 or more"),
        ("rise", {"probability": 1.0}, "probability is between 0 and 1"),
        ("occlusion", {"window": 0}, "window is 1 or more"),
        ("occlusion", {"stride": 0}, "stride is 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(
    name: str, options: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        camcli.heatmaps(Staged(), noise(), name, target_layers="last", set=options)


@pytest.mark.parametrize("name", ["sscam", "rise"])
def test_what_draws_follows_its_seed_and_leaves_the_callers_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        camcli.heatmaps(Straight(), noise(), name, target_layers="last", seed=s) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


# on a model


def _sizes(model: nn.Module, run: Callable[[], Any]) -> list[int]:
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        run()
    finally:
        handle.remove()
    return sizes


@pytest.mark.parametrize("name", NAMES)
def test_no_more_than_a_chunk_is_altered_at_once(name: str) -> None:
    model = Counting().eval()  # its tail cannot run by itself, so ablations are whole passes, too
    context = BatchContext(model, noise(1), ["last"], TopKCategories(), graph=False, chunk=5)
    expected = BatchContext(model, noise(1), ["last"], TopKCategories(), graph=False).apply(
        METHODS[name], "last", 0
    )
    results: list[Detailed] = []
    sizes = _sizes(model, lambda: results.append(context.apply(METHODS[name], "last", 0)))
    assert max(sizes) == 5
    channels, masks = 16, FEW["rise"]["masks"]
    rows = {"ablationcam": 1 + channels, "scorecam": channels, "rise": masks}
    rows |= {name: channels * FEW[name]["samples"] for name in ("sscam", "iscam")}
    # besides the pass that everything shares: for a tail one to remember, and two dry runs; for
    # FEWEST_FOLDED altered pictures and more one to see what can be folded, and a dry run
    extra = {"ablationcam": 4, "scorecam": 1, "occlusion": 1}.get(name, 3)
    assert sum(sizes) == rows.get(name, 1 + 3 * 4) + extra
    torch.testing.assert_close(vars(results[0]), vars(expected))


def test_ablations_are_the_same_whether_the_tail_runs_alone_or_the_whole_model() -> None:
    class Whole(Straight):
        """It counts its pictures, and so cannot run on what else its last layer may put out."""

        def forward(self, x: Tensor) -> Tensor:
            pictures = len(x)
            x = self.last(self.middle(self.stem(x)))
            return self.fc(x.reshape(pictures, 16, -1).mean(2))

    results = []
    for model, alone in ((Straight(), True), (Whole(), False)):
        context = BatchContext(
            model.eval(), noise(), ["last"], FixedCategories(torch.tensor([[1], [2]])), graph=False
        )
        assert context.get("is_tail_separable", "last") is alone
        results.append(vars(context.apply(METHODS["ablationcam"], "last", 0)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", BLACK_BOXES)
def test_black_boxes_look_into_no_layer(name: str) -> None:
    assert depends_on_category(name)
    assert not depends_on_layer(name)
    model = Staged()
    trust_channels_last(model)
    calls: dict[int, int] = {}
    for k, layers in ((1, ("last",)), (2, ("middle", "last"))):
        request = ExplainRequest((name,), layers, layer_fusion="none")
        maps: list[Any] = []

        def run(request: ExplainRequest = request, maps: list[Any] = maps) -> None:
            maps.append(
                answer_request(model, noise(1), FixedCategories(torch.tensor([[1]])), request).maps[
                    name
                ]
            )

        calls[k] = len(_sizes(model, run))
        assert list(maps[0]) == [WHOLE]
    assert calls[1] == calls[2]


def test_memory_that_runs_out_in_the_dry_run_is_no_answer_to_it() -> None:
    def full(_: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = Staged()
    model.fc.register_forward_pre_hook(full)
    context = BatchContext(model, noise(1), ["last"], TopKCategories(), graph=False)
    with pytest.raises(torch.OutOfMemoryError):
        context.get("is_tail_separable", "last")


PEAK = """
import resource, sys, torch, camcli

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

module = camcli.load_model("timm/resnet50", pretrained=False, device="cpu").module
before, options = peak(), {"max_channels": int(sys.argv[2])}
camcli.heatmaps(module, torch.randn(1, 3, 224, 224), sys.argv[1], targets=3, set=options)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak has another unit")
@pytest.mark.parametrize("name", WEIGHTING)
def test_memory_stays_that_of_one_chunk(name: str) -> None:
    """In GiB above the model; Score-CAM's 2,048 channels took 0.62 (2 CPU cores, 2026-11-21)."""
    channels = {"ablationcam": 0, "scorecam": 96}.get(name, 8)
    command = [sys.executable, "-c", PEAK, name, str(channels)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(printed) < 1.5
