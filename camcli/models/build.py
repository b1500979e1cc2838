"""Builds a model out of its library: with the library's weights, random ones or a checkpoint's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from camcli.errors import CamvizError, ModelError, UnknownName, first_line
from camcli.models.checkpoints import (
    Checkpoint,
    FittedWeights,
    align_eps,
    build_blank,
    build_for_checkpoint,
    carry_weights_between,
    carry_weights_over,
    computes_the_same,
    copy_weights,
    draw_what_is_missing,
    find_counterpart,
    load_into,
    other_library_error,
    other_outputs_error,
    place_weights_by_order,
    select_fitting_weights,
)
from camcli.models.hugging_face.repository import find_model_folder
from camcli.models.memory_bound import check_numbers, limit_memory
from camcli.models.model_lookup import TIMM_SCHEMES, TRANSFORMERS, Origin, import_builder
from camcli.models.model_spec import BuiltModel, ModelSpec, describe

# what is said where a model asks for more memory than there is
LESS_OF_A_MODEL = (
    "Take fewer classes (--num-classes) or channels, a smaller --img-size or other --model-kwargs; "
    "they may stand in a preset, in the checkpoint or in the folder's config.json."
)
MANY_CLASSES = 2**16
# whose constructors draw weights in place, and nothing else that a checkpoint does not have
BLANK: tuple[Origin, ...] = ("embedded", "timm", "torchvision")
NOT_COMPARED = "{}: what transformers computes with these weights was not compared.{}"


def _build(origin: Origin, request: ModelSpec) -> BuiltModel:
    """Builds a model; where arguments choose its size, they are bounded by the memory there is."""
    kwargs, classes = request.model_kwargs, request.num_classes
    if origin == "python":
        # the user's own code is disturbed where that is worth it alone
        is_usual = classes is None or classes <= MANY_CLASSES
    else:
        check_numbers(kwargs)
        # a folder or a repository brings arguments of its own
        is_library = origin != TRANSFORMERS and not request.name.startswith(TIMM_SCHEMES)
        is_usual = is_library and not kwargs and classes is None and request.img_size is None
    if is_usual:
        return _build_unbounded(origin, request)
    with limit_memory(describe(request), LESS_OF_A_MODEL):
        return _build_unbounded(origin, request)


def _build_unbounded(origin: Origin, request: ModelSpec) -> BuiltModel:
    built: BuiltModel = import_builder(origin).build(request)
    return built


def _build_blank(origin: Origin, request: ModelSpec) -> BuiltModel:
    """Builds a model that gets a checkpoint's weights: a library's own are not drawn before."""
    build = partial(_build, origin)
    return build_blank(build, request) if origin in BLANK else build(request)


def build_with_own_weights(origin: Origin, request: ModelSpec) -> BuiltModel:
    """Builds a model with its library's weights, or with random ones and a warning of them."""
    built = _build(origin, request)
    if origin == "python" or request.pretrained:
        return built
    warning = f"{request.name!r} has random weights: its maps mean nothing."
    return replace(built, warnings=(warning,))


def build_with_checkpoint(
    origins: Iterable[Origin], request: ModelSpec, saved: Checkpoint, strict: bool
) -> tuple[Origin, BuiltModel]:
    """Builds the model of the first library that the weights fit, or of the one they fit best."""
    attempts: list[tuple[Origin, BuiltModel, FittedWeights]] = []
    for origin in origins:
        attempts.append(
            (
                origin,
                *build_for_checkpoint(saved, partial(_build_blank, origin), request),
            )
        )
        if not attempts[-1][-1].faults:
            break
    origin, built, fitted = min(attempts, key=lambda attempt: len(attempt[-1].faults))
    build = partial(_build_blank, origin)
    if fitted.faults:
        built, fitted = (
            _build_from_counterpart(origin, request, saved, strict)
            or _build_from_twin(origin, request, built, fitted, strict)
            or _place_by_order(origin, fitted, built, request)
            or (built, fitted)
        )
    # arguments are tried on timm's constructors, never on the user's code
    rebuild = build if origin == "timm" else None
    if not (fitted.faults and strict):
        built = draw_what_is_missing(built, select_fitting_weights(fitted, built.module))
    notes = load_into(built, fitted, request, strict=strict, build=rebuild)
    if not fitted.faults:
        notes = (*notes, *_compare_with_folder(origin, request, built, fitted, strict))
    return origin, replace(built, weights=f"checkpoint {saved}", warnings=(*built.warnings, *notes))


def _place_by_order(
    origin: Origin, fitted: FittedWeights, built: BuiltModel, request: ModelSpec
) -> tuple[BuiltModel, FittedWeights] | None:
    """Takes weights by their order, but for transformers' networks.

    Those are often another library's network with other numbers in it, as LeViT's.
    """
    if origin == TRANSFORMERS:
        return None
    return place_weights_by_order(fitted, built, partial(_build_blank, origin), request)


