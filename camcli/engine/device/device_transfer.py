"""From main memory to a device, without waiting for what the device is still doing."""

from __future__ import annotations

import torch
from torch import Tensor


def send_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to a device; a GPU fetches it by itself, behind what it does already."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # out of memory that may be moved, the copy would wait for all that the GPU was told before
    return tensor.pin_memory().to(device, non_blocking=True)
