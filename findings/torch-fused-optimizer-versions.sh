#!/bin/sh
# A fused optimizer changes weights in place without raising their version counters.  So autograd does
# not see that a weight which a graph has saved was changed before `backward`, and gives gradients of
# the new weight without a word; with any other optimizer it raises.  What compares versions to know
# whether weights are still the same (a cache of folded or packed weights) takes trained ones for old.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
from torch import nn

print("torch", torch.__version__)
OPTIMIZERS = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


def step_once(kind: type[torch.optim.Optimizer], fused: bool) -> tuple[bool, bool, bool]:
    """Whether a step changes the weight, raises its version, and is noticed by autograd."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = kind(layer.parameters(), lr=0.1, fused=fused)
    pictures = torch.rand(4, 3, requires_grad=True)
    score = layer(pictures).sum()
    layer(pictures).square().sum().backward()
    before, version = layer.weight.detach().clone(), layer.weight._version
    optimizer.step()
    is_changed = not torch.equal(layer.weight, before)
    is_counted = layer.weight._version > version
    try:
        score.backward()
    except RuntimeError:
        return is_changed, is_counted, True
    return is_changed, is_counted, False


seen = {}
for fused in (False, True):
    for kind in OPTIMIZERS:
        seen[fused, kind] = step_once(kind, fused)
        changed, counted, noticed = seen[fused, kind]
        print(f"{kind.__name__}, fused={fused}: weight changed {changed}, "
              f"version raised {counted} (expected True), autograd raises {noticed} (expected True)")
expected = {False: (True, True, True), True: (True, False, False)}
sys.exit(0 if all(what == expected[fused] for (fused, _), what in seen.items()) else 1)
PYTHON
