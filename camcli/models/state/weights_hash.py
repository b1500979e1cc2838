"""Makes one short text that identifies a model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.state.model_lock import locks_model
from camcli.models.state.model_state import unwrap


@locks_model
def hash_weights(module: nn.Module) -> str:
    """Returns 16 hex digits that stand for a model's weights: names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, value in unwrap(module).state_dict().items():
        for tensor_name, tensor in _iterate_plain_tensors(name, value):
            digest.update(f"{tensor_name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            if _has_values(tensor):
                # in one order, whatever the memory format
                values = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
                digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _iterate_plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Splits the values of a state dict into dense tensors of plain numbers, each with a name."""
    parts: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        parts = value
    elif isinstance(value, tuple | list):
        parts = {str(index): part for index, part in enumerate(value)}
    elif not isinstance(value, Tensor):
        return
    elif hasattr(value, "__tensor_flatten__"):
        # a tensor in a format of its own, such as torchao's, names the plain ones in it
        parts = {key: getattr(value, key) for key in value.__tensor_flatten__()[0]}
    elif value.is_nested:
        parts = {str(index): part for index, part in enumerate(value.unbind())}
    elif value.is_quantized:
        parts = _read_quantized(value)
    elif value.layout != torch.strided:
        parts = {"dense": value.detach().to_dense()}
    else:
        yield name, value.detach()
    for key, part in parts.items():
        yield from _iterate_plain_tensors(f"{name}.{key}", part)


def _read_quantized(tensor: Tensor) -> Mapping[str, Tensor]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
        return {"integers": tensor.int_repr(), "scale": scale}
    zeros = tensor.q_per_channel_zero_points()
    return {"integers": tensor.int_repr(), "scales": tensor.q_per_channel_scales(), "zeros": zeros}


def _has_values(tensor: Tensor) -> bool:
    # on the meta device, and in a FakeTensor, there are shapes alone
    return not tensor.is_meta and not hasattr(tensor, "fake_device")
