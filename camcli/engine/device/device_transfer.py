"""Copies tensors to a device without waiting for its earlier work."""

from __future__ import annotations

import torch
from torch import Tensor


def send_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to a device; a GPU fetches it after its earlier work, on its own."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # from memory that is not pinned, the copy would wait for all earlier work of the GPU
    return tensor.pin_memory().to(device, non_blocking=True)
