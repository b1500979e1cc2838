"""The prefix that wrappers put before a model's names is found, and taken off."""

import pytest
import torch

from camcli.models.checkpoints.key_prefix import strip_prefix

OWN = ("stem.weight", "conv.weight", "conv.bias", "fc.weight", "fc.bias")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module.model.", "net.backbone."])
def test_a_prefix_is_taken_off_whatever_it_is(prefix: str) -> None:
    weights = {prefix + name: torch.full((1,), float(i)) for i, name in enumerate(OWN)}
    stripped = strip_prefix(weights, OWN)
    assert [float(stripped.weights[name]) for name in OWN] == [0, 1, 2, 3, 4]
    assert (stripped.prefix, stripped.outside) == (prefix, ())


def test_an_average_of_the_weights_is_preferred_and_the_others_lie_outside() -> None:
    weights = {
        f"{prefix}{name}": torch.full((1,), value)
        for prefix, value in (("model.", 1.0), ("model_ema.", 2.0))
        for name in OWN
    }
    stripped = strip_prefix(weights, OWN)
    assert {float(weight) for weight in stripped.weights.values()} == {2}
    assert stripped.outside == tuple(f"model.{name}" for name in OWN)


def test_a_classifier_beside_the_backbone_is_taken() -> None:
    names = [f"{'head' if name.startswith('fc.') else 'backbone'}.{name}" for name in OWN]
    stripped = strip_prefix({name: torch.ones(1) for name in names}, OWN)
    assert set(stripped.weights) == set(OWN)
    assert stripped.prefix == "backbone."


def test_a_few_names_that_are_the_same_by_chance_are_no_prefix() -> None:
    weights = {f"layers.{i}.weight": torch.ones(1) for i in range(9)}
    stripped = strip_prefix(weights | {"loss.fc.bias": torch.ones(1)}, OWN)
    assert stripped.prefix == ""
    assert "fc.bias" not in stripped.weights
