"""The gradient of a logit is that of the whole product to the last bit, or it is left to torch."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from camcli.engine.evidence.logit_gradient import CHECKER, begin_behind_logit


@pytest.fixture(autouse=True)
def _checker() -> None:
    __import__(CHECKER)


def _run(b: int = 1, *, frozen: bool = True) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(0)
    features, head = torch.randn(b, 6).requires_grad_(), nn.Linear(6, 4).requires_grad_(not frozen)
    return features, head, head(features.tanh())


@pytest.mark.parametrize("index", [0, 3])
def test_it_is_the_same_to_the_last_bit(index: int) -> None:
    features, head, logits = _run()
    (expected,) = torch.autograd.grad(logits[0, index], features, retain_graph=True)
    begin = begin_behind_logit(logits, index)
    assert begin is not None
    assert torch.equal(begin[1][0], head.weight[index])
    (actual,) = torch.autograd.grad(begin[0], features, begin[1])
    assert torch.equal(actual, expected)


LEFT_TO_TORCH: dict[str, Callable[[], Tensor]] = {
    "several pictures": lambda: _run(2)[2],
    "weights that learn": lambda: _run(frozen=False)[2],
    "no graph": lambda: _run()[2].detach(),
    "something behind": lambda: _run()[2].relu(),
    "features that nothing made": lambda: nn.Linear(6, 4).requires_grad_(True)(torch.ones(1, 6)),
    "a scaled product": lambda: torch.addmm(
        torch.zeros(4), _run()[0].tanh(), torch.ones(6, 4), alpha=2
    ),
}


@pytest.mark.parametrize("name", LEFT_TO_TORCH)
def test_whatever_else_made_the_logits_is_left_to_torch(name: str) -> None:
    assert begin_behind_logit(LEFT_TO_TORCH[name](), 0) is None


def test_who_looks_at_the_logits_gradient_sees_it() -> None:
    logits = _run()[2]
    logits.retain_grad()
    assert begin_behind_logit(logits, 0) is None
    logits = _run()[2]
    logits.register_hook(lambda gradient: 2 * gradient)
    assert begin_behind_logit(logits, 0) is None


def test_nothing_slow_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, CHECKER)
    assert begin_behind_logit(_run()[2], 0) is None
