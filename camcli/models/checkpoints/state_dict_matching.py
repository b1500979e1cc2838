"""Matches the names of a checkpoint's weights to a model's own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from camcli.models.checkpoints.checkpoint import Checkpoint
from camcli.models.checkpoints.key_prefix import (
    SAME_ARCHITECTURE,
    UnprefixedWeights,
    strip_prefix,
)
from camcli.models.checkpoints.key_renaming import (
    NAMINGS,
    Naming,
    concatenate,
    expand_name,
    list_child_namings,
    reshape_like,
)
from camcli.models.checkpoints.load_hooks import rename_by_transformers, run_load_hooks
from camcli.models.checkpoints.reparametrization import merge_parts
from camcli.models.model_spec import BuiltModel, Weights
from camcli.utils.warning_filters import ignore_warnings

# the names of weights whose shapes follow the input's size
POSITIONS = re.compile(r"pos(_|ition)|attention_biases")
# a layer before the classifier that timm's converters drop
LOST = re.compile(r"(^|\.)pre_logits\.")
# where MoCo, BYOL, SimSiam and their kind keep the backbone; its classifier is a projection
SELF_SUPERVISED = re.compile(
    r"(^|\.)(encoder_[qk]|(base|momentum|online|target|query|key)_(encoder|network|net|backbone))\."
)
# what stands beside the backbone in their files, and in SimCLR's, Barlow Twins' and SwAV's
BESIDE_TRUNKS = re.compile(
    r"(^|\.)(queue(_ptr)?$|(predictor|projector|projection_head|contrastive_head|prototypes|"
    r"momentum_encoder|target_encoder|online_encoder|target_network|online_network)\.)"
)
NO_CLASSIFIER = re.compile(r"proj|predict|prototyp|contrast|embed|neck|decoder")

# the fault of weights that all fit, in a network that computes something else
ANOTHER_NETWORK = "another network"

# a kind of fault (missing, unexpected, other shape), and the name with what belongs to it
Fault = tuple[str, str]


@dataclass(frozen=True)
class FittedWeights:
    """A checkpoint's weights under a model's own names, and what lies outside of the model.

    `head` is the file's name of the classifier where that is another than the model's; `resized`
    tells of weights that were made for another input size; `projection` is what stands in the
    classifier's place after self-supervised training; `naming` is the table that led here, `eps`
    what the norms add to the variance by a pattern of their names; `instead` names the model that
    is theirs where this is another; `note` says how names were matched where that may be wrong.
    """

    checkpoint: Checkpoint
    weights: Weights
    faults: tuple[Fault, ...]
    outside: tuple[str, ...] = ()
    head: str = ""
    resized: tuple[str, ...] = ()
    projection: str = ""
    eps: Mapping[str, float] = field(default_factory=dict)
    naming: Naming | None = None
    instead: str = ""
    note: str = ""


Convert = Callable[[Weights, nn.Module], Weights]


def fit_checkpoint(
    checkpoint: Checkpoint,
    module: nn.Module,
    convert: Convert | None = None,
    classifiers: Sequence[str] = (),
    *,
    by_name: bool = False,
) -> FittedWeights:
    """Returns the checkpoint's weights under the model's names, in the reading that fits best."""
    # asked for once: each reading is held against it
    model_state = module.state_dict()
    fit = partial(
        _fit, module=module, model_state=model_state, convert=convert, classifiers=classifiers
    )
    best = fit(checkpoint)
    # where the numbers of classes or channels alone differ, no other names are looked for
    if not best.faults or (by_name and has_other_shapes_alone(best)):
        return best
    for reading in _try_readings(checkpoint, module, model_state, fit):
        best = min(best, reading, key=_count_faults)
        if not best.faults:
            break
    return best


def has_other_shapes_alone(fitted_weights: FittedWeights) -> bool:
    """Tells whether all weights are there under the model's names, some in another shape."""
    kinds = {kind for kind, _ in fitted_weights.faults}
    return kinds == {"other shape"}


def _count_faults(fitted_weights: FittedWeights) -> tuple[int, int]:
    """Counts what does not fit, and what is missing of it: a weight of another shape is known."""
    kinds = [kind for kind, _ in fitted_weights.faults]
    return len(kinds), kinds.count("missing")


