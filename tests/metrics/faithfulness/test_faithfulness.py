"""Faithfulness metrics, walked by the registry: direction, range, batch, dtype, bad input, ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import camcli.metrics  # noqa: F401 - fills the registry
from camcli.errors import UsageError
from camcli.metrics.faithfulness.insertion import insertion
from camcli.metrics.perturbation.pass_plan import PassPlan, carry_out
from camcli.registry import METRICS, Metric

SIDE = 16
FAITHFUL = [m for m in METRICS.values() if m.family == "faithfulness"]
SCORED = [m for m in FAITHFUL if "score" in m.inputs]
PLANNED = [m for m in FAITHFUL if m.plan is not None]
# few of all, so that a test takes no time
SMALL = {"steps": 8, "samples": 24, "shares": (0.2, 0.5, 0.8), "groups": 8}


def _parametrize(metrics: list[Metric]) -> Any:
    return pytest.mark.parametrize("metric", metrics, ids=lambda m: m.name)


def _evidence() -> Tensor:
    """What each pixel says: a bright square is for the class, the rest is against it."""
    counts = torch.full((SIDE, SIDE), -0.02)
    counts[4:9, 5:10] = 0.6
    return counts


def _image() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    image = 0.5 + 0.2 * torch.randn(3, SIDE, SIDE, generator=draw)
    image[:, 4:9, 5:10] += 1.5
    return image


def _score(images: Tensor) -> Tensor:
    """Gives the probability of a class whose logit is the sum of what each pixel says."""
    return (0.08 * (images.mean(1) * _evidence().to(images)).sum((-2, -1)) - 1).sigmoid()


def _explain(images: Tensor, row: int) -> Tensor:
    """Explains exactly in row 0; in others at random, and as bright as the picture is."""
    if row == 0:
        return (images.mean(1) * _evidence().to(images) > 0).float()
    fixed = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(row))
    return fixed * images.mean((1, 2, 3)).sigmoid()[:, None, None]


def _maps() -> Tensor:
    """Returns a perfect map, a random one, and the one that is wrong everywhere."""
    perfect = (_evidence() > 0).float()
    random = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    return torch.stack((perfect, random, 1 - perfect))


def _options(metric: Metric) -> dict[str, Any]:
    return {o.name: SMALL[o.name] for o in metric.options if o.name in SMALL}


def _measure(
    metric: Metric,
    maps: Tensor,
    image: Tensor | None = None,
    score: Callable[[Tensor], Tensor] = _score,
    explain: Callable[[Tensor, int], Tensor] = _explain,
    **options: Any,
) -> Tensor:
    given = {
        "maps": maps,
        "unit_maps": maps,
        "image": _image() if image is None else image,
        "score": score,
        "explain": explain,
    }
    values: Tensor = metric.function(
        *(given[name] for name in metric.inputs), **(_options(metric) | options)
    )
    return values


@_parametrize([m for m in FAITHFUL if m.name not in ("complexity", "max_sensitivity", "coherency")])
def test_a_perfect_map_beats_a_random_one_and_that_the_worst(metric: Metric) -> None:
    perfect, random, worst = _measure(metric, _maps()).tolist()
    sign = 1 if metric.direction == "higher" else -1
    assert sign * perfect > max(sign * random, sign * worst)
    # infidelity's free scale turns a map over
    if metric.name != "infidelity":
        assert sign * random >= sign * worst


@_parametrize(FAITHFUL)
def test_values_are_in_the_range_one_for_each_map(metric: Metric) -> None:
    draw = torch.Generator().manual_seed(1)
    maps = torch.cat((_maps(), torch.rand(4, SIDE, SIDE, generator=draw) ** 3))
    values = _measure(metric, maps)
    low, high = metric.range
    assert values.shape == (7,) and values.dtype == torch.float32
    assert ((values >= low) & (values <= high)).all()
    assert not values.requires_grad


@_parametrize(FAITHFUL)
def test_a_maps_value_does_not_depend_on_those_beside_it(metric: Metric) -> None:
    maps = _maps()
    together = _measure(metric, maps)
    for row, value in enumerate(together):
        alone = _measure(metric, maps[row, None], explain=lambda x, _, row=row: _explain(x, row))
        torch.testing.assert_close(alone[0], value, rtol=1e-5, atol=1e-6)


@_parametrize([m for m in FAITHFUL if any(o.name == "batch_size" for o in m.options)])
def test_the_size_of_batches_changes_nothing(metric: Metric) -> None:
    maps = _maps()
    whole = _measure(metric, maps, batch_size=1000)
    for size in (1, 5):
        torch.testing.assert_close(
            _measure(metric, maps, batch_size=size), whole, rtol=1e-5, atol=1e-6
        )
    with pytest.raises(UsageError, match="batch_size is 1 or more, not 0"):
        _measure(metric, maps, batch_size=0)


@_parametrize(FAITHFUL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_of_maps_gives_nearly_the_same(
    metric: Metric, dtype: torch.dtype
) -> None:
    maps = _maps().to(dtype)
    values = _measure(metric, maps)
    assert values.isfinite().all()
    torch.testing.assert_close(
        values.double(), _measure(metric, maps.float()).double(), rtol=1e-4, atol=1e-5
    )


@_parametrize(FAITHFUL)
def test_constant_maps_get_a_number(metric: Metric) -> None:
    for value in (0.0, 0.3, 1.0):
        constant = torch.full((1, SIDE, SIDE), value)
        values = _measure(metric, constant, explain=lambda x, _: x.new_zeros(len(x), SIDE, SIDE))
        assert not values.isnan().any()


@_parametrize(FAITHFUL)
def test_ties_are_broken_in_reading_order_and_always_alike(metric: Metric) -> None:
    coarse = (_maps() * 3).round() / 3
    values = _measure(metric, coarse)
    assert torch.equal(values, _measure(metric, coarse.clone()))
    if metric.plan is not None and "maps" in metric.inputs and metric.name not in ("infidelity",):
        # what is equal goes from the left to the right, from above to below
        order = torch.arange(SIDE * SIDE).flip(0).view(SIDE, SIDE).double()
        apart = coarse.double() + 1e-9 * order
        alike = _measure(metric, apart)
        torch.testing.assert_close(alike, values, rtol=1e-4, atol=1e-5)


@_parametrize(FAITHFUL)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_maps_that_are_no_numbers_are_refused(metric: Metric, wrong: float) -> None:
    maps = _maps()
    maps[1, 3, 3] = wrong
    with pytest.raises(UsageError, match=r"Maps \[1\] hold NaN or infinity"):
        _measure(metric, maps)


@_parametrize(FAITHFUL)
def test_maps_of_another_shape_are_refused(metric: Metric) -> None:
    with pytest.raises(UsageError, match=r"shape \[b H W\], not \[16, 16\]"):
        _measure(metric, _maps()[0])
    with pytest.raises(UsageError, match=r"floating-point numbers, not torch.int64"):
        _measure(metric, _maps().long())
    if "image" in metric.inputs:
        with pytest.raises(UsageError, match=r"have the size 8x8, .* 16x16: enlarge"):
            _measure(metric, _maps()[:, :8, :8])
        with pytest.raises(UsageError, match="picture holds NaN"):
            _measure(metric, _maps(), image=_image() * float("nan"))
    if "unit_maps" in metric.inputs:
        with pytest.raises(UsageError, match="between 0 and 1 here, not between 0 and 2"):
            _measure(metric, _maps() * 2)


@_parametrize(SCORED)
def test_scores_that_are_no_numbers_are_refused(metric: Metric) -> None:
    with pytest.raises(UsageError, match="score of an altered picture is NaN or infinity"):
        _measure(metric, _maps(), score=lambda x: _score(x) * float("nan"))
    with pytest.raises(UsageError, match=r"have the shape \[(\d+)\], not \[\1, 1\]"):
        _measure(metric, _maps(), score=lambda x: _score(x)[:, None])


@_parametrize(FAITHFUL)
def test_no_gradient_is_kept_and_nothing_given_is_changed(metric: Metric) -> None:
    maps, image = _maps().requires_grad_(), _image().requires_grad_()
    before = maps.detach().clone(), image.detach().clone()
    weight = torch.ones((), requires_grad=True)
    seen: list[bool] = []

    def score(images: Tensor) -> Tensor:
        seen.append(images.requires_grad)
        return _score(images) * weight

    values = _measure(metric, maps, image, score)
    assert not values.requires_grad and not any(seen)
    assert torch.equal(maps, before[0]) and torch.equal(image, before[1])


@_parametrize(SCORED)
def test_the_passes_are_as_many_as_the_registry_says(metric: Metric) -> None:
    passes = 0

    def score(images: Tensor) -> Tensor:
        nonlocal passes
        passes += len(images)
        return _score(images)

    _measure(metric, _maps()[:1], score=score)
    assert passes == metric.count_passes(**_options(metric))


@_parametrize([m for m in FAITHFUL if "explain" in m.inputs])
def test_the_explanations_are_as_many_as_the_registry_says(metric: Metric) -> None:
    made = 0

    def explain(images: Tensor, row: int) -> Tensor:
        nonlocal made
        made += len(images)
        return _explain(images, row)

    _measure(metric, _maps()[:1], explain=explain)
    assert made == metric.count_explanations(**_options(metric))
    with pytest.raises(UsageError, match="a map for each of the"):
        _measure(metric, _maps(), explain=lambda x, _: torch.rand(len(x) + 1, SIDE, SIDE))


def _plan(metric: Metric, maps: Tensor) -> PassPlan:
    assert metric.plan is not None
    given = {"maps": maps, "unit_maps": maps, "image": _image()}
    plan: PassPlan = metric.plan(
        *(given[n] for n in metric.inputs if n in given), **_options(metric)
    )
    return plan


def test_plans_of_all_metrics_share_batches_and_the_whole_picture() -> None:
    maps = _maps()
    plans = {m.name: _plan(m, maps) for m in PLANNED}
    sizes: list[int] = []

    def score(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return _score(images)

    shared = carry_out(plans, _image(), score, batch_size=7)
    assert set(sizes[:-1]) == {7} and sum(sizes) == 1 + sum(p.count for p in plans.values())
    for m in PLANNED:
        torch.testing.assert_close(shared[m.name], _measure(m, maps), rtol=1e-5, atol=1e-6)


@_parametrize(PLANNED)
def test_altered_pictures_are_made_when_they_are_asked_for(metric: Metric) -> None:
    plan = _plan(metric, _maps())
    whole = plan.build(slice(0, plan.count))
    assert whole.shape == (plan.count, 3, SIDE, SIDE)
    for row in (0, plan.count // 2, plan.count - 1):
        torch.testing.assert_close(plan.build(slice(row, row + 1))[0], whole[row])


def test_a_picture_of_one_pixel_is_measured() -> None:
    image, maps = torch.ones(1, 1, 1), torch.ones(2, 1, 1)
    values = insertion(maps, image, lambda x: x.mean((1, 2, 3)), baseline="zero")
    assert values.tolist() == [0.5, 0.5]
