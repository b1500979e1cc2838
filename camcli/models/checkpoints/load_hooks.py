"""Applies what a model's own modules and library do to weights before they load them."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from camcli.models.model_spec import Weights


def run_load_hooks(weights: Weights, module: nn.Module) -> Weights:
    """Returns the weights as the modules' hooks and own `_load_from_state_dict` leave them.

    torchvision's vision transformers rename what older versions saved in this way.
    """
    if not any(map(_has_load_hook, module.modules())):
        return weights
    shadow = _copy_structure(module)
    changed: dict[str, Any] = dict(weights)
    for path, part in list(shadow.named_modules()):
        prefix = f"{path}." if path else ""
        part._load_from_state_dict(changed, prefix, {}, False, [], [], [])
    return {name: weight for name, weight in changed.items() if isinstance(weight, Tensor)}


def _has_load_hook(part: nn.Module) -> bool:
    """Tells whether a module may rename weights; norms do no more than count their batches."""
    plain = (nn.Module._load_from_state_dict, _NormBase._load_from_state_dict)
    return bool(part._load_state_dict_pre_hooks) or type(part)._load_from_state_dict not in plain


def _copy_structure(module: nn.Module) -> nn.Module:
    """Copies a module, but not its weights: nothing that is loaded into the copy goes anywhere."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), False)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)


def rename_by_transformers(weights: Weights, module: nn.Module) -> Weights:
    """Lets transformers rename its files' weights for a model of its own, or one that holds such.

    transformers saves under other names than its classes have, and knows both.
    """
    transformers = sys.modules.get("transformers")
    if transformers is None:
        return weights
    for path, part in module.named_modules():
        if isinstance(part, transformers.PreTrainedModel):
            return _load_part(weights, part, f"{path}." if path else "")
    return weights


def _load_part(weights: Weights, part: Any, prefix: str) -> Weights:
    inside = {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}
    # it shows a bar, and reports what it could not place
    with contextlib.redirect_stderr(io.StringIO()):
        model, report = type(part).from_pretrained(
            None, config=part.config, state_dict=dict(inside), output_loading_info=True
        )
    lost = {key for kind in ("missing_keys", "mismatched_keys") for key in report[kind]}
    named = {prefix + k: w for k, w in model.state_dict().items() if k not in lost}
    named |= {prefix + key: inside[key] for key in report["unexpected_keys"] if key in inside}
    return {**{k: w for k, w in weights.items() if not k.startswith(prefix)}, **named}
