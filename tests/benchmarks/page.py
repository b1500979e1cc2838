"""From saved figures to the handbook's page and table and the README's rows: none is typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.rows import OURS
from tests.checkout import ROOT

PAGE = ROOT / "camcli" / "docs" / "benchmarks.md"
TABLE = ROOT / "camcli" / "docs" / "tables" / "benchmarks.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"
# the rows that the README shows, where they were measured
HEADLINES = (
    "gradcam, resnet50, batch 1",
    "gradcam, resnet50, batch 8",
    "gradcam, vit_base_patch16_224, batch 1",
    "9 methods, resnet50, batch 1",
    "ablationcam, resnet50, batch 1",
    "scorecam, resnet18, batch 1",
)
# likewise, of a GPU
GPU_HEADLINES = (
    "gradcam, resnet50, batch 512, bf16",
    "gradcam, convnext_tiny, batch 512, bf16",
    "gradcam, vit_base_patch16_224, batch 512, bf16",
    "scorecam, resnet18, batch 1, bf16",
    "ablationcam, resnet18, batch 1, bf16",
)
SHORT_INTRODUCTION = """# How fast it is

The time of a map, as a ratio to the model's bare forward pass on the same pictures, in the median
of many rounds: at 1, an explanation is free. "Packed" is one of many calls in a block of
`camcli.packed`, as a run's batches are. scorecam runs a pass a channel, and is compared with the
bare pass of as many pictures; ablationcam runs what lies behind the layer for each of 2,048
channels, and is compared with the bare pass of one picture.
"""
SHORT_END = """All rows, with quartiles, memory, and how far maps are from grad-cam's, are in
`camcli/docs/tables/benchmarks.md`, which `camviz help tables/benchmarks` shows.
`python -m tests.benchmarks` measures all of it anew.
"""
INTRODUCTION = """# How fast it is: all rows

In each row, the contenders took turns on the same inputs, and each went from decoded pictures to
maps of the pictures' size. The table shows the ratio to the model's bare pass (inference mode,
channels_last, the same batch, threads and precision): the median of the rounds, and its quartiles.
Where a method runs many passes, the bare pass is that of as many pictures, in the best of three
batch sizes (8, 16, 32). "Packed" is one of many calls in one block of `camcli.packed`: its weights
are prepacked already, as they are for the batches of a run; methods of many passes prepack by
themselves. "At most" is the goal that was set. "MB" is how much a contender's peak adds to the
memory that is held before it. All weights are random, which changes no time.
`python -m tests.benchmarks` measures all of it anew.
"""
FOOTNOTES = """The column "apart" has the largest difference to grad-cam's map, both from 0 to 1,
with camviz's normalising and enlarging in both. It is empty where the definitions differ: the sign
of EigenCAM's component is arbitrary, FEM has another threshold, and where activations are negative
grad-cam sets an ablated channel to a very small number. AblationCAM takes differences of scores,
here of some 0.05: camviz's maps were 2e-6 to 1.3e-5 from the map of double precision, maps of the
scores that grad-cam finds 1e-5 to 1e-4 (four ResNet-50s). XGradCAM divides by sums of activations,
which are almost 0 for some channels after a norm: for eight pictures in ViT-B/16 maps in float32
were up to 6e-4 from those in double precision, with camviz's and with grad-cam's activations, and
the two in double precision were 3e-5 apart. grad-cam and torch-cam run in float32 in every row, on
the model and inputs as they are, because neither of them uses channels_last. Ratios below one come
from prepacked weights, from linear layers that run in oneDNN where the bare pass uses MKL, and in
Swin from fused attention (`camviz help speed`). Each packed call enters its block anew here,
because the bare pass takes its turn in between; its memory includes the prepacked weights.

On a GPU, rows are in bf16 where they say so, else in float32 without TF32. The GPU finishes one
picture, or eight, before Python launches the next kernels: these rows measure how fast Python
launches them, and autocast and hooks add launches. Batches of 128 and 512 are timed four in a row.
Methods of many passes run 128 pictures at a time there, which uses more of a GPU than the best of
8, 16 and 32: hence shares above one. The largest difference of CUDA's maps to the CPU's is that of
nine methods on two pictures, both from 0 to 1, in float32.