def _try_readings(
    checkpoint: Checkpoint,
    module: nn.Module,
    model_state: Mapping[str, Tensor],
    fit: Callable[..., FittedWeights],
) -> Iterator[FittedWeights]:
    """Yields the weights as other versions and libraries may have stored them."""
    weights = merge_stored(checkpoint)
    if weights is not checkpoint.weights:
        yield fit(checkpoint, UnprefixedWeights(weights, ()))
    loaders: tuple[Convert, ...] = (run_load_hooks, rename_by_transformers)
    for load in loaders:
        unprefixed = strip_prefix(weights, model_state)
        # loaders may fail on what was made for other modules
        with contextlib.suppress(Exception), ignore_warnings():
            given = unprefixed.weights if load is run_load_hooks else weights
            loaded = load(given, module)
            if loaded.keys() != given.keys():
                yield fit(checkpoint, replace(unprefixed, weights=loaded))
    for naming in (*NAMINGS, *list_child_namings(module)):
        with contextlib.suppress(RuntimeError):
            translated = _translate(weights, model_state, naming)
            if translated:
                fitted_weights = fit(checkpoint, translated)
                yield _rename_weights(fitted_weights, naming, module)


def merge_stored(checkpoint: Checkpoint) -> Weights:
    """Returns the file's weights, with parts joined where that is possible."""
    # parts whose shapes do not belong together are no parts
    with contextlib.suppress(ValueError, RuntimeError, IndexError):
        return merge_parts(checkpoint.weights)
    return checkpoint.weights


def _rename_weights(
    fitted_weights: FittedWeights, naming: Naming, module: nn.Module
) -> FittedWeights:
    differs = naming.differs(module) if naming.differs and not fitted_weights.faults else ""
    if not differs:
        return replace(fitted_weights, eps=naming.eps, naming=naming)
    return replace(
        fitted_weights,
        eps=naming.eps,
        naming=naming,
        faults=((ANOTHER_NETWORK, differs),),
        instead=naming.instead,
    )


def _translate(
    weights: Weights, model_state: Mapping[str, Tensor], naming: Naming
) -> UnprefixedWeights | None:
    """Returns the weights under the model's names, None where the naming says nothing of them."""
    theirs = {own: expand_name(name) for own, name in naming.translate(model_state).items()}
    if all(names == (own,) for own, names in theirs.items()):
        return None
    unprefixed = strip_prefix(
        weights, {name for names in theirs.values() for name in names if name}
    )
    given = unprefixed.weights if naming.prepare is None else naming.prepare(unprefixed.weights)
    taken: set[str] = set()
    translated: Weights = {}
    for own, names in theirs.items():
        if all(name in given for name in names if name):
            taken.update(names)
            joined = concatenate([given.get(name) for name in names])
            for pattern, change in naming.reorder.items():
                joined = change(joined) if re.search(pattern, own) else joined
            translated[own] = reshape_like(joined, model_state[own])
    left = {name: weight for name, weight in given.items() if name not in taken}
    if left.keys() & model_state.keys():  # the file has the model's own names as well
        return None
    return replace(unprefixed, weights={**left, **translated})


def _fit(
    checkpoint: Checkpoint,
    unprefixed: UnprefixedWeights | None = None,
    *,
    module: nn.Module,
    model_state: Mapping[str, Tensor],
    convert: Convert | None,
    classifiers: Sequence[str],
) -> FittedWeights:
    """Fits one reading of the names; without one, the file's own."""
    given = unprefixed.weights if unprefixed else checkpoint.weights
    again = strip_prefix(given, model_state)
    plain, outside = again.weights, (*(unprefixed.outside if unprefixed else ()), *again.outside)
    prefix = (unprefixed.prefix if unprefixed else "") + again.prefix
    everything = {**checkpoint.weights, **given}
    projection = _find_projection(prefix, checkpoint.weights, plain, classifiers)
    headless = not any(name.startswith(f"{head}.") for head in classifiers for name in model_state)
    if projection or headless:
        aside = [n for n in plain if n.startswith(tuple(f"{head}." for head in classifiers))]
        plain = {name: weight for name, weight in plain.items() if name not in aside}
        outside = (*outside, *aside)
    head = (
        ""
        if projection
        else _find_other_head(
            plain,
            {key: everything[key] for key in outside if key in everything},
            model_state,
            classifiers,
        )
    )
    if head:
        taken = {f"{head}.{part}": f"{classifiers[0]}.{part}" for part in ("weight", "bias")}
        plain = {taken.get(name, name): weight for name, weight in plain.items()}
        plain |= {taken[k]: everything[k] for k in outside if k in taken}
        outside = tuple(key for key in outside if key not in taken)
    fitted_weights = FittedWeights(
        checkpoint, plain, list_faults(plain, model_state), outside, head, projection=projection
    )
    return (
        _convert(fitted_weights, module, model_state, convert)
        if convert and fitted_weights.faults
        else fitted_weights
    )


def _find_projection(
    prefix: str, names: Iterable[str], plain: Weights, classifiers: Sequence[str]
) -> str:
    """Names what self-supervised training has in the classifier's place, if it has something."""
    trained_so = SELF_SUPERVISED.search(prefix) or any(map(BESIDE_TRUNKS.search, names))
    heads = [head for head in classifiers if f"{head}.weight" in plain]
    return heads[0] if trained_so and heads else ""


