"""Finds which methods fit a model: those whose evidence the model can give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

import camcli.engine.explain_request as engine
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
    layer = request.layers[0]
    reasons = find_incompatible_parts(
        module, inputs, choice, request, [(name, layer) for name in methods]
    )
    return {name: why for (name, _), why in reasons.items()}


@locks_model
def find_incompatible_parts(
    module: nn.Module,
    inputs: Tensor,
    choice: CategoryChoice | None,
    request: engine.ExplainRequest,
    parts: Iterable[tuple[str, str]],
) -> dict[tuple[str, str], str]:
    """Finds at which layers which methods cannot be run, and says why.  [1 3 H W]

    The request has all of the layers; one pass tells.
    """
    inputs = engine.move_to_model(module, inputs)
    context = engine.make_context(module, inputs, choice, request, graph=True)
    reasons = {}
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        apply_output_reading(module, request.reading),
    ):
        for name, layer in parts:
            if choice is None and depends_on_category(name):
                reasons[name, layer] = "The model has no classes."
                continue
            try:
                replace(request, methods=(name,), parts=())
                for evidence in METHODS[name].evidence:
                    context.get(evidence, layer)
                    if evidence == "gradients_at":
                        # of other inputs, later: they can be had where these can
                        context.get("gradients", layer)
            except CamvizError as error:
                reasons[name, layer] = str(error)
    return reasons
