"""`camviz --preview-model`: the layers of a model, and which of them can be targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camcli.cli.loading import load_structure
from camcli.cli.output import print_json, say, show
from camcli.texts import escape

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from camcli.config import Options
    from camcli.models.layers import LayerFacts, Survey


def show_model(options: Options, *, as_json: bool) -> None:
    """Prints a model's layers as a tree, or as one JSON object; no weights are needed."""
    from camcli.models.layers import survey
    from camcli.models.model_lock import lock_model
    from camcli.models.output_reading import reading_output

    classifier = load_structure(options)
    module = classifier.module
    with lock_model(module), reading_output(module, classifier.reading):
        found = survey(module, (classifier.in_chans, *classifier.preprocessing.size))
    if as_json:
        print_json(_data(classifier.name, found))
    else:
        show(_tree(classifier.name, found), wide=True)
        say(escape(_default_line(found)))


def _data(model: str, found: Survey) -> dict[str, Any]:
    default = found.default
    return {
        "model": model,
        "input_size": list(found.input_size),
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
            for layer in found.layers
        ],
    }


def _tree(model: str, found: Survey) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    size = "x".join(map(str, found.input_size))
    root = Tree(Text.assemble((escape(model), "bold"), f"  input {size}"), guide_style="dim")
    branches = {"": root}
    for layer in found.layers:
        if layer.name:
            parent, _, _ = layer.name.rpartition(".")
            branches[layer.name] = branches.get(parent, root).add(_branch(layer, found))
    return root


def _branch(layer: LayerFacts, found: Survey) -> Text:
    from rich.text import Text

    text = Text(escape(layer.name), style="green" if layer.is_target else "")
    text.append(f"  {escape(layer.type)}", style="dim")
    if layer.shape:
        text.append(f"  {'x'.join(map(str, layer.shape))}")
    if layer.layout:
        text.append(f"  grid {'x'.join(map(str, layer.layout.grid))}")
    if layer.parameters:
        text.append(f"  {_short(layer.parameters)}", style="dim")
    if layer.called != 1:
        text.append(f"  called {layer.called}x" if layer.called else "  not called", style="dim")
    if layer.is_target:
        text.append("  target", style="green")
    if found.default and layer.name == found.default.name:
        text.append("  <- default", style="bold green")
    return text


def _default_line(found: Survey) -> str:
    if found.default is None:
        why = f", {found.problem}" if found.problem else ""
        return f"default: none{why}; name a layer with --target-layers"
    return f"default: {found.default.name}, {found.default.reason}"


def _short(count: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
