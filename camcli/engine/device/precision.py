"""Sets the precision of a pass; maps are float32 in any case."""

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
    # the speed of bf16 differs too much among the processors that have it
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if fast else "float32"


def is_emulated(precision: Precision, device: torch.device) -> bool:
    """Tells whether a processor only emulates a precision, which is slow (camviz help speed)."""
    asked = f"_is_mkldnn_{choose_precision(precision, device)}_supported"
    is_supported: Callable[[], bool] | None = getattr(torch.ops.mkldnn, asked, None)
    # torch does not know, so this does not claim it
    return device.type == "cpu" and is_supported is not None and not is_supported()


@contextmanager
def use_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Runs models in a precision; float32 leaves the caller's autocast as it is.

    On CUDA, float32 switches TF32 off; every other precision, also `auto`, lets TF32 do the
    operations that remain in float32.  The caller's own settings are restored afterwards.
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
        # the caller has used the newer names of these settings, and torch refuses to mix the two
        value = "tf32" if allowed else "ieee"
        return [(owner, "fp32_precision", value) for owner in (matmul, cudnn.conv)]
    return switches
