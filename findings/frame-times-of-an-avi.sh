#!/bin/bash
# Frames of H.264 in an AVI file, decoded by PyAV (FFmpeg), come in the order in which they are shown.
# One would expect their `pts` to rise with them, as in MP4.  They do not: an AVI has no such times,
# FFmpeg numbers the packets in the order of decoding, and the decoder hands these numbers on with
# B-frames put in order.  `dts` rises by one a frame, and is what tells the time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q av==18.1.0 numpy==2.4.0
"$work/venv/bin/python" - "$work" <<'P'
import sys
from pathlib import Path

import av
import numpy as np

print("PyAV", av.__version__, "libavcodec", ".".join(map(str, av.library_versions["libavcodec"])))
found = {}
for suffix in ("mp4", "avi"):
    path = Path(sys.argv[1]) / f"clip.{suffix}"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height = 64, 48
        for index in range(12):
            pixels = np.full((48, 64, 3), 20 * index, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        out.mux(stream.encode(None))
    with av.open(str(path)) as read:
        shown = [
            (round(float(frame.to_ndarray(format="rgb24").mean()) / 20), frame.pts, frame.dts)
            for frame in read.decode(video=0)
        ]
    places, pts, dts = zip(*shown)
    print(f"{suffix}: frames {places}\n     pts    {pts}\n     dts    {dts}")
    rising = [time for time in dts if time is not None]
    found[suffix] = list(pts) == sorted(pts), places == tuple(range(12)), rising == sorted(rising)
print("expected: pts rise in both; seen (pts rise, frames in order, dts rise):", found)
sys.exit(found != {"mp4": (True, True, True), "avi": (False, True, True)})
P
