"""Copies tensors to a device without waiting for the work queued on it."""

from __future__ import annotations

import torch
from torch import Tensor


def send_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to a device; a GPU copies it by itself, after the work queued before.

    [...] -> the same
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # a copy from memory that is not pinned would wait for all work queued on the GPU
    return tensor.pin_memory().to(device, non_blocking=True)
