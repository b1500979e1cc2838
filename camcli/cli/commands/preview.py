"""`camviz --preview-model`: the layers of a model, and which of them can be targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camcli.cli.model_loading import load_structure
from camcli.cli.printer import print_json, print_text, show
from camcli.errors import UsageError
from camcli.utils.text_files import escape_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text
    from rich.tree import Tree

    from camcli.config import Options
    from camcli.models.inspection.target_layers import LayerFacts, Survey


def show_model(options: Options, *, depth: int | None = None, as_json: bool) -> None:
    """Prints the default layer and all as a tree, or one JSON object; no weights are needed.

    A depth shows so many levels of the tree, and the default layer wherever it lies.
    """
    from camcli.models.inspection.target_layers import survey_layers
    from camcli.models.outputs.interpretation import apply_output_reading
    from camcli.models.state import lock_model

    classifier = load_structure(options)
    module = classifier.module
    with lock_model(module), apply_output_reading(module, classifier.reading):
        layer_survey = survey_layers(module, (classifier.in_chans, *classifier.preprocessing.size))
    layers = _choose_layers(layer_survey, depth)
    if as_json:
        print_json(_to_json(classifier.name, layer_survey, layers))
    else:
        print_text(escape_text(_format_default(layer_survey)))
        show(_build_tree(classifier.name, layer_survey, layers), wide=True)


def read_depth(typed: str | None) -> int | None:
    """Reads how many levels are shown, None for all; raises UsageError."""
    if typed is None:
        return None
    if not typed.isdecimal() or int(typed) < 1:
        raise UsageError(f"--depth {typed}: takes a whole number from 1.")
    return int(typed)


def _choose_layers(survey: Survey, depth: int | None) -> list[LayerFacts]:
    """Returns the layers of the upper levels, and the default one with what it lies in."""
    default = f"{survey.default.name}." if survey.default else ""
    return [
        layer
        for layer in survey.layers
        if depth is None or layer.name.count(".") < depth or default.startswith(f"{layer.name}.")
    ]


def _to_json(model: str, survey: Survey, layers: Sequence[LayerFacts]) -> dict[str, Any]:
    default = survey.default
    return {
        "model": model,
        "input_size": list(survey.input_size),
        "default": default and {"name": default.name, "reason": default.reason},
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "shape": layer.shape and list(layer.shape),
                "grid": layer.layout and list(layer.layout.grid),
                "layout": layer.layout and layer.layout.kind,
                "parameters": layer.parameters,
                "called": layer.called,
                "is_target": layer.is_target,
                "is_default": default is not None and layer.name == default.name,
            }
            for layer in layers
        ],
    }


def _build_tree(model: str, survey: Survey, layers: Sequence[LayerFacts]) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    size = "x".join(map(str, survey.input_size))
    root = Tree(Text.assemble((escape_text(model), "bold"), f"  input {size}"), guide_style="dim")
    branches = {"": root}
    for layer in layers:
        if layer.name:
            parent, _, _ = layer.name.rpartition(".")
            branches[layer.name] = branches.get(parent, root).add(_format_layer(layer, survey))
    return root


def _format_layer(layer: LayerFacts, survey: Survey) -> Text:
    from rich.text import Text

    text = Text(escape_text(layer.name), style="green" if layer.is_target else "")
    text.append(f"  {escape_text(layer.type)}", style="dim")
    if layer.shape:
        text.append(f"  {'x'.join(map(str, layer.shape))}")
    if layer.layout:
        text.append(f"  grid {'x'.join(map(str, layer.layout.grid))}")
    if layer.parameters:
        text.append(f"  {_format_count(layer.parameters)}", style="dim")
    if layer.called != 1:
        text.append(f"  called {layer.called}x" if layer.called else "  not called", style="dim")
    if layer.is_target:
        text.append("  target", style="green")
    if survey.default and layer.name == survey.default.name:
        text.append("  <- default", style="bold green")
    return text


def _format_default(survey: Survey) -> str:
    if survey.default is None:
        why = f", {survey.problem}" if survey.problem else ""
        return f"default: none{why}; name a layer with --target-layers"
    return f"default: {survey.default.name}, {survey.default.reason}"


def _format_count(count: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
