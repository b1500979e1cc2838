#!/bin/sh
# Pillow reads white as black in JPEG 2000 of more than 8 bits a colour: in scaling to 8 bits it
# rounds up, and 255.5 becomes 256, of which a byte keeps 0.  No error, no warning.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6 imagecodecs==2026.3.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import imagecodecs
import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__, "imagecodecs", imagecodecs.__version__)
same = True
for bits in (10, 12, 16):
    white = np.full((64, 64, 3), 2**bits - 1, np.uint16)
    file = imagecodecs.jpeg2k_encode(white, bitspersample=bits, reversible=True, codecformat="jp2")
    assert np.array_equal(imagecodecs.jpeg2k_decode(file), white)
    seen = np.asarray(Image.open(io.BytesIO(file)))
    print(f"white of {bits} bits: expected 255, Pillow gives {np.unique(seen).tolist()}")
    same &= bool((seen == 0).all())
sys.exit(0 if same else 1)
PYTHON
