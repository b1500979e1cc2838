#!/bin/sh
# OpenCV reads a TIFF whose colours lie in separate planes as other pixels, and Pillow does where
# they have 16 bits and are not compressed: no error, no warning, and the shape and type are right.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3 opencv-python-headless==5.0.0.93
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import cv2
import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "OpenCV", cv2.__version__, "tifffile", tifffile.__version__)
picture = np.zeros((48, 64, 3), np.uint16)
picture[12:36, 16:48] = 60_000, 30_000, 5_000
wrong = {"OpenCV": 0, "Pillow": 0}
for compression in (None, "zlib"):
    file = io.BytesIO()
    planes = picture.transpose(2, 0, 1)
    tifffile.imwrite(
        file, planes, photometric="rgb", planarconfig="separate", compression=compression
    )
    file.seek(0)
    assert np.array_equal(tifffile.imread(file).transpose(1, 2, 0), picture)
    content = np.frombuffer(file.getvalue(), np.uint8)
    by_opencv = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)[..., ::-1] >> 8
    by_pillow = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    for name, seen in (("OpenCV", by_opencv), ("Pillow", by_pillow)):
        most = int(np.abs(seen.astype(int) - (picture >> 8)).max())
        print(f"compression {compression}: expected no difference, {name}'s is {most} of 255")
        wrong[name] += most > 1
sys.exit(0 if wrong == {"OpenCV": 2, "Pillow": 1} else 1)
PYTHON
