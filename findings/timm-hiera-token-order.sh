#!/bin/sh
# The tokens of timm's Hiera stand in the order of its mask units, not row by row, in all but the last
# stage: a block's output that is reshaped to its grid, as with other transformers, is scrambled, though
# its shape is right.  Only `model.reroll` puts it in order.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet timm==1.0.31 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import timm
import torch

print("timm", timm.__version__, "torch", torch.__version__)
torch.manual_seed(0)
model = timm.create_model("hiera_tiny_224", pretrained=False).eval()
outputs = {}
for name in ("blocks.1", "blocks.9", "blocks.11"):
    model.get_submodule(name).register_forward_hook(
        lambda _module, _input, output, name=name: outputs.update({name: output})
    )
picture = torch.rand(1, 3, 224, 224)
in_place = {name: [] for name in ("blocks.1", "blocks.9", "blocks.11")}
# the picture in 7 x 7 squares of 32 pixels: those on its diagonal are changed one after the other
for square in range(7):
    extent = slice(32 * square, 32 * (square + 1))
    changed = picture.clone()
    changed[..., extent, extent] = 1 - changed[..., extent, extent]
    with torch.inference_mode():
        model(picture)
        before = dict(outputs)
        model(changed)
    for name, after in outputs.items():
        difference = (after - before[name])[0].abs().sum(-1)
        side = round(len(difference) ** 0.5)
        row, column = divmod(int(difference.argmax()), side)
        seen = row * 7 // side, column * 7 // side
        in_place[name].append(seen == (square, square))
        if square == 3:
            print(f"{name}, {side} x {side} tokens: changed square (3, 3), most changed in {seen}")
counts = {name: sum(hits) for name, hits in in_place.items()}
print(f"expected: the token that changes most is in the changed square, 7 of 7; seen {counts}")
scrambled = counts["blocks.1"] < 5 and counts["blocks.9"] < 5
sys.exit(0 if scrambled and counts["blocks.11"] == 7 else 1)
PYTHON
