#!/bin/sh
# Pillow 13 resizes tall pictures by columns first, where all versions before began with the rows,
# as torchvision still does with tensors.  Between the two passes values are cut off at black and
# white, so that the order shows: a network sees another picture, without a word.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/resize.py" <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
for name, (height, width) in {"tall": (672, 224), "broad": (224, 672)}.items():
    # fine print: black and white dots
    pixels = np.random.default_rng(0).integers(0, 2, (height, width), dtype=np.uint8) * 255
    image = Image.fromarray(np.stack([pixels] * 3, 2))
    small = image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    np.save(f"{sys.argv[1]}-{name}.npy", np.asarray(small))
PYTHON
for version in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "pillow==$version" numpy==2.4.6
    "$folder/$version/bin/python" "$folder/resize.py" "$folder/$version"
done
"$folder/13.0.0/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np

steps = {}
for name in ("tall", "broad"):
    old, new = (np.load(f"{sys.argv[1]}/{v}-{name}.npy").astype(int) for v in ("12.3.0", "13.0.0"))
    steps[name] = int(np.abs(old - new).max())
    share = float((old != new).mean())
    print(f"{name}: expected the same pixels, {share:.0%} differ, by up to {steps[name]} grey levels")
sys.exit(0 if steps["tall"] > 10 and steps["broad"] == 0 else 1)
PYTHON
