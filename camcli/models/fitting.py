"""A checkpoint's weights under a model's own names, loaded into the model."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from camcli.errors import CheckpointError
from camcli.models import embedded
from camcli.models.checkpoint import Checkpoint
from camcli.models.request import Built, Request, Weights

# the least share of a model's weights that a checkpoint of the same architecture has
SAME_ARCHITECTURE = 0.5
# an average of the weights, kept beside them in the same state dict, is what scripts evaluate
AVERAGE = re.compile(r"(^|[._])(ema|teacher)[._]")
# the names of weights whose shapes follow the input's size
POSITIONS = re.compile(r"pos(_|ition)|attention_biases")

NUMBERS: Mapping[str, str] = {
    "num_classes": "It has {} classes: leave out --num-classes. ",
    "in_chans": "It takes {} channels: leave out in_chans. ",
}
NAME_IT = "Name the model that it was saved from with --model."

# a kind of fault (missing, unexpected, other shape), and the name with what belongs to it
Fault = tuple[str, str]


@dataclass(frozen=True)
class Fitted:
    """A checkpoint's weights under a model's own names, and what lies outside of the model.

    `head` is the file's name of the classifier where that is another than the model's; `resized`
    tells of weights that were made for another input size.
    """

    checkpoint: Checkpoint
    weights: Weights
    faults: tuple[Fault, ...]
    outside: tuple[str, ...] = ()
    head: str = ""
    resized: tuple[str, ...] = ()


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
    return max(hits, key=lambda p: (hits[p], bool(AVERAGE.search(p)), -len(p)), default="")


Convert = Callable[[Weights, nn.Module], Weights]


def fitted(
    checkpoint: Checkpoint,
    module: nn.Module,
    convert: Convert | None = None,
    classifiers: Sequence[str] = (),
) -> Fitted:
    """Returns the checkpoint's weights under the model's names, converted if that fits better."""
    wanted = module.state_dict()
    plain, outside = align(checkpoint.weights, wanted)
    head = _other_head(
        plain, {key: checkpoint.weights[key] for key in outside}, wanted, classifiers
    )
    if head:
        taken = {f"{head}.{part}": f"{classifiers[0]}.{part}" for part in ("weight", "bias")}
        plain = {taken.get(name, name): weight for name, weight in plain.items()}
        plain |= {taken[k]: checkpoint.weights[k] for k in outside if k in taken}
        outside = tuple(key for key in outside if key not in taken)
    found = Fitted(checkpoint, plain, _faults(plain, wanted), outside, head)
    return _converted(found, module, convert) if convert and found.faults else found


def _other_head(
    plain: Weights, outside: Weights, wanted: Weights, classifiers: Sequence[str]
) -> str:
    """Finds a classifier that stands elsewhere, as `fc.1` or beside the trunk as `classifier`.

    It is the only matrix that would be left over, and takes as many features as the model's own.
    """
    own = wanted.get(f"{classifiers[0]}.weight") if len(classifiers) == 1 else None
    if own is None or f"{classifiers[0]}.weight" in plain:
        return ""
    left = {k: w for k, w in plain.items() if k not in wanted} | outside
    matrices = [(name, weight) for name, weight in left.items() if weight.ndim == 2]
    if len(matrices) != 1 or matrices[0][1].shape[1:] != own.shape[1:]:
        return ""
    return matrices[0][0].removesuffix(".weight")


def _converted(found: Fitted, module: nn.Module, convert: Convert) -> Fitted:
    wanted, plain = module.state_dict(), found.weights
    # a converter that was written for other files may fail: the names that stay then speak
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights, more = align(convert(dict(plain), module), wanted)
        faults = _faults(weights, wanted)
        if len(faults) < len(found.faults):
            resized = tuple(
                f"{name} {list(old.shape)} to {list(weights[name].shape)}"
                for name, old in plain.items()
                if name in weights and old.shape != weights[name].shape and POSITIONS.search(name)
            )
            outside = found.outside + more
            return replace(found, weights=weights, faults=faults, outside=outside, resized=resized)
    return found


def num_classes(weights: Weights, classifiers: Iterable[str]) -> int | None:
    """Reads the number of classes off the classifier's weight [n c ...], None without one."""
    for name in classifiers:
        weight = weights.get(f"{name}.weight")
        if weight is not None and weight.ndim > 0:
            return weight.shape[0]
    return None


def in_chans(weights: Weights, built: Built) -> int | None:
    """Reads the number of input channels off the first layer [n c ...], None where it is another.

    The layer may take several pixels of each channel at once (space to depth, linear patches).
    """
    wanted = built.module.state_dict()
    for name in (f"{stem}.weight" for stem in built.stems):
        weight, own = weights.get(name), wanted.get(name)
        if weight is None or own is None or weight.ndim != own.ndim:
            continue
        channels, rest = divmod(int(weight.shape[1]) * built.in_chans, int(own.shape[1]))
        if not rest and (weight.shape[0], *weight.shape[2:]) == (own.shape[0], *own.shape[2:]):
            return channels
    return None


