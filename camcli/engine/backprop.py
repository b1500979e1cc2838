"""Evidence that is followed back to the pixels themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from camcli.engine.evidence import Scored, total
from camcli.engine.hooks import logits_of
from camcli.engine.probe import Probe
from camcli.errors import MethodError
from camcli.models.graph import steps_to
from camcli.models.memory_format import network_input
from camcli.models.rectifiers import composed_noted, rectifiers_among
from camcli.models.state import left_as_found, recordable
from camcli.registry import evidence
from camcli.stages import stage

Gradients = tuple[Tensor | None, ...]

NO_GRADIENT = (
    "No gradient comes back to the pixels (detach, integers, quantised weights). Try --method "
    "occlusion or rise, which need none."
)


@dataclass(frozen=True)
class Guided:
    """A pass that is recorded from its inputs [b 3 H W] on, and guided on the way back."""

    inputs: Tensor
    logits: Tensor


@evidence
def guided(probe: Probe) -> Guided:
    """Runs a pass whose rectifiers, on the way back, take positive gradients only.

    What a rectifier's own derivative does comes on top; for ReLU both together are the paper's
    rule, for smooth ones it is the same rule.  Raises MethodError for a model without rectifiers.
    """
    inputs = network_input(probe.module, probe.inputs).clone().requires_grad_()
    with (
        torch.enable_grad(),
        left_as_found(probe.module),
        composed_noted(probe.module) as composed,
    ):
        # a clone goes on, so that a model may write into its input
        logits = logits_of(recordable(probe.module)(inputs.clone()))
    if not logits.requires_grad:
        raise MethodError(NO_GRADIENT)
    rectifiers = {*composed, *rectifiers_among(steps_to(logits.grad_fn))}
    if not rectifiers:
        raise MethodError(
            f"Guided backprop holds gradients back at rectifiers (ReLU, GELU, SiLU, ...), and this "
            f"{type(probe.module).__name__} has none that can be seen. Try --method gradcam."
        )
    for node in rectifiers:
        node.register_prehook(_positive)
    return Guided(inputs, logits)


def _positive(gradients: Gradients) -> Gradients:
    return tuple(None if g is None else g.clamp(min=0) for g in gradients)


@evidence
def guided_gradients(probe: Probe, guided: Guided, target: Scored) -> Tensor:
    """The score's guided gradients at the network's input, arXiv:1412.6806, in float32.  [b 3 H W]

    Raises MethodError where no gradient comes back.
    """
    with torch.enable_grad():
        scores = target(guided.logits, None)
    with stage("backward"), left_as_found(probe.module):
        (found,) = torch.autograd.grad(
            total(scores),
            guided.inputs,
            retain_graph=True,
            allow_unused=True,
        )
    if found is None:
        raise MethodError(NO_GRADIENT)
    return found.float()