A folder is the whole command from its first batch to its end, compared with bare passes in a
process of their own; the two take turns of two seconds each, and the other is stopped meanwhile.
The command keeps memory that its passes free (`camviz help speed`), and the bare passes do not.
The start is timed with bytecode present, as pip leaves it. With --compile camviz's blocks are
compiled, and the others' are not.
"""
HEAD = (
    "what", "bare pass", "camviz", "packed", "at most", "grad-cam", "torch-cam", "faster", "apart",
    "MB",
)  # fmt: skip
# on a GPU what counts is how many of the bare pass's pictures are explained
GPU_HEAD = (
    "what", "bare pass, pictures/s", "camviz, pictures/s", "share", "at least",
    "camviz, ms a picture", "grad-cam, ms", "torch-cam, ms", "faster", "apart", "MB",
)  # fmt: skip
COMMANDS = ("what", "measured", "at most")

PEERS = ("grad-cam", "torch-cam")

Figure = Mapping[str, Any]


def merge_rows(old: Sequence[Figure], new: Sequence[Figure]) -> list[Figure]:
    """Puts figures together; a row that was measured anew takes its old place."""
    fresh = {_key(figure): figure for figure in new}
    kept = [fresh.pop(_key(figure), figure) for figure in old]
    return [*kept, *fresh.values()]


def _key(figure: Figure) -> tuple[str, str]:
    return figure["title"], figure["device"]


def cells(figure: Figure) -> tuple[str, ...]:
    """Writes a row's cells, in the order of HEAD."""
    middle = _medians(figure)
    passes = f" x {figure['passes']}" if figure["passes"] > 1 else ""
    ours = (
        f"{middle[name]:.2f} ({_spread(figure['ratios'][name])})" if name in middle else ""
        for name in OURS
    )
    peers = (f"{middle[p]:.2f}" if p in middle else "" for p in PEERS)
    return (
        figure["title"],
        f"{figure['bare'] * 1000:.0f} ms{passes}",
        *ours,
        f"{figure['bar']:.2f}" if figure["bar"] else "",
        *peers,
        *_last_cells(figure),
    )


def gpu_cells(figure: Figure) -> tuple[str, ...]:
    """Writes the cells of a row that a GPU ran, in the order of GPU_HEAD."""
    middle = _medians(figure)
    bare = figure["bare"] * figure["passes"] / figure["pictures"]  # seconds a picture
    ratios = figure["ratios"]["camviz"]
    shares = {**ratios, "low": 1 / ratios["high"], "high": 1 / ratios["low"]}
    peers = (_number(1000 * bare * middle[p]) if p in middle else "" for p in PEERS)
    return (
        figure["title"],
        _number(1 / bare),
        _number(1 / bare / middle["camviz"]),
        f"{1 / middle['camviz']:.2f} ({_spread(shares)})",
        f"{1 / figure['bar']:.2f}" if figure["bar"] else "",
        _number(1000 * bare * middle["camviz"]),
        *peers,
        *_last_cells(figure),
    )


def _number(value: float) -> str:
    """Writes three digits or more, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _medians(figure: Figure) -> dict[str, float]:
    return {name: ratios["median"] for name, ratios in figure["ratios"].items()}


def _last_cells(figure: Figure) -> tuple[str, ...]:
    """Writes how many times faster than grad-cam, how far from its map, and the memory."""
    middle, faster = _medians(figure), ""
    if "grad-cam" in middle:
        times = [f"{middle['grad-cam'] / middle[n]:.1f} x" for n in OURS if n in middle]
        faster = ", packed ".join(times)
        faster += f" (at least {figure['faster']:g})" if figure["faster"] else ""
    return (
        faster,
        "" if figure["apart"] is None else f"{figure['apart']:.0e}",
        ", ".join(f"{name} {taken / 1e6:.0f}" for name, taken in figure["memory"].items()),
    )


def _spread(ratios: Figure) -> str:
    if ratios["rounds"] < 2:
        return "once"
    return f"{ratios['low']:.2f} to {ratios['high']:.2f}"


def page(figures: Sequence[Figure]) -> str:
    """Writes the handbook's page of one screen: the rows that most people ask for."""
    on_cpu, on_gpu = _choose(figures, HEADLINES, "cpu"), _choose(figures, GPU_HEADLINES, "cuda")
    parts = [SHORT_INTRODUCTION]
    columns, rows = ("what", *OURS, *PEERS), [_ratio_cells(figure) for figure in on_cpu]
    parts += [f"On a CPU ({_places(on_cpu)}):\n", "\n".join(_table(columns, rows)) + "\n"]
    if on_gpu:
        rows = [tuple(gpu_cells(figure)[i] for i in (0, 2, 5, 6)) for figure in on_gpu]
        head = ("what", "pictures/s", "ms a picture", "grad-cam, ms")
        parts += [f"On a GPU ({_places(on_gpu)}):\n", "\n".join(_table(head, rows)) + "\n"]
    return "\n".join([*parts, SHORT_END])


