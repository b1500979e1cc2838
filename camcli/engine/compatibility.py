"""Finds the methods that fit a model: it can provide all of their evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from camcli.engine.answer_request import make_context, move_to_model
from camcli.engine.explain_request import ExplainRequest
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
    request: ExplainRequest,
    methods: Iterable[str],
) -> dict[str, str]:
    """Returns {method: reason} for methods that do not fit the request or the model.  [1 3 H W]

    `choice` None means that no class is asked for.
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
    request: ExplainRequest,
    parts: Iterable[tuple[str, str]],
) -> dict[tuple[str, str], str]:
    """Returns {(method, layer): reason} for pairs that cannot be run, after one pass.  [1 3 H W]

    The request has to name all of the layers.
    """
    inputs = move_to_model(module, inputs)
    context = make_context(module, inputs, choice, request, graph=True)
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
                        # computed for other inputs later, which works wherever it works for these
                        # inputs
                        context.get("gradients", layer)
            except CamvizError as error:
                reasons[name, layer] = str(error)
    return reasons
