"""Fresh weights, from the output back to the input, and the model as it was afterwards."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from camcli.errors import ModelError
from camcli.models.state import find_weighted_layers, randomize_layers
from tests.networks import Attending, Staged, noise


def snapshot(module: nn.Module) -> list[tuple[int, Tensor]]:
    return [(id(v), v.clone()) for v in (*module.parameters(), *module.buffers())]


def is_as_before(module: nn.Module, before: list[tuple[int, Tensor]]) -> bool:
    after = [*module.parameters(), *module.buffers()]
    return [id(v) for v in after] == [key for key, _ in before] and all(
        torch.equal(v, kept) for v, (_, kept) in zip(after, before, strict=True)
    )


def test_layers_come_from_the_output_back_to_the_input() -> None:
    names = [layer.name for layer in find_weighted_layers(Staged(), noise())]
    assert names == ["fc", "last.1", "last.0", "middle.1", "middle.0", "stem.1", "stem.0"]


class Backwards(nn.Module):
    """Defined in another order than it runs, with an unused head and a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 9)
        self.shift = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 5.0]))
        self.body = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)) + self.shift)


def test_the_order_is_measured_and_what_is_not_used_is_left_out() -> None:
    names = [layer.name for layer in find_weighted_layers(Backwards(), noise())]
    assert names == ["head", "", "body"]


def test_attention_inside_one_function_is_seen() -> None:
    module = Attending().eval()
    names = [layer.name for layer in find_weighted_layers(module, noise())]
    weighted = [n for n, m in module.named_modules() if list(m.parameters(recurse=False))]
    assert sorted(names) == sorted(weighted)
    assert names[0] == "fc"
    assert names[-1].startswith("stem")
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    order = [layer.name for layer in find_weighted_layers(layer, torch.rand(1, 4, 8))]
    assert {"self_attn", "self_attn.out_proj", "linear1", "norm2"} <= set(order)


def test_all_weights_are_drawn_and_put_back() -> None:
    module = Backwards()
    before = snapshot(module)
    layers = find_weighted_layers(module, noise())
    plain = module(noise())
    with randomize_layers(module, layers):
        for name, value in module.named_parameters():
            same = torch.equal(value, dict(before)[id(value)])
            assert same == name.startswith("unused")
        # a weight of the model's own keeps its mean and deviation, about
        assert abs(float(module.shift.detach().mean()) - 2.75) < 3
        assert not torch.equal(module(noise()), plain)
    assert is_as_before(module, before)
    assert torch.equal(module(noise()), plain)


def test_a_layer_gets_the_same_weights_whatever_else_is_drawn() -> None:
    module = Staged()
    layers = find_weighted_layers(module, noise())
    with randomize_layers(module, layers[:1], seed=3):
        alone = module.fc.weight.clone()
    with randomize_layers(module, layers, seed=3):
        assert torch.equal(module.fc.weight, alone)
    with randomize_layers(module, layers, seed=4):
        assert not torch.equal(module.fc.weight, alone)


def test_statistics_of_norms_are_drawn_with_them_and_put_back() -> None:
    module = Staged().train()
    module(noise())
    module.eval()
    before = snapshot(module)
    assert module.stem[1].running_mean.abs().max() > 0
    with randomize_layers(module, find_weighted_layers(module, noise())):
        assert module.stem[1].running_mean.abs().max() == 0
    assert is_as_before(module, before)


def test_the_model_is_left_as_found_when_the_block_raises() -> None:
    module = Staged().train()
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    before, state = snapshot(module), torch.get_rng_state()
    layers = find_weighted_layers(module, noise())
    with pytest.raises(KeyboardInterrupt), randomize_layers(module, layers):
        raise KeyboardInterrupt
    assert is_as_before(module, before)
    assert module.training and module.fc.weight.requires_grad
    assert module.fc.weight.grad is not None
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_that_puts_other_tensors_in_place_gets_its_own_back() -> None:
    class Replacing(nn.Linear):
        def reset_parameters(self) -> None:
            self.weight = nn.Parameter(torch.rand(2, 3))

    module = Replacing(3, 2)
    before = snapshot(module)
    with randomize_layers(module, find_weighted_layers(module, torch.rand(1, 3))):
        assert not is_as_before(module, before)
    assert is_as_before(module, before)


def test_weights_of_inference_mode_and_tied_ones() -> None:
    with torch.inference_mode():
        module = Backwards()
    before = snapshot(module)
    with randomize_layers(module, find_weighted_layers(module, noise())):
        assert not is_as_before(module, before)
    assert is_as_before(module, before)

    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    names = [layer.name for layer in find_weighted_layers(tied, torch.rand(1, 3))]
    assert names[0] == "0"  # its weight is used last, and its bias first
    with randomize_layers(tied, find_weighted_layers(tied, torch.rand(1, 3))):
        assert tied[2].weight is tied[0].weight


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ModelError, match="no floating-point weights"):
        find_weighted_layers(nn.Flatten(), noise())


def test_drawing_changes_what_a_copy_with_the_same_weights_says() -> None:
    module = Staged().eval()
    layers = find_weighted_layers(module, noise())
    with randomize_layers(module, layers[:3]):
        copy = deepcopy(module)
        assert torch.equal(copy(noise()), module(noise()))
    assert not torch.allclose(copy(noise()), module(noise()))
