"""What watches passes can end a method, and the model is left as it was found."""

from __future__ import annotations

import threading

import pytest
import torch

import camcli
from camcli.engine.device.oom_chunks import run_in_chunks
from camcli.engine.device.pass_watch import watch_passes
from tests.networks import Staged


class Enough(Exception):
    """Raised by the watcher."""


def list_rows(rows: slice) -> tuple[int, int]:
    return rows.start, rows.stop


def test_it_is_asked_before_each_chunk_and_in_its_block_alone() -> None:
    asked: list[None] = []
    with watch_passes(lambda: asked.append(None)):
        assert run_in_chunks(list_rows, 5, 2) == [(0, 2), (2, 4), (4, 5)]
        thread = threading.Thread(target=run_in_chunks, args=(list_rows, 5, 2))
        thread.start()
        thread.join()
    assert len(asked) == 3
    run_in_chunks(list_rows, 5, 2)
    assert len(asked) == 3


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "rise", "occlusion"])
def test_a_method_of_many_passes_ends_and_leaves_the_model_as_it_was(method: str) -> None:
    model = Staged().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, asked = torch.randn(1, 3, 32, 32), [0]

    def explain(last: float) -> None:
        def check() -> None:
            asked[0] += 1
            if asked[0] == last:
                raise Enough

        asked[0] = 0
        with watch_passes(check):
            camcli.heatmaps(model, inputs, method, target_layers="middle")

    explain(float("inf"))
    assert asked[0] >= 1
    # as late as can be
    with pytest.raises(Enough):
        explain(asked[0])
    assert model.training and all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())
