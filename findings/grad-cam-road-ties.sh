#!/bin/sh
# grad-cam's ROAD removes the whole picture where the map has many equal values: it removes all pixels
# that are at or above a percentile of the map, and zeros are at or above a percentile that is 0.
# Maps behind a ReLU, as those of GradCAM are, are zero on large parts of the picture.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    grad-cam==1.5.7 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

print("grad-cam", version("grad-cam"), "torch", torch.__version__, "numpy", np.__version__)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 100, 4)).eval()
picture = torch.rand(1, 3, 10, 10)
without_ties = np.random.default_rng(0).random((1, 10, 10)).astype(np.float32)
maps = {
    "all values different": without_ties,
    "half of them zero": np.maximum(without_ties - np.median(without_ties), 0),
}
seen = {}
for name, heat in maps.items():
    for percentile in (30, 80):
        _, altered = ROADMostRelevantFirst(percentile=percentile)(
            picture, heat, [ClassifierOutputTarget(0)], model, return_visualization=True
        )
        # the imputed pixels have noise added, so that each of them differs
        removed = int((altered[0] != picture[0]).any(0).sum())
        print(f"{name}, percentile {percentile}: {removed} of 100 pixels are removed, "
              f"expected {100 - percentile}")
        seen[name, percentile] = removed
sys.exit(0 if list(seen.values()) == [70, 20, 100, 20] else 1)
PYTHON
