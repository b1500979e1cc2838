"""A checkpoint's weights under a model's own names, loaded into the model."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from camcli.errors import CheckpointError
from camcli.models.checkpoint import Checkpoint
from camcli.models.request import Weights

# the least share of a model's weights that a checkpoint of the same architecture has
SAME_ARCHITECTURE = 0.5


@dataclass(frozen=True)
class Fitted:
    """A checkpoint's weights under a model's own names, and what lies outside of the model."""

    checkpoint: Checkpoint
    weights: Weights
    outside: tuple[str, ...] = ()


def align(weights: Weights, wanted: Iterable[str]) -> tuple[Weights, tuple[str, ...]]:
    """Strips the prefix that wrappers put before a model's names, and returns what lies outside.

    The prefix is the one under which most of the wanted names are found.  A classifier beside the
    trunk (`backbone.` and `head.`, as in OpenMMLab's files) is fetched too.
    """
    wanted = set(wanted)
    prefix = _best_prefix(weights, wanted)
    origin = {k.removeprefix(prefix): k for k in weights if k.startswith(prefix)}
    parent = prefix[: prefix.rstrip(".").rfind(".") + 1]
    for beside in (parent, f"{parent}head.") if prefix else ():
        found = {name: beside + name for name in wanted if beside + name in weights}
        origin = {**found, **origin}
    outside = weights.keys() - origin.values()
    stripped = {name: weights[key] for name, key in origin.items()}
    return stripped, tuple(key for key in weights if key in outside)


def _best_prefix(names: Iterable[str], wanted: set[str]) -> str:
    hits: Counter[str] = Counter()
    for name in names:
        cuts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        hits.update(name[:cut] for cut in cuts if name[cut:] in wanted)
    return max(hits, key=lambda prefix: (hits[prefix], -len(prefix)), default="")


Convert = Callable[[Weights, nn.Module], Weights]


def fitted(checkpoint: Checkpoint, module: nn.Module, convert: Convert | None = None) -> Fitted:
    """Returns the checkpoint's weights under the model's names, converted if that fits better."""
    wanted = module.state_dict()
    plain, outside = align(checkpoint.weights, wanted)
    faults = _faults(plain, wanted)
    if convert and faults:
        # a converter that was written for other files may fail: the names that stay then speak
        with contextlib.suppress(Exception):
            converted, more = align(convert(dict(plain), module), wanted)
            if len(_faults(converted, wanted)) < len(faults):
                return Fitted(checkpoint, converted, outside + more)
    return Fitted(checkpoint, plain, outside)


def num_classes(weights: Weights, classifiers: Iterable[str]) -> int | None:
    """Reads the number of classes off the classifier's weight [n c ...], None without one."""
    for name in classifiers:
        weight = weights.get(f"{name}.weight")
        if weight is not None and weight.ndim > 0:
            return weight.shape[0]
    return None


def load_into(module: nn.Module, fitted: Fitted, *, model: str, strict: bool) -> tuple[str, ...]:
    """Loads what fits, and returns in words what does not.

    Raises CheckpointError if nothing fits, and, if strict, for weights that are missing, unexpected
    or of another shape.
    """
    wanted = module.state_dict()
    file = f"Checkpoint {str(fitted.checkpoint.path)!r}"
    faults = _faults(fitted.weights, wanted)
    fitting = {
        n: w for n, w in fitted.weights.items() if n in wanted and w.shape == wanted[n].shape
    }
    if faults and (strict or not fitting):
        other = _other_architecture(fitted.checkpoint, len(fitting), len(wanted))
        way_on = (
            "Name the model that it was saved from with --model."
            if other
            else "--no-strict loads what fits, and leaves the rest random."
        )
        lines = [f"{file} does not fit {model!r}{other}:", *map("  {}".format, _by_kind(faults))]
        raise CheckpointError("\n".join((*lines, way_on)))
    module.load_state_dict(fitting, strict=False)
    notes = [f"{file}: {line}" for line in _by_kind(faults)]
    if fitted.outside:
        notes.append(f"{file}: left aside {_listed(fitted.outside)}")
    return tuple(notes)


def _faults(weights: Weights, wanted: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Returns what keeps weights from fitting, as pairs of the kind of fault and a name."""
    # files older than PyTorch 0.4.1 do not count batches, and inference does not either
    counted = [name for name in wanted if not name.endswith("num_batches_tracked")]
    faults = [("missing", name) for name in counted if name not in weights]
    for name, weight in weights.items():
        if name not in wanted:
            faults.append(("unexpected", name))
        elif weight.shape != wanted[name].shape:
            has, needs = list(weight.shape), list(wanted[name].shape)
            faults.append(("other shape", f"{name} {has} where the model has {needs}"))
    return faults


def _by_kind(faults: Sequence[tuple[str, str]]) -> list[str]:
    kinds = dict.fromkeys(kind for kind, _ in faults)
    return [f"{kind}: {_listed([what for k, what in faults if k == kind])}" for kind in kinds]


def _other_architecture(checkpoint: Checkpoint, fitting: int, wanted: int) -> str:
    if fitting >= SAME_ARCHITECTURE * wanted:
        return ""
    says = f" (the file says {checkpoint.arch!r})" if checkpoint.arch else ""
    return f": it is of another architecture{says}, with {fitting} of the {wanted} weights in it"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
