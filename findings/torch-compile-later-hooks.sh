#!/bin/sh
# A hook that is set on a module after a compiled model's first call is not called, without a word,
# until an input of another shape has the model compiled anew.
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


def calls_of_a_later_hook(compiles: bool, batches: list[int]) -> int:
    calls: list[int] = []
    torch.compiler.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    run = torch.compile(model, backend="eager") if compiles else model
    with torch.no_grad():
        run(torch.rand(1, 3, 8, 8))
        model[0].register_forward_hook(lambda *_: calls.append(1))
        for batch in batches:
            run(torch.rand(batch, 3, 8, 8))
    return len(calls)


seen = [
    calls_of_a_later_hook(False, [1]),
    calls_of_a_later_hook(True, [1]),
    calls_of_a_later_hook(True, [1, 2]),
]
print(f"expected 1 call as written, 1 compiled, 2 with another batch behind it; seen {seen}")
sys.exit(0 if seen == [1, 0, 1] else 1)
PYTHON
