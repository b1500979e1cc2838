#!/bin/sh
# torch-cam's overlay_mask squares a map before it colours it: a place that is half as hot as the
# hottest one is drawn in the colour of a quarter, so that regions look smaller than the map says, and
# a colour bar of the map's own values does not fit the picture.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchcam==0.5.0 torch==2.14.1 torchvision==0.29.1 \
    numpy==2.4.6 matplotlib==3.11.2 pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torchcam.utils import overlay_mask

print("torchcam", version("torchcam"), "matplotlib", version("matplotlib"))
heat = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (32, 1))
black = Image.new("RGB", (256, 32))
# with alpha 0 the heat alone is left
drawn = np.asarray(overlay_mask(black, Image.fromarray(heat, mode="F"), "gray", alpha=0.0))
seen = drawn[16, 128].tolist()
expected = [round(255 * channel) for channel in colormaps["gray"](float(heat[0, 128]))[:3]]
print(f"heat {heat[0, 128]:.3f}: expected grey {expected}, seen {seen}")
squared = [round(255 * float(heat[0, 128]) ** 2)] * 3
sys.exit(0 if max(abs(a - b) for a, b in zip(seen, squared)) <= 2 else 1)
PYTHON
