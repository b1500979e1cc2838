"""Sets the precision in which a pass runs; maps are float32 in any case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from camcli.records import Precision
from camcli.utils.shared_setting import SharedSetting

DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(precision: Precision, device: torch.device) -> Precision:
    """Returns the precision that `auto` means on a device: bf16 where it is fast, else float32."""
    if precision != "auto":
        return precision
    # processors that have bf16 differ too much in its speed
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if fast else "float32"


def is_emulated(precision: Precision, device: torch.device) -> bool:
    """Tells whether a processor only emulates such numbers, which is slow (camviz help speed)."""
    asked = f"_is_mkldnn_{choose_precision(precision, device)}_supported"
    is_supported: Callable[[], bool] | None = getattr(torch.ops.mkldnn, asked, None)
    # torch does not know, so nothing is claimed
    return device.type == "cpu" and is_supported is not None and not is_supported()


@contextmanager
def use_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Runs models in a precision; float32 leaves the caller's autocast on.

    On CUDA float32 is all of float32, while every other precision, `auto` too, lets TF32 do what is
    left in float32.  The caller's own settings come back afterwards.
    """
    dtype = DTYPES.get(choose_precision(precision, device))
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_set_tf32.hold_at(precision != "float32"))
        if dtype:
            stack.enter_context(torch.autocast(device.type, dtype))
        yield


@contextmanager
def _allow_tf32(allowed: bool) -> Iterator[None]:
    settings = _list_settings(allowed)
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in settings]
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


_set_tf32: SharedSetting[bool] = SharedSetting(_allow_tf32)


def _list_settings(allowed: bool) -> list[tuple[Any, str, Any]]:
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    switches = [(owner, "allow_tf32", allowed) for owner in (matmul, cudnn)]
    try:
        for owner, name, _ in switches:
            getattr(owner, name)
    except RuntimeError:
        # a caller has used the newer names of these, and torch wants no mixing of the two
        value = "tf32" if allowed else "ieee"
        return [(owner, "fp32_precision", value) for owner in (matmul, cudnn.conv)]
    return switches
