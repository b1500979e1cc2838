"""Finds which methods fit a model: those whose evidence the model can give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

import camcli.engine.runner as engine
from camcli.engine.targets import CategoryChoice
from camcli.errors import CamvizError
from camcli.models.outputs.interpretation import apply_output_reading
from camcli.models.state import locks_model
from camcli.registry import METHODS, depends_on_category


@locks_model
def find_incompatible_methods(
    module: nn.Module,
    inputs: Tensor,
    choice: CategoryChoice | None,
    request: engine.ExplainRequest,
    methods: Iterable[str],
) -> dict[str, str]:
    """Finds the methods that do not fit the request or the model, and says why.  [1 3 H W]

    Without a choice there is no class to ask for.
    """
    inputs = engine.move_to_model(module, inputs)
    context = engine.make_context(module, inputs, choice, request, graph=True)
    reasons = {}
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        apply_output_reading(module, request.reading),
    ):
        for name in methods:
            if choice is None and depends_on_category(name):
                reasons[name] = "The model has no classes."
                continue
            try:
                replace(request, methods=(name,))
                for evidence in METHODS[name].evidence:
                    context.get(evidence, request.layers[0])
                    if evidence == "gradients_at":
                        # of other inputs, later: they can be had where these can
                        context.get("gradients", request.layers[0])
            except CamvizError as error:
                reasons[name] = str(error)
    return reasons
