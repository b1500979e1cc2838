"""In which precision a pass is run; maps are float32 whatever it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from camcli.records import Precision

DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def chosen(precision: Precision, device: torch.device) -> Precision:
    """Returns the precision that `auto` means on a device: bf16 where it is fast, else float32."""
    if precision != "auto":
        return precision
    # processors that have bf16 differ too much in what they make of it
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if fast else "float32"


def running_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Runs models in a precision; float32 leaves them as they are, and the caller's autocast on."""
    dtype = DTYPES.get(chosen(precision, device))
    return torch.autocast(device.type, dtype) if dtype else nullcontext()
