"""Linear layers multiplied by oneDNN give what they gave, where they may be, and nowhere else."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camcli.models.acceleration import onednn_linear
from camcli.models.acceleration.faster_forwards import accelerate
from camcli.models.acceleration.onednn_conv import is_prepacking_supported
from camcli.models.acceleration.onednn_linear import OPERATORS
from camcli.models.acceleration.prepack_cache import PrepackCache
from camcli.utils.cpu import find_processor_maker

supported = pytest.mark.skipif(not is_prepacking_supported(OPERATORS), reason="a build without it")

INPUTS: dict[str, Tensor] = {
    "rows": torch.randn(5, 7),
    "one": torch.randn(7),
    "tokens": torch.randn(2, 3, 7),
    "cells": torch.randn(2, 3, 4, 7),
    "turned": torch.randn(7, 5).t(),
    "channels first": torch.randn(2, 7, 3, 4).permute(0, 2, 3, 1),
    "windows": torch.randn(2, 4, 3, 7).transpose(1, 2),
    "repeated": torch.randn(1, 3, 7).expand(4, 3, 7),
    "every second": torch.randn(10, 14)[::2, ::2],
    "none": torch.randn(0, 7),
}


@pytest.fixture(autouse=True)
def _on_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has even the smallest products taken, whoever made the processor."""
    monkeypatch.setattr(onednn_linear, "TESTED_PROCESSORS", {find_processor_maker(): ("", inf)})
    monkeypatch.setattr(onednn_linear, "FEWEST", 0)


@pytest.fixture
def count_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes how many rows each product has that oneDNN makes."""
    noted: list[int] = []
    plain = onednn_linear._multiply

    def note(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        noted.append(inputs.shape[:-1].numel())
        return plain(inputs, weight, bias)

    monkeypatch.setattr(onednn_linear, "_multiply", note)
    return noted


@supported
@pytest.mark.parametrize("prepack_cache", [None, PrepackCache()], ids=["as it is", "laid out"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", INPUTS)
def test_each_shape_gives_what_it_gave(
    name: str, bias: bool, prepack_cache: PrepackCache | None, count_products: list[int]
) -> None:
    layer, inputs = nn.Linear(7, 5, bias=bias), INPUTS[name]
    with torch.no_grad():
        expected = layer(inputs)
        with accelerate(layer, prepack_cache):
            for actual in (layer(inputs), layer(inputs), layer(inputs)):
                torch.testing.assert_close(actual, expected)
                # models view what they are given as something else
                assert actual.stride() == expected.stride()
    assert len(count_products) == (3 if inputs.numel() else 0)
    assert "forward" not in vars(layer)


@supported
def test_a_weight_that_is_no_rectangle_in_memory_is_multiplied_all_the_same() -> None:
    layer = nn.Linear(7, 5)
    layer.weight = nn.Parameter(torch.randn(7, 5).t())
    prepack_cache = PrepackCache()
    with torch.no_grad():
        expected = layer(INPUTS["rows"])
        for given in (None, prepack_cache, prepack_cache, prepack_cache):
            with accelerate(layer, given):
                torch.testing.assert_close(layer(INPUTS["rows"]), expected)


@supported
def test_weights_are_laid_out_at_the_second_pass_and_anew_where_they_change() -> None:
    layer, prepack_cache, inputs = nn.Linear(7, 5), PrepackCache(), INPUTS["rows"]

    def replace() -> None:
        layer.weight = nn.Parameter(torch.randn(5, 7))

    with torch.no_grad():
        for change in (lambda: None, lambda: layer.weight.mul_(2), replace):
            change()
            for laid_out in (False, True, True):
                expected = layer(inputs)
                with accelerate(layer, prepack_cache):
                    torch.testing.assert_close(layer(inputs), expected)
                assert (prepack_cache.entries[layer].prepacked is not None) == laid_out


@supported
def test_small_products_are_left_to_the_usual_library(
    monkeypatch: pytest.MonkeyPatch, count_products: list[int]
) -> None:
    monkeypatch.setattr(onednn_linear, "FEWEST", 3 * 7 * 5)
    layer = nn.Linear(7, 5)
    with torch.no_grad(), accelerate(layer, None):
        for rows in (1, 2, 3, 4):
            layer(torch.randn(rows, 7))
    assert count_products == [3, 4]


@supported
def test_large_products_are_left_to_the_maker_of_the_usual_one_unless_weights_are_laid_out(
    monkeypatch: pytest.MonkeyPatch, count_products: list[int]
) -> None:
    monkeypatch.setattr(
        onednn_linear, "TESTED_PROCESSORS", {find_processor_maker(): ("", 3 * 7 * 5)}
    )
    layer, prepack_cache = nn.Linear(7, 5), PrepackCache()
    with torch.no_grad():
        with accelerate(layer, None):
            for rows in (2, 3, 4):
                layer(torch.randn(rows, 7))
        assert count_products == [2, 3]
        with accelerate(layer, prepack_cache):
            for _ in range(3):
                layer(torch.randn(4, 7))
    assert count_products == [2, 3, 4, 4]


@supported
def test_where_a_graph_is_recorded_layers_run_as_they_were_written(
    count_products: list[int],
) -> None:
    layer = nn.Linear(7, 5)
    inputs = torch.randn(3, 7, requires_grad=True)
    expected = torch.autograd.grad(layer(inputs).sum(), inputs)[0]
    with accelerate(layer, None):
        actual = torch.autograd.grad(layer(inputs).sum(), inputs)[0]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert layer(inputs).dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected)
    assert not count_products


@supported
def test_what_does_not_fit_gets_the_error_that_it_got(count_products: list[int]) -> None:
    layer = nn.Linear(7, 5)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((torch.randn(3, 6),), {}),
        ((torch.tensor(1.0),), {}),
        ((torch.randn(3, 7).double(),), {}),
        ((), {}),
        ((torch.randn(3, 7), 1), {}),
    ]
    with torch.no_grad():
        for args, kwargs in calls:
            with pytest.raises((RuntimeError, TypeError)) as expected:
                layer(*args, **kwargs)
            with accelerate(layer, None), pytest.raises(expected.type) as actual:
                layer(*args, **kwargs)
            assert str(actual.value) == str(expected.value)
        with accelerate(layer, None):
            torch.testing.assert_close(layer(input=INPUTS["rows"]), layer(INPUTS["rows"]))
    assert count_products == [5]


class _Doubled(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * 2


def test_what_is_no_plain_linear_layer_is_left_alone() -> None:
    module = nn.ModuleList(
        [
            _Doubled(3, 4),
            nn.Linear(3, 4).to(torch.bfloat16),
            nn.Linear(3, 4, device="meta"),
            nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
            nn.MultiheadAttention(4, 2),
            nn.Bilinear(3, 3, 4),
            nn.LazyLinear(4),
        ]
    )
    with accelerate(module, None):
        assert not any("forward" in vars(layer) for layer in module.modules())


@pytest.mark.parametrize("where", [("of nobody", ""), (find_processor_maker(), "of no processor")])
def test_nothing_is_done_on_another_makers_processor_or_without_its_instructions(
    where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, instructions = where
    monkeypatch.setattr(onednn_linear, "TESTED_PROCESSORS", {maker: (instructions, inf)})
    layer = nn.Linear(3, 4)
    with accelerate(layer, PrepackCache()):
        assert "forward" not in vars(layer)


def test_nothing_is_done_where_a_program_switched_onednn_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    layer = nn.Linear(3, 4)
    with accelerate(layer, None):
        assert "forward" not in vars(layer)
