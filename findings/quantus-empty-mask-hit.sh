#!/bin/sh
# Quantus' PointingGame counts a picture whose mask is empty as a hit.  "Return NaN if segmentation is
# empty", says its code; but it writes the NaN into an array of booleans, where it becomes True.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet quantus==0.6.0 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import quantus
import torch

print("Quantus", version("quantus"), "torch", torch.__version__, "numpy", np.__version__)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4)).eval()
pictures = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
maps, masks = np.zeros((3, 1, 8, 8)), np.zeros((3, 1, 8, 8), bool)
maps[:, :, 2, 2] = 1
masks[0, :, 2, 2] = True  # the maximum lies inside
masks[1, :, 5, 5] = True  # outside; the third picture's mask is empty
metric = quantus.PointingGame(disable_warnings=True)
seen = metric(
    model=model,
    x_batch=pictures,
    y_batch=np.zeros(3, int),
    a_batch=maps,
    s_batch=masks,
    device="cpu",
)
seen = [float(hit) for hit in seen]
print(f"inside, outside, empty mask: expected 1, 0, nan (or an error); seen {seen}")
sys.exit(0 if seen == [1, 0, 1] else 1)
PYTHON
