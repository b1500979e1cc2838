#!/bin/sh
# A Swin of transformers answers for a picture otherwise once it has seen a smaller one: a block whose
# grid is no larger than its window sets its shift to 0, and keeps it for all later pictures.  In eval
# mode, without gradients, one forward pass is expected to leave the next one as it was.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
import transformers
from transformers import SwinConfig, SwinForImageClassification

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
config = SwinConfig(
    image_size=32,
    patch_size=4,
    embed_dim=16,
    depths=[2, 2],
    num_heads=[2, 4],
    window_size=4,
    num_labels=5,
    initializer_range=0.3,
)
model = SwinForImageClassification(config).eval()
small, large = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 64)


def shifts() -> list[int]:
    return [int(block.shift_size) for layer in model.swin.encoder.layers for block in layer.blocks]


with torch.no_grad():
    first = model(large, interpolate_pos_encoding=True).logits
    again = model(large, interpolate_pos_encoding=True).logits
    before = shifts()
    model(small)
    behind = model(large, interpolate_pos_encoding=True).logits
same, changed = float((again - first).abs().max()), float((behind - first).abs().max())
print("logits of the large picture", [round(x, 3) for x in first[0].tolist()])
print(f"largest difference when it is asked again: {same:.3g}")
print(f"largest difference behind a smaller picture: {changed:.3g} (expected 0)")
print(f"shifts of the blocks before {before}, behind {shifts()}")
sys.exit(0 if same == 0 and changed > 1e-3 and before != shifts() else 1)
PYTHON
