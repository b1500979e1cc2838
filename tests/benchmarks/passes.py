"""Runs bare batched passes until it is killed, a line for each: `python -m ... NETWORK SIZE`."""

from __future__ import annotations

import sys

import torch

import camcli

WARM_UP = 5


def main(network: str, size: int) -> None:
    """Says so when it is warm, and then at the end of each pass."""
    module = camcli.load_model(f"timm/{network}", pretrained=False, device="cpu").module
    module = module.to(memory_format=torch.channels_last)
    inputs = torch.randn(size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(WARM_UP):
            module(inputs)
        while True:
            print(flush=True)
            module(inputs)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