def _find_other_head(
    plain: Weights,
    outside: Weights,
    model_state: Mapping[str, Tensor],
    classifiers: Sequence[str],
) -> str:
    """Finds a classifier that stands elsewhere, as `fc.1` or beside the backbone as `classifier`.

    It is the only matrix that would be left over, and takes as many features as the model's own.
    """
    own = model_state.get(f"{classifiers[0]}.weight") if len(classifiers) == 1 else None
    if own is None or f"{classifiers[0]}.weight" in plain:
        return ""
    left = {k: w for k, w in plain.items() if k not in model_state} | outside
    matrices = [(name, weight) for name, weight in left.items() if weight.ndim == 2]
    if len(matrices) != 1 or matrices[0][1].shape[1:] != own.shape[1:]:
        return ""
    name = matrices[0][0]
    is_classifier = name.endswith(".weight") and not NO_CLASSIFIER.search(name)
    return name.removesuffix(".weight") if is_classifier else ""


def _convert(
    fitted_weights: FittedWeights,
    module: nn.Module,
    model_state: Mapping[str, Tensor],
    convert: Convert,
) -> FittedWeights:
    plain = fitted_weights.weights
    # a converter that was written for other files may fail; the names stay as they are then
    with contextlib.suppress(Exception), ignore_warnings():
        unprefixed = strip_prefix(convert(dict(plain), module), model_state)
        weights = unprefixed.weights
        # timm leaves out a layer before the classifier that its networks no longer have
        lost = {k: w for k, w in plain.items() if LOST.search(k) and k not in weights}
        faults = (*list_faults(weights | lost, model_state), *_find_other_patches(plain, weights))
        if len(faults) < len(fitted_weights.faults):
            resized = tuple(
                f"{name} {list(old.shape)} to {list(weights[name].shape)}"
                for name, old in plain.items()
                if name in weights and old.shape != weights[name].shape and POSITIONS.search(name)
            )
            outside = fitted_weights.outside + unprefixed.outside
            return replace(
                fitted_weights, weights=weights, faults=faults, outside=outside, resized=resized
            )
    return fitted_weights


def _find_other_patches(given: Weights, converted: Weights) -> Iterator[Fault]:
    """Yields patches of another size, which timm resizes: that is another network."""
    for name, weight in converted.items():
        old = given.get(name, weight)
        if weight.ndim == old.ndim == 4 and weight.shape[2:] != old.shape[2:]:
            has, needs = list(old.shape), list(weight.shape)
            yield "other shape", f"{name} {has} where the model has {needs}"


def select_fitting_weights(fitted_weights: FittedWeights, module: nn.Module) -> Weights:
    """Returns those weights that the model has in the same shape."""
    model_state = module.state_dict()
    return {
        n: w
        for n, w in fitted_weights.weights.items()
        if n in model_state and w.shape == model_state[n].shape
    }


def is_other_architecture(fitted_weights: FittedWeights, built: BuiltModel) -> bool:
    """Tells whether the weights belong to another architecture, or stand under unknown names."""
    fitting = select_fitting_weights(fitted_weights, built.module)
    return bool(fitted_weights.faults) and len(fitting) < SAME_ARCHITECTURE * len(
        built.module.state_dict()
    )


def refit(fitted_weights: FittedWeights, built: BuiltModel) -> FittedWeights:
    """Fits the weights, in the reading that was found, to the same model built in another way."""
    weights = merge_stored(fitted_weights.checkpoint)
    model_state = built.module.state_dict()
    naming = fitted_weights.naming
    translated = naming and _translate(weights, model_state, naming)
    unprefixed = translated or UnprefixedWeights(weights, ())
    return _fit(
        fitted_weights.checkpoint,
        unprefixed,
        module=built.module,
        model_state=model_state,
        convert=built.convert,
        classifiers=built.classifiers,
    )


def list_faults(weights: Weights, model_state: Mapping[str, Tensor]) -> tuple[Fault, ...]:
    """Lists the reasons why weights do not fit."""
    # files older than PyTorch 0.4.1 do not count batches, and inference does not either
    counted = [name for name in model_state if not name.endswith("num_batches_tracked")]
    faults = [("missing", name) for name in counted if name not in weights]
    for name, weight in weights.items():
        if name not in model_state:
            faults.append(("unexpected", name))
        elif weight.shape != model_state[name].shape:
            has, needs = list(weight.shape), list(model_state[name].shape)
            faults.append(("other shape", f"{name} {has} where the model has {needs}"))
    return tuple(faults)
