"""Finds frames, slices and views that a model folds into the batch: [b t h w] to rows [b*t ...]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from camcli.models.inspection.layout import find_tensor
from camcli.models.state import ModelCache, NestedCall, in_this_thread, preserve_state

SEED = 0
UNCHANGED = 1e-4  # as a share of the largest change

_known: ModelCache[int] = ModelCache()


def count_slices(module: nn.Module, layer: str, inputs: Tensor, rows: int) -> int:
    """Returns how many slices of each picture stand one after another in a layer's rows.

    1 where they are no slices, which is measured once for each layer.  [b c H W]
    """
    each, rest = divmod(rows, len(inputs))
    if rest or each < 2 or each > inputs.shape[1]:
        return 1
    known, key = _known.of(module), (layer, each, *inputs.shape[1:])
    if key not in known:
        known[key] = each if _is_independent(module, layer, inputs[:1], each) else 1
    return known[key]


def _is_independent(module: nn.Module, layer: str, inputs: Tensor, each: int) -> bool:
    """Tells whether the first channel changes the first row alone, and the last one the last.

    In windows, or heads, of a picture the first channel is in all of them.
    """
    draw = torch.Generator().manual_seed(SEED)
    first, last = (torch.randn(inputs.shape[1:], generator=draw).to(inputs) for _ in range(2))
    pictures = torch.stack([first, first, first])
    pictures[1, 0], pictures[2, -1] = last[0], last[-1]
    # a model may take one picture at a time
    for together in (3, 1):
        rows = _run_rows(module, layer, torch.split(pictures, together))
        if rows is not None:
            break
    if rows is None or len(rows) != 3 * each:
        return False
    plain, begins, ends = rows.float().reshape(3, each, -1)
    return _list_changed(plain, begins) == [0] and _list_changed(plain, ends) == [each - 1]


def _run_rows(module: nn.Module, layer: str, batches: Sequence[Tensor]) -> Tensor | None:
    """Returns what a layer puts out for all batches; None where the model does not take them."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: object) -> None:
        tensor = find_tensor(output)
        if tensor is not None:
            outputs.append(tensor)

    part = module.get_submodule(layer)
    with torch.no_grad(), preserve_state(module), part.register_forward_hook(in_this_thread(keep)):
        try:
            for batch in batches:
                module(batch)
        except NestedCall:  # nothing is wrong with the model
            raise
        except Exception:  # every model refuses in its own way
            return None
    return torch.cat(outputs[-len(batches) :]) if outputs else None


def _list_changed(plain: Tensor, other: Tensor) -> list[int]:
    """Lists the rows that differ.  [t n]"""
    change = (plain - other).abs().amax(1)
    return torch.nonzero(change > UNCHANGED * change.max()).flatten().tolist()
