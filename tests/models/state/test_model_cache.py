from __future__ import annotations

import gc
import weakref

import torch
from torch import Tensor, nn

from camcli.models.outputs.interpretation import find_output_reading
from camcli.models.state.model_cache import ModelCache


def test_answers_stay_while_the_parts_do() -> None:
    cache, model, other = ModelCache[int](), nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())
    cache.of(model)["question"] = 1
    assert cache.of(model) == {"question": 1}
    assert cache.of(other) == {}
    model[0] = nn.ReLU()
    assert cache.of(model) == {}


def test_a_part_added_or_taken_away_is_another_model() -> None:
    cache, model = ModelCache[int](), nn.Sequential(nn.ReLU())
    cache.of(model)["question"] = 1
    model.append(nn.ReLU())
    assert cache.of(model) == {}
    cache.of(model)["question"] = 2
    del model[1]
    assert cache.of(model) == {}


def test_nothing_is_kept_alive() -> None:
    cache, model = ModelCache[int](), nn.Sequential(nn.ReLU())
    cache.of(model)["question"] = 1
    part, whole = weakref.ref(model[0]), weakref.ref(model)
    del model
    gc.collect()
    assert part() is None and whole() is None


class ReplaceableEnd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.end = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), nn.Module()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.end(self.fc(self.conv(x).mean((2, 3))))
        return logits


def test_a_part_at_the_address_of_one_that_is_gone_is_not_taken_for_it() -> None:
    torch.manual_seed(0)
    model, addresses = ReplaceableEnd().eval(), set()
    for softmax in (True, False) * 3:
        # freed first, so that the new one lies there
        del model.end
        model.end = nn.Softmax(1) if softmax else nn.Identity()
        addresses.add(id(model.end))
        assert (find_output_reading(model, (3, 16, 16)).end == "softmax") is softmax
    assert len(addresses) < 6
