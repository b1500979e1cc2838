"""Evidence of guided backpropagation, whose gradients go back to the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from camcli.engine.batch_context import BatchContext
from camcli.engine.evidence.forward_backward import ScoreFunction, sum_scores
from camcli.engine.hooks import check_logits
from camcli.errors import MethodError
from camcli.models.acceleration import copy_to_model_format
from camcli.models.inspection.autograd_graph import iterate_steps_to
from camcli.models.inspection.rectifiers import find_rectifiers, record_composed_rectifiers
from camcli.models.state import make_recordable, preserve_state
from camcli.registry import evidence
from camcli.utils.profiling import stage

Gradients = tuple[Tensor | None, ...]

NO_GRADIENT = (
    "No gradient reaches the pixels (detach, integers, quantised weights). "
    "Try --method occlusion or rise, which need none."
)


@dataclass(frozen=True)
class GuidedPass:
    """A pass that autograd records from its inputs [b 3 H W] on, with guided gradients."""

    inputs: Tensor
    logits: Tensor


@evidence
def guided_pass(context: BatchContext) -> GuidedPass:
    """Runs a pass whose rectifiers let only positive gradients through in the backward pass.

    The rectifier's own derivative applies as well: for ReLU both together are the paper's rule, and
    smooth rectifiers are treated alike.  Raises MethodError for a model without rectifiers.
    """
    inputs = copy_to_model_format(context.module, context.inputs).clone().requires_grad_()
    with (
        torch.enable_grad(),
        preserve_state(context.module),
        record_composed_rectifiers(context.module) as composed,
    ):
        # the model gets a clone, so that it may write into its input
        logits = check_logits(make_recordable(context.module)(inputs.clone()))
    if not logits.requires_grad:
        raise MethodError(NO_GRADIENT)
    rectifiers = {*composed, *find_rectifiers(iterate_steps_to(logits.grad_fn))}
    if not rectifiers:
        raise MethodError(
            "Guided backprop needs rectifiers (ReLU, GELU, SiLU, ...), and none was found in this "
            f"{type(context.module).__name__}. Try --method gradcam."
        )
    for node in rectifiers:
        node.register_prehook(_keep_positive)
    return GuidedPass(inputs, logits)


def _keep_positive(gradients: Gradients) -> Gradients:
    return tuple(None if g is None else g.clamp(min=0) for g in gradients)


@evidence
def guided_gradients(
    context: BatchContext, guided_pass: GuidedPass, target: ScoreFunction
) -> Tensor:
    """The score's guided gradients at the network's input, arXiv:1412.6806, in float32.  [b 3 H W]

    Raises MethodError if no gradient reaches the input.
    """
    with torch.enable_grad():
        scores = target(guided_pass.logits, None)
    with stage("backward"), preserve_state(context.module):
        (gradients,) = torch.autograd.grad(
            sum_scores(scores),
            guided_pass.inputs,
            retain_graph=True,
            allow_unused=True,
        )
    if gradients is None:
        raise MethodError(NO_GRADIENT)
    return gradients.float()