def _choose(figures: Sequence[Figure], titles: Sequence[str], device: str) -> list[Figure]:
    return [f for t in titles for f in figures if f["title"] == t and f["device"] == device]


def _ratio_cells(figure: Figure) -> tuple[str, ...]:
    middle = _medians(figure)
    return figure["title"], *(f"{middle[n]:.2f}" if n in middle else "" for n in (*OURS, *PEERS))


def table_page(figures: Sequence[Figure]) -> str:
    """Writes all rows, a table for each machine and day."""
    parts = [INTRODUCTION]
    for where in dict.fromkeys(map(_where, figures)):
        here = [figure for figure in figures if _where(figure) == where]
        parts.append(f"## {where}\n")
        on_gpu = here[0]["device"] == "cuda"
        head, row_cells = (GPU_HEAD, gpu_cells) if on_gpu else (HEAD, cells)
        timed = [row_cells(figure) for figure in here if "ratios" in figure]
        whole = [_command_cells(figure) for figure in here if "value" in figure]
        if timed:
            parts.append("\n".join(_table(head, timed)) + "\n")
        if whole:
            parts.append("\n".join(_table(COMMANDS, whole)) + "\n")
    return "\n".join([*parts, FOOTNOTES])


def _where(figure: Figure) -> str:
    return f"{figure['date']}, {figure['machine']}, torch {figure['torch']}"


def _command_cells(figure: Figure) -> tuple[str, ...]:
    bar, unit = figure["bar"], figure["unit"]
    most = "" if bar is None else f"{_format_figure(bar)} {unit}"
    return figure["title"], f"{_format_figure(figure['value'])} {unit}".rstrip(), most


def _format_figure(value: float) -> str:
    return format(value, ".0e" if abs(value) < 0.005 else ".2f" if value < 100 else ".0f")


def headlines(figures: Sequence[Figure]) -> str:
    """Writes the README's rows: ratios to the bare pass, and what a GPU does in a second."""
    shown = _choose(figures, HEADLINES, "cpu")
    columns = (0, 2, 3, 5, 6)
    rows = [tuple(cells(figure)[i] for i in columns) for figure in shown]
    text = (
        f"Times as a ratio to the model's bare forward pass ({_places(shown)}); packed is a call in"
        " the block of `camcli.packed`, as a run's batches are;"
    )
    table = "\n".join(_table(tuple(HEAD[i] for i in columns), rows))
    link = f"[all of them]({TABLE.relative_to(ROOT).as_posix()})"
    return f"{text} {link}.\n\n{table}\n{_gpu_headlines(figures)}"


def _gpu_headlines(figures: Sequence[Figure]) -> str:
    shown = _choose(figures, GPU_HEADLINES, "cuda")
    if not shown:
        return ""
    columns = (0, 2, 3, 5, 6)
    rows = [tuple(gpu_cells(figure)[i] for i in columns) for figure in shown]
    head = tuple(GPU_HEAD[i] for i in columns)
    text = (
        f"On a GPU ({_places(shown)}), with the share of the bare pass's pictures (above one where"
        " altered copies pass in larger batches than that):"
    )
    return f"\n{text}\n\n" + "\n".join(_table(head, rows)) + "\n"


def _places(shown: Sequence[Figure]) -> str:
    return "; ".join(dict.fromkeys(map(_where, shown)))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |")


def in_between(text: str, shown: str) -> str:
    """Puts rows between the README's two markers; raises ValueError where they are not there."""
    between = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(between.findall(text)) != 1:
        raise ValueError(f"The README holds not one pair of {BEGIN} and {END}.")
    return between.sub(lambda _: f"{BEGIN}\n{shown}{END}", text)


def save(figures: Sequence[Figure], file: Path) -> None:
    """Writes the file of figures, a line each, so that a change of one is a line in a diff."""
    lines = ",\n".join(json.dumps(figure) for figure in figures)
    file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write(
    figures: Sequence[Figure],
    page_file: Path = PAGE,
    readme: Path = README,
    table_file: Path = TABLE,
) -> None:
    """Writes the handbook's page and table, and the README's rows between its markers."""
    page_file.write_text(page(figures), encoding="utf-8")
    table_file.write_text(table_page(figures), encoding="utf-8")
    text = in_between(readme.read_text(encoding="utf-8"), headlines(figures))
    readme.write_text(text, encoding="utf-8")
