"""Explains a tiny random model of every class of transformers that classifies pictures.

`python -m tests.tools.coverage --transformers` writes the table into `docs/transformers.md`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

import camcli
from camcli.engine.layer_selection import find_default_layer
from camcli.errors import CamvizError, MethodError
from camcli.models.hugging_face.networks import fix_for_pictures
from camcli.models.inspection.attention import measure_attentions
from camcli.models.outputs.interpretation import OutputReading
from tests.tiny_transformers import (
    CLASSIFIERS,
    OTHERS,
    Tiny,
    build_tiny,
    compute_gradcam_by_hand,
    draw_noise,
)
from tests.tools.corners import keeps_places, prepare_module

PAGE = Path(camcli.__file__).parent / "docs" / "transformers.md"
HEADING = "## Every class that classifies pictures"
CATEGORY = 1
# of the map's own spread
ROUNDING = 1e-3


@dataclass(frozen=True)
class Row:
    """What was found of a class."""

    name: str
    kind: str
    layer: str = ""
    layout: str = ""
    edge: int = 0
    attention: str = ""
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        result = "; ".join(self.problems) or "ok"
        attention = self.attention or "-"
        cells = (self.name, f"`{self.kind}`", self.layer, self.layout, f"{self.edge}x{self.edge}")
        return f"| {' | '.join((*cells, attention, result))} |"


def check_class(name: str, tiny: Tiny) -> Row:
    """Explains a tiny model, and lists what is wrong with the result."""
    start, kind = time.monotonic(), tiny.class_name
    shape = (3, tiny.edge, tiny.edge)
    try:
        module = build_tiny(tiny).requires_grad_(False)
        fix_for_pictures(module)
        module = prepare_module(module, shape)
        key = "logits" if "logits" in module(draw_noise(tiny.edge, 1)) else "last_hidden_state"
        target = find_default_layer(module, shape, OutputReading(key))
        problems = tuple(_list_problems(module, target, shape, key))
        attention = ""
        with suppress(MethodError):
            found = measure_attentions(module, shape)
            attention = f"{len(found.blocks)} blocks, {found.tokens} tokens"
    except (CamvizError, RuntimeError) as error:
        return Row(name, kind, edge=tiny.edge, problems=(f"{type(error).__name__}: {error}",))
    description = target.layout.description
    seconds = time.monotonic() - start
    return Row(name, kind, target.name, description, tiny.edge, attention, problems, seconds)


def _list_problems(
    module: Any, target: Any, shape: tuple[int, int, int], key: str
) -> Iterator[str]:
    if not keeps_places(module, target.name, shape):
        yield "a bright corner is not seen where it is"
    inputs = draw_noise(shape[1])
    maps = camcli.heatmaps(
        module, inputs, "gradcam", targets=[[CATEGORY], [CATEGORY]], output_key=key
    )
    expected = compute_gradcam_by_hand(module, target, inputs, CATEGORY)
    if (maps[:, 0] - expected).abs().max() > ROUNDING * expected.std():
        yield "its map is not Grad-CAM's by hand"


def write_page(rows: Iterable[Row]) -> None:
    """Writes rows into the table of the handbook's page, behind all else that stands there."""
    text, _, written = PAGE.read_text(encoding="utf-8").partition(HEADING)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in written.splitlines()}
    lines |= {row.name: str(row) for row in rows}
    others = "\n".join(f"| {name} | {why} |" for name, why in OTHERS.items())
    table = "\n".join(lines[name] for name in CLASSIFIERS if name in lines)
    PAGE.write_text(
        f"""{text}{HEADING}

Found with random weights of tiny configurations, transformers {transformers.__version__}: the
default layer, whether a bright corner of the input changes the activations in that corner, and
whether the map is Grad-CAM's as a hook and one call of autograd give it. Written by
`python -m tests.tools.coverage --transformers`.

| architecture | class | default layer | layout | checked at | attention | result |
|---|---|---|---|---|---|---|
{table}

LeViT's attention between stages has no shortcut: with random weights hardly any place keeps its
place, and it was checked with attention that prefers near places. Each row is one tiny network;
trained ones of the same class may get another layer, which `--preview-model` shows.

| not among them | why |
|---|---|
{others}
""",
        encoding="utf-8",
    )


def run(names: list[str]) -> list[Row]:
    """Prints a row a class, all of them where none is named, and writes them down."""
    rows = []
    for name in names or CLASSIFIERS:
        row = check_class(name, CLASSIFIERS[name])
        print(row, f"{row.seconds:.1f} s", flush=True)
        rows.append(row)
        write_page([row])
    return rows