def _build_from_counterpart(
    origin: Origin, request: ModelSpec, saved: Checkpoint, strict: bool
) -> tuple[BuiltModel, FittedWeights] | None:
    """Takes weights of the same network in the other library, if it is the same.

    Raises CheckpointError if they fit the other library's network, and that is another one.
    """
    pair = find_counterpart(origin, request.name)
    if pair is None or not import_builder(pair[0]).knows(pair[1]):  # type: ignore[arg-type]
        return None
    library, name = pair
    kwargs = {k: v for k, v in request.model_kwargs.items() if k == "in_chans"}
    other = replace(request, name=name, model_kwargs=kwargs)
    try:
        build = partial(_build_blank, library)  # type: ignore[arg-type]
        source, theirs = build_for_checkpoint(saved, build, other)
    except (ModelError, UnknownName):  # it cannot be built at this size
        return None
    if not theirs.faults:
        own = {"in_chans": source.in_chans} if source.in_chans != 3 else {}
        kwargs = {**request.model_kwargs, **own}
        adapted = replace(request, num_classes=source.num_classes, model_kwargs=kwargs)
        built = _build_blank(origin, adapted)
        fitted_weights = carry_weights_over(theirs, source, built)
        if fitted_weights:
            return built, fitted_weights
    refusal = other_library_error(theirs, request, f"{library}/{name}")
    if refusal and strict:
        raise refusal
    return None


def _build_from_twin(
    origin: Origin, request: ModelSpec, built: BuiltModel, fitted: FittedWeights, strict: bool
) -> tuple[BuiltModel, FittedWeights] | None:
    """Takes weights of timm for a network of transformers, and back, if the two are the same.

    Raises CheckpointError if they fit the other library's network, and that is another one.
    """
    saved = fitted.checkpoint
    twin = _find_twin(origin, built, saved)
    if twin is None:
        return None
    library, other = twin
    try:
        source, theirs = build_for_checkpoint(saved, partial(_build_blank, library), other)
    except CamvizError:  # the library is not installed, or cannot build it
        return None
    if theirs.faults or bool(source.num_classes) != bool(built.num_classes):
        return None
    own = _build_blank(origin, replace(request, num_classes=source.num_classes))
    carried = carry_weights_between(theirs, source, own)
    if carried and carried.faults and strict:
        raise other_outputs_error(saved, request, other.name)
    return (own, carried) if carried and not carried.faults else None


def _find_twin(
    origin: Origin, built: BuiltModel, saved: Checkpoint
) -> tuple[Origin, ModelSpec] | None:
    """Returns which model of timm or transformers a checkpoint may be of, if not of this one."""
    folder = find_model_folder(saved.path)
    if folder and origin in ("timm", "torchvision"):
        return TRANSFORMERS, ModelSpec(folder, False)
    if folder or origin != TRANSFORMERS:
        return None
    classes = None if built.num_classes else 0
    if saved.arch and import_builder("timm").knows(saved.arch):
        kwargs = saved.settings_for(saved.arch).model_kwargs
        return "timm", ModelSpec(saved.arch, False, classes, model_kwargs=kwargs)
    twin: ModelSpec | None = import_builder(TRANSFORMERS).find_timm_twin(
        built.module.config, classes
    )
    return None if twin is None else ("timm", twin)


def _compare_with_folder(
    origin: Origin, request: ModelSpec, built: BuiltModel, fitted: FittedWeights, strict: bool
) -> tuple[str, ...]:
    """Compares a model with the one that transformers saved in the folder its weights are from.

    Returns a word where that cannot be done.  Raises CheckpointError if the two differ.
    """
    folder = find_model_folder(fitted.checkpoint.path)
    if not folder or origin not in ("timm", "torchvision"):
        return ()
    try:
        source, theirs = build_for_checkpoint(
            fitted.checkpoint, partial(_build, TRANSFORMERS), ModelSpec(folder, False)
        )
    except CamvizError as error:
        return (NOT_COMPARED.format(folder, f" {first_line(error)}"),)
    if theirs.faults or source.num_classes != built.num_classes:
        return ()
    copy_weights(source.module, theirs)
    align_eps(source, built)
    is_same = computes_the_same(source, built)
    if is_same:
        return ()
    if is_same is None:
        return (NOT_COMPARED.format(folder, ""),)
    difference = other_outputs_error(fitted.checkpoint, request, folder)
    if strict:
        raise difference
    return (str(difference),)


def list_origins(origin: Origin, name: str, request: ModelSpec) -> Iterator[Origin]:
    """Gives where a checkpoint's model may come from: one name can stand for two networks."""
    yield origin
    # with a library before the name, a tag behind it or arguments, timm's is meant
    plain = name == request.name and "." not in name and request.model_kwargs.keys() <= {"in_chans"}
    torchvision = import_builder("torchvision")
    if origin == "timm" and plain and torchvision.knows(name):
        yield "torchvision"