def built_for(
    checkpoint: Checkpoint, build: Callable[[Request], Built], request: Request
) -> tuple[Built, Fitted]:
    """Builds a model with the checkpoint's classes and channels, where no others were asked for."""
    built = build(request)
    found = fitted(checkpoint, built.module, built.convert, built.classifiers)
    adapted, other = request, _other_numbers(built, found)
    if request.num_classes is None and "num_classes" in other:
        adapted = replace(adapted, num_classes=other["num_classes"])
    if "in_chans" not in request.model_kwargs and "in_chans" in other:
        kwargs = {**request.model_kwargs, "in_chans": other["in_chans"]}
        adapted = replace(adapted, model_kwargs=kwargs)
    if adapted == request:
        return built, found
    built = build(adapted)
    return built, fitted(checkpoint, built.module, built.convert, built.classifiers)


def _other_numbers(built: Built, found: Fitted) -> dict[str, int]:
    """Returns the numbers of classes and channels in which the weights differ from the model."""
    classes = num_classes(found.weights, built.classifiers)
    channels = in_chans(found.weights, built)
    pairs = {"num_classes": (classes, built.num_classes), "in_chans": (channels, built.in_chans)}
    return {k: saved for k, (saved, own) in pairs.items() if saved is not None and saved != own}


def load_into(built: Built, found: Fitted, request: Request, *, strict: bool) -> tuple[str, ...]:
    """Loads what fits, and returns in words what does not.

    Raises CheckpointError if nothing fits, and, if strict, for weights that are missing, unexpected
    or of another shape.
    """
    wanted = built.module.state_dict()
    fitting = {n: w for n, w in found.weights.items() if n in wanted and w.shape == wanted[n].shape}
    other = len(fitting) < SAME_ARCHITECTURE * len(wanted)
    if other and found.faults and (strict or not fitting or _is_unnamed(found, request)):
        raise _other_architecture(found, request, f"{len(fitting)} of the {len(wanted)}")
    if found.faults and strict:
        way_on = f"{_advice(built, found)}--no-strict loads what fits, and leaves the rest random."
        raise _misfit(found, request, "", way_on)
    built.module.load_state_dict(fitting, strict=False)
    file = f"Checkpoint {str(found.checkpoint.path)!r}"
    return tuple(f"{file}: {note}" for note in _notes(built, found, request))


def _notes(built: Built, found: Fitted, request: Request) -> Iterator[str]:
    yield from _by_kind(found.faults)
    if found.head:
        yield f"took {found.head} for the model's {built.classifiers[0]}"
    if found.resized and request.img_size is None:
        yield f"resized {_listed(found.resized)}; --img-size gives the size that it was trained at"
    if found.outside:
        yield f"left aside {_listed(found.outside)}"


def _is_unnamed(found: Fitted, request: Request) -> bool:
    return request.name == embedded.NAME and not found.checkpoint.arch


def _other_architecture(found: Fitted, request: Request, share: str) -> CheckpointError:
    arch = found.checkpoint.arch
    if _is_unnamed(found, request):
        return CheckpointError(
            f"Checkpoint {str(found.checkpoint.path)!r} does not say its architecture, and it is "
            f"not the embedded model's. {NAME_IT}"
        )
    says = f" (the file says {arch!r})" if arch else ""
    what = f": it is of another architecture{says}, with {share} weights in it"
    return _misfit(found, request, what, NAME_IT)


def _misfit(found: Fitted, request: Request, what: str, way_on: str) -> CheckpointError:
    first = f"Checkpoint {str(found.checkpoint.path)!r} does not fit {request.name!r}{what}:"
    return CheckpointError("\n".join((first, *map("  {}".format, _by_kind(found.faults)), way_on)))


def _advice(built: Built, found: Fitted) -> str:
    """Says what would make it fit, in a sentence and a space, or nothing."""
    for key, number in _other_numbers(built, found).items():
        return NUMBERS[key].format(number)
    heads = tuple(f"{name}." for name in built.classifiers)
    missing = [name for kind, name in found.faults if kind == "missing"]
    if missing and all(name.startswith(heads) for name in missing):
        if len(missing) < len(found.faults):
            return "It has a classifier of its own: build that with --model FILE.py:FUNCTION. "
        return "It has no classifier: --num-classes 0 builds the model without one. "
    if all(kind == "other shape" and POSITIONS.search(name) for kind, name in found.faults):
        return "It was trained at another input size: name that with --img-size. "
    return ""


def _faults(weights: Weights, wanted: Mapping[str, Tensor]) -> tuple[Fault, ...]:
    """Returns what keeps weights from fitting."""
    # files older than PyTorch 0.4.1 do not count batches, and inference does not either
    counted = [name for name in wanted if not name.endswith("num_batches_tracked")]
    faults = [("missing", name) for name in counted if name not in weights]
    for name, weight in weights.items():
        if name not in wanted:
            faults.append(("unexpected", name))
        elif weight.shape != wanted[name].shape:
            has, needs = list(weight.shape), list(wanted[name].shape)
            faults.append(("other shape", f"{name} {has} where the model has {needs}"))
    return tuple(faults)


def _by_kind(faults: Sequence[Fault]) -> list[str]:
    kinds = dict.fromkeys(kind for kind, _ in faults)
    return [f"{kind}: {_listed([what for k, what in faults if k == kind])}" for kind in kinds]


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
