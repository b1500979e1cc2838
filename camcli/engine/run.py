"""Runs methods on a batch: raw maps for each layer, smoothed and fused as asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, get_args, overload
from weakref import WeakSet

import torch
from torch import Tensor, nn

import camcli.engine.attention
import camcli.engine.backprop
import camcli.engine.derivatives
import camcli.engine.evidence
import camcli.engine.fullgrad
import camcli.methods  # noqa: F401  (fills the registry)
from camcli.engine.chunks import in_chunks
from camcli.engine.precision import running_in
from camcli.engine.probe import CHUNK, Probe, Tokens, found_places, usual_chunk
from camcli.engine.targets import (
    ABOUT_A_CLASS,
    Best,
    Choice,
    Plain,
    Target,
    Targets,
    fixed,
    target_of,
)
from camcli.errors import CamvizWarning, MethodError, UsageError
from camcli.methods import compose
from camcli.models.hastening import hastened
from camcli.models.layers import TargetLayer, default_layer, find_layer
from camcli.models.layout import Layout
from camcli.models.model_cache import ModelCache
from camcli.models.model_lock import call_on_model, lock_model, lock_to_restore, locks_model
from camcli.models.output import OutputKey
from camcli.models.output_reading import (
    OutputReading,
    as_logit,
    found_reading,
    reading_output,
    takes_one_alone,
)
from camcli.models.packing import Packings
from camcli.models.several_inputs import InputKey, SeveralInputs, passed_on, several_inputs
from camcli.models.state import has_classifier, left_as_found, watchable
from camcli.records import Fusion, Outputs, Precision, TargetName
from camcli.registry import (
    EVIDENCE,
    METHODS,
    Method,
    checked_options,
    depends_on_category,
    depends_on_layer,
    method_name,
    needed,
    options_for,
)
from camcli.stages import stage

# method, layer and name -> [b k ...]
Details = dict[tuple[str, str, str], Tensor]
Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
Layers = str | nn.Module | Sequence[str | nn.Module]
# the name under which a map of several layers stands, or one that looks at none
WHOLE = ""
# evidence of methods that pass a picture many times
MANY_PASSES = {"told", "gradients_at"}
# and of those that go by pictures, where a layer puts out several slices of each
BY_PICTURE = {"score", "rescore", "relogits", "guided_gradients", "class_weights"}


@dataclass(frozen=True)
class Request:
    """What is asked of a batch; layouts that are not given are measured on the pass itself."""

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    tokens: Tokens = field(default_factory=Tokens)
    layer_fusion: Fusion = "mean"
    aug_smooth: bool = False
    eigen_smooth: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: Target = field(default_factory=Plain)
    reading: OutputReading = field(default_factory=OutputReading)
    noise: compose.Noise | None = None
    # how many altered pictures, or outputs of a layer, stand in memory together
    chunk: int = CHUNK
    precision: Precision = "float32"
    # where a model takes more than pictures
    inputs: SeveralInputs | None = None

    def __post_init__(self) -> None:
        """Refuses what is not defined, before any pass is run."""
        for name in self.methods:
            checked_options(name, self.options.get(name, {}))
        if self.precision not in get_args(Precision):
            allowed = ", ".join(get_args(Precision))
            raise UsageError(f"Precision is one of {allowed}, not {self.precision!r}.")
        if self.layer_fusion not in get_args(Fusion):
            allowed = ", ".join(get_args(Fusion))
            raise UsageError(f"Layer fusion is one of {allowed}, not {self.layer_fusion!r}.")
        if self.layer_fusion == "refine":
            self._check_refinable()
        maps = [name for name in self.methods if METHODS[name].gives == "map"]
        if self.eigen_smooth and maps:
            raise MethodError(
                f"eigen-smooth takes the first component of weighted channels; "
                f"{', '.join(maps)} makes a map directly. Leave --eigen-smooth out."
            )
        detailed = [m for m in self.methods if METHODS[m].details and depends_on_layer(m)]
        if detailed and len(self.layers) > 1 and self.layer_fusion != "none":
            raise MethodError(
                f"{detailed[0]} shows more than a map of each layer: give one layer, or "
                "--layer-fusion none."
            )
        classless = [name for name in self.methods if not depends_on_category(name)]
        if self.target.name in ABOUT_A_CLASS and classless:
            raise MethodError(
                f"Target {self.target.name} asks about a class, and {', '.join(classless)} shows "
                "none in particular: leave one of the two out."
            )

    def _check_refinable(self) -> None:
        layerless = [name for name in self.methods if not depends_on_layer(name)]
        if layerless:
            raise MethodError(
                f"RefineCAM multiplies the maps of several layers, and {', '.join(layerless)} looks"
                " at none: leave --layer-fusion refine out."
            )
        if len(self.layers) < 2:
            raise UsageError(
                "RefineCAM (--layer-fusion refine) multiplies the maps of several layers: name two"
                " or more with --target-layers; --preview-model shows them."
            )

    @property
    def graph(self) -> bool:
        """Whether any method needs a backward pass."""
        return any(EVIDENCE[e].backward for e in needed(METHODS[m] for m in self.methods))

    @property
    def many_passes(self) -> bool:
        """Whether a picture passes more than once: altered, from other sides, or with noise."""
        asked = needed(METHODS[m] for m in self.methods)
        return bool(asked & MANY_PASSES) or self.aug_smooth or self.noise is not None


@dataclass(frozen=True)
class Answer:
    """Logits [b n], categories [b k], {method: {layer: raw maps [b k h w]}}, and layers' calls.

    Maps of a layer that puts out t slices of each picture are [b k t h w].

    Where no class was asked for, there are no logits and no categories, and k is 1; references
    [b k r] are there for a contrast only.  Details [b k ...] are those of the pictures as they are.
    """

    logits: Tensor | None
    categories: Tensor | None
    references: Tensor | None
    maps: compose.Maps
    details: Details
    calls: Mapping[str, int]
    reading: OutputReading = field(default_factory=OutputReading)

    @cached_property
    def probabilities(self) -> Tensor | None:
        """Each class's probability, by softmax or sigmoid; none of values.  [b n]"""
        if self.logits is None or self.reading.is_value:
            return None
        return self.reading.log_probabilities(self.logits).exp()

    @stage("fetch")
    def fetched(self) -> Answer:
        """Returns the same in main memory; waits for a GPU that is not done with it yet."""
        # all of a batch together: each fetch for itself would wait for the GPU once more
        return replace(
            self,
            logits=_in_memory(self.logits),
            categories=_in_memory(self.categories),
            references=_in_memory(self.references),
            maps={
                method: {layer: maps.cpu() for layer, maps in layers.items()}
                for method, layers in self.maps.items()
            },
            details={key: tensor.cpu() for key, tensor in self.details.items()},
        )


def _in_memory(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()


@locks_model
@stage("method")
def answer(
    module: nn.Module,
    inputs: Tensor,
    choice: Choice | None,
    request: Request,
    packings: Packings | None = None,
) -> Answer:
    """Explains a batch [b 3 H W] at the requested layers; halves it where memory runs out.

    Without a choice the output is not looked at, which only methods that ask no class allow.  Of
    several batches in one model, all but the first pass are faster with the same packings.
    """
    inputs, watched = like(module, inputs), watchable(module)

    def run(rows: slice) -> Answer:
        with passed_on(module, request.inputs, rows.start):
            return _answer(module, inputs[rows], choice and choice.part(rows), request)

    if packings is None and request.many_passes:
        packings = Packings()
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        left_as_found(watched),
        hastened(watched, packings),
        reading_output(module, request.reading),
        running_in(request.precision, inputs.device),
    ):
        # a picture's other inputs go with all of its altered copies: one after the other
        one_by_one = bool(request.inputs) or request.reading.is_alone
        parts = in_chunks(run, len(inputs), 1 if one_by_one else len(inputs))
        chosen = [part.categories for part in parts if part.categories is not None]
        k = max((categories.shape[1] for categories in chosen), default=1)
        maps = {
            method: {
                layer: torch.cat([_widened(part.maps[method][layer], k) for part in parts])
                for layer in layers
            }
            for method, layers in parts[0].maps.items()
        }
        logits = _joined(part.logits for part in parts)
        categories = _joined(_widened(part.categories, k) for part in parts)
        references = _joined(_widened(part.references, k) for part in parts)
        details = {
            key: torch.cat([_widened(p.details[key], k) for p in parts]) for key in parts[0].details
        }
    calls = parts[0].calls
    return Answer(logits, categories, references, maps, details, calls, request.reading)


@overload
def _widened(tensor: Tensor, k: int) -> Tensor: ...
@overload
def _widened(tensor: Tensor | None, k: int) -> Tensor | None: ...
def _widened(tensor: Tensor | None, k: int) -> Tensor | None:
    """Repeats the last of the classes, where another part of the batch has more.  -> [b k ...]"""
    if tensor is None or tensor.shape[1] == k:
        return tensor
    missing = tensor[:, -1:].expand(-1, k - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], 1)


def _joined(parts: Iterable[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _answer(module: nn.Module, inputs: Tensor, choice: Choice | None, request: Request) -> Answer:
    with probe_for(module, inputs, choice, request, graph=request.graph) as probe:
        logits = probe.get("logits") if choice else None
        categories = probe.get("categories") if choice else None
        maps, details = _smoothed(probe, request)
        calls = probe.get("recording").calls
        fused = _fused(maps, inputs, request)
        return Answer(logits, categories, _references(probe), fused, details, calls)


def probe_for(
    module: nn.Module, inputs: Tensor, choice: Choice | None, request: Request, *, graph: bool
) -> Probe:
    """Returns a probe of a batch [b 3 H W] for what is asked; without methods, for all of them."""
    asked = needed(METHODS[name] for name in request.methods or METHODS)
    return Probe(
        module,
        inputs,
        request.layers,
        choice,
        graph=graph,
        heads="class_head" in asked,
        target=request.target,
        layouts=request.layouts,
        tokens=request.tokens,
        chunk=1 if request.reading.is_alone else request.chunk,
    )


def _references(probe: Probe) -> Tensor | None:
    if not probe.choice:
        return None
    slots = range(probe.get("categories").shape[1])
    found = [probe.get("references", slot=slot) for slot in slots]
    return None if found[0] is None else torch.stack(found, 1)


def _smoothed(probe: Probe, request: Request) -> tuple[compose.Maps, Details]:
    """Returns raw maps, smoothed as asked; of augmented views, each is smoothed by itself."""
    maps, details = _raw_maps(probe, request)

    def plain(views: Tensor) -> compose.Maps:
        with probe.about(views) as other:
            return _raw_maps(other, request)[0]

    maps_of: Callable[[Tensor], compose.Maps] = plain
    if request.noise:
        maps_of = partial(compose.noise_smoothed, plain, noise=request.noise)
        maps = maps_of(probe.inputs)
    if request.aug_smooth:
        maps = compose.augmentation_smoothed(maps, maps_of, probe.inputs)
    return maps, details


def _raw_maps(probe: Probe, request: Request) -> tuple[compose.Maps, Details]:
    reduce = compose.eigen_smooth if request.eigen_smooth else compose.channel_sum
    k = probe.get("categories").shape[1] if probe.choice else 1
    details: Details = {}

    def of_categories(found: Sequence[Tensor]) -> Tensor:
        stack = torch.stack(tuple(found), 1).float()
        return stack.expand(-1, k, *stack.shape[2:])

    def every(method: Method, layer: str) -> Tensor:
        slots = range(k) if depends_on_category(method.name) else [0]
        options = request.options.get(method.name, {})
        t = _slices(probe, method, layer) if layer else 1
        found = [probe.apply(method, layer, slot, **options) for slot in slots]
        for name in method.details:
            details[method.name, layer, name] = of_categories([f.details[name] for f in found])
        weighted = method.gives == "weighted activations"
        maps = [reduce(f.map) if weighted else f.map for f in found]
        return of_categories(maps if t == 1 else [m.reshape(-1, t, *m.shape[1:]) for m in maps])

    def at_layers(method: Method) -> Mapping[str, Tensor]:
        if depends_on_layer(method.name):
            return {layer: every(method, layer) for layer in request.layers}
        return {WHOLE: every(method, WHOLE)}

    return {name: at_layers(METHODS[name]) for name in request.methods}, details


def _slices(probe: Probe, method: Method, layer: str) -> int:
    """Returns how many slices of each picture a layer has maps of.

    Raises MethodError for a method that goes by pictures.
    """
    output = probe.get("recording").outputs.get(layer)
    t = 1 if output is None else probe.slices(layer, output)
    if t > 1 and not BY_PICTURE.isdisjoint(method.evidence):
        raise MethodError(
            f"{layer!r} puts out {t} slices of each picture, and {method.name} alters or compares "
            "whole pictures: try --method gradcam, or a layer behind them."
        )
    return t


def _fused(maps: compose.Maps, inputs: Tensor, request: Request) -> compose.Maps:
    if len(request.layers) == 1 or request.layer_fusion == "none":
        return maps
    size = (inputs.shape[-2], inputs.shape[-1])

    def fused(method: str) -> Mapping[str, Tensor]:
        if not depends_on_layer(method):
            return maps[method]
        of_value = request.reading.is_value and depends_on_category(method)
        every = list(maps[method].values())
        if len({m.ndim for m in every}) > 1:
            raise MethodError(
                "Maps of slices and of whole pictures are not fused: name layers of one kind, or "
                "give --layer-fusion none."
            )
        return {WHOLE: compose.fuse(every, size, request.layer_fusion, keep_sign=of_value)}

    return {method: fused(method) for method in maps}


def heatmaps(
    module: nn.Module,
    inputs: Inputs,
    method: str | Sequence[str] = "gradcam",
    *,
    target_layers: Layers | None = None,
    targets: Targets | None = None,
    target: TargetName | Callable[[Tensor, Tensor], Tensor] | None = None,
    contrast: int | Sequence[int] = (),
    contrast_strength: float = 0.6,
    layer_fusion: Fusion = "mean",
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    noise_smooth: int | None = None,
    noise_sigma: float = 0.15,
    vit_like: bool | None = None,
    num_extra_tokens: int | None = None,
    precision: Precision = "float32",
    seed: int = 0,
    set: Mapping[str, Any] | None = None,  # noqa: A002
    output_key: OutputKey | None = None,
    outputs: Outputs | None = None,
    image_input: InputKey | None = None,
) -> Any:
    """Computes raw float32 maps of any model.  inputs [b 3 H W] -> [b h w]

    Several layers are fused at the input's size [b H W]; k targets a picture give [b k h w]; a list
    of methods gives {method: maps}; layer_fusion="none" gives {layer: maps}; a layer that puts out
    t frames or slices of each picture [b*t ...] gives a map of each [b t h w].  Left out, the layer
    is found and the targets are the predicted classes.  Raises CamvizError for what is not defined.

    What is explained of a class is its logit, or another `target`: a name, or a function of logits
    [b n] and categories [b] to scores [b].  `contrast` names the classes to compare with, `set` the
    methods' own options, `output_key` the logits in a model's tuple or dictionary.  `noise_smooth`
    copies with noise of `noise_sigma` of the picture's range are averaged.  Passes are run in
    `precision`: float32, bf16, fp16, or auto.

    `outputs` says what the outputs mean, which is measured where it is left out: logits or
    probabilities of classes of which one is right, independent classes, or a value, whose map is
    that of the value itself, signed.  Softmax and sigmoid at the end are looked through.

    Of several inputs, a tuple or a dictionary, the first [b 3 H W] is explained, or the one that
    `image_input` names; the others are passed on, each picture's own.
    """
    with call_on_model(module):
        others, pictures = _pictures(inputs, image_input)
        several = not isinstance(method, str)
        given = list(method) if several else [str(method)]
        names = {g: method_name(g) for g in given}
        against = [contrast] if isinstance(contrast, int) else contrast
        asking = [name for name in names.values() if depends_on_category(name)]
        if asking and not has_classifier(module):
            raise MethodError(
                f"This {type(module).__name__} has no classifier, and so no class that {asking[0]}"
                " could explain. Try eigencam."
            )
        reading, is_unsure = OutputReading(output_key), False
        if asking or targets is not None:
            with passed_on(module, others):
                about = (output_key, outputs, others and others.shapes)
                reading = _reading(module, pictures, about, chosen=targets is not None)
            is_unsure = reading.is_value and not reading.is_declared
            # a single number has two sides, as a logit has, until somebody says what it means
            reading = as_logit(reading) if is_unsure else reading
        elif others is None and _goes_alone(module, pictures):
            reading = replace(reading, is_alone=True)
        explained = target_of(target, against, contrast_strength, reading)
        options = options_for(list(names.values()), set or {}, seed)
        with passed_on(module, others):
            layers, layouts = layers_for(names.values(), module, pictures, target_layers, reading)
            doubts = doubts_about(module, pictures.shape[1:], layers, target_layers, reading)
        warn_of(doubts.values())
        tokens = Tokens(vit_like, num_extra_tokens)
        request = Request(
            tuple(dict.fromkeys(names.values())),
            layers,
            layouts,
            tokens,
            layer_fusion,
            aug_smooth,
            eigen_smooth,
            options,
            explained,
            reading,
            None if noise_smooth is None else compose.Noise(noise_smooth, noise_sigma, seed),
            usual_chunk(like(module, pictures[:0]).device),
            precision,
            others,
        )
        choice: Choice | None = fixed(targets, len(pictures)) if targets is not None else None
        if choice is None and asking:
            choice = fixed(0, len(pictures)) if reading.is_value else Best()
        answered = answer(module, pictures, choice, request)
        found = answered.maps
        if is_unsure and targets is None and answered.logits is not None:
            _say_which_side(module, answered.logits)
        k_wanted = targets is not None and torch.as_tensor(targets).ndim == 2

        def shaped(maps: Mapping[str, Tensor]) -> Any:
            plain = {layer: m if k_wanted else m[:, 0] for layer, m in maps.items()}
            if layer_fusion == "none" and WHOLE in plain:
                return dict.fromkeys(layers or (WHOLE,), plain[WHOLE])
            return plain if layer_fusion == "none" else next(iter(plain.values()))

        return (
            {g: shaped(found[n]) for g, n in names.items()}
            if several
            else shaped(found[names[given[0]]])
        )


def _goes_alone(module: nn.Module, pictures: Tensor) -> bool:
    """Tells whether several pictures are given to a model that takes one at a time."""
    shape = (pictures.shape[1], pictures.shape[2], pictures.shape[3])
    return len(pictures) > 1 and takes_one_alone(watchable(module), shape)


_told: WeakSet[nn.Module] = WeakSet()


def _reading(
    module: nn.Module,
    inputs: Tensor,
    about: tuple[OutputKey | None, Outputs | None, Hashable],
    *,
    chosen: bool,
) -> OutputReading:
    """Returns how the outputs are read; raises UsageError where one of several is to be chosen."""
    shape = (inputs.shape[1], inputs.shape[2], inputs.shape[3])
    reading = found_reading(watchable(module), shape, *about)
    if reading.is_value and reading.width != 1 and not chosen:
        raise UsageError(
            f"This model puts out {reading.width or 'several'} values: targets says which of them"
            " is explained."
        )
    if reading.inverse or reading.mixes:
        _warn(module, reading.note)
    return reading


def _say_which_side(module: nn.Module, logits: Tensor) -> None:
    """Warns where it matters whether a single number is a logit or a value: below zero."""
    if bool((logits < 0).any()):
        _warn(
            module,
            "its one output is taken for the logit of a yes, and where it is below zero the no is"
            ' explained; outputs="value" explains the number itself, outputs="logits" says that it'
            " is one",
        )


def _warn(module: nn.Module, note: str) -> None:
    if note and module not in _told:
        _told.add(module)
        warnings.warn(f"This {type(module).__name__}: {note}.", stacklevel=4)


@contextmanager
def packed(module: nn.Module) -> Iterator[None]:
    """Makes the calls in its block faster on a CPU, for about the memory of the weights.

    Weights are laid out for their operations at the second pass, and kept until the block's end.
    Weights that are set anew are laid out anew; changes through `.data` cannot be seen, and are not
    to be made in between.  Raises ModelError where hooks cannot look inside.
    """
    stack, module = ExitStack(), watchable(module)
    try:
        with lock_model(module):
            stack.enter_context(hastened(module, Packings()))
        # open, it keeps no other thread from its calls
        yield
    finally:
        with lock_to_restore(module):
            stack.close()


def activations(
    module: nn.Module,
    inputs: Inputs,
    target_layers: Layers | None = None,
    *,
    output_key: OutputKey | None = None,
    image_input: InputKey | None = None,
) -> dict[str, Tensor]:
    """Returns the target layers' outputs laid out as maps.  [b 3 H W] -> {layer: [b c h w]}

    Of several inputs the pictures are found, or named, as in `heatmaps`.
    """
    with call_on_model(module):
        given, pictures = _pictures(inputs, image_input)
        pictures = like(module, pictures)
        with passed_on(module, given):
            reading = OutputReading(output_key)
            layers, layouts = target_layers_of(module, pictures, target_layers, reading)
            doubts = doubts_about(module, pictures.shape[1:], layers, target_layers, reading)
        warn_of(doubts.values())

        def run(rows: slice) -> dict[str, Tensor]:
            with passed_on(module, given, rows.start):
                probe = Probe(module, pictures[rows], layers, Best(), graph=False, layouts=layouts)
                return {layer: probe.get("activations", layer) for layer in layers}

        with torch.inference_mode(False), torch.no_grad():
            one_by_one = given is not None or _goes_alone(module, pictures)
            parts = in_chunks(run, len(pictures), 1 if one_by_one else len(pictures))
        return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def layers_for(
    methods: Iterable[str],
    module: nn.Module,
    inputs: Tensor,
    given: Layers | None,
    reading: OutputReading | None = None,
) -> tuple[tuple[str, ...], dict[str, Layout]]:
    """Finds the layers that methods look at; none where they look at none and none is named."""
    # they work where no layer can be found
    if not given and not any(map(depends_on_layer, methods)):
        return (), {}
    return target_layers_of(module, inputs, given, reading)


@locks_model
def target_layers_of(
    module: nn.Module, inputs: Tensor, given: Layers | None, reading: OutputReading | None = None
) -> tuple[tuple[str, ...], dict[str, Layout]]:
    """Finds the named layers, or the default one, and the layouts of those that have one."""
    shape = (inputs.shape[1], inputs.shape[2], inputs.shape[3])
    if given:
        named = [given] if isinstance(given, str | nn.Module) else given
        names = tuple(dict.fromkeys(find_layer(module, name) for name in named))
        places = found_places(module, shape, names)
        return names, {name: places[name].layout for name in places}
    default = found_default(module, shape, reading)
    return (default.name,), {default.name: default.layout}


@locks_model
def doubts_about(
    module: nn.Module,
    shape: Sequence[int],
    layers: Sequence[str],
    given: Layers | None,
    reading: OutputReading | None = None,
) -> dict[str, str]:
    """Says for which of these layers, named or not, it is in doubt where their cells lie."""
    size = (shape[0], shape[1], shape[2])
    if not given:
        found = {layer: found_default(module, size, reading).doubt for layer in layers}
    else:
        places = found_places(module, size, layers)
        found = {layer: places[layer].doubt(layer) for layer in places}
    return {layer: doubt for layer, doubt in found.items() if doubt}


def warn_of(doubts: Iterable[str]) -> None:
    """Warns whoever called the Python interface; Python tells each warning once."""
    for doubt in doubts:
        warnings.warn(doubt, CamvizWarning, stacklevel=3)


_defaults: ModelCache[TargetLayer] = ModelCache()


@locks_model
def found_default(
    module: nn.Module,
    shape: tuple[int, int, int],
    reading: OutputReading | OutputKey | None = None,
) -> TargetLayer:
    """Returns a model's default target layer for inputs (channels, H, W), found only once.

    Of how its output is read, the key of its logits will do.
    """
    if not isinstance(reading, OutputReading):
        reading = OutputReading(reading)
    known, key = _defaults.of(module), (shape, reading)
    if key not in known:
        with reading_output(module, reading):
            known[key] = default_layer(module, shape)
    return known[key]


def _pictures(inputs: Inputs, image_input: InputKey | None) -> tuple[SeveralInputs | None, Tensor]:
    """Returns a batch of pictures, and what stands beside it, if anything does."""
    if isinstance(inputs, tuple | list | Mapping):
        given = several_inputs(inputs, image_input)
        return given, _batch(given.pictures)
    if image_input is not None:
        raise UsageError(f"image_input {image_input!r} is for several inputs, and one is given.")
    return None, _batch(inputs)


def _batch(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise UsageError(f"Inputs are a float tensor [b 3 H W], not a {type(inputs).__name__}.")
    if inputs.ndim != 4 or not inputs.is_floating_point() or not inputs.numel():
        given = f"{inputs.dtype} {list(inputs.shape)}"
        raise UsageError(f"Inputs are a float tensor [b 3 H W], not {given}.")
    return inputs


def like(module: nn.Module, inputs: Tensor) -> Tensor:
    """Moves inputs to where the model's parameters are, in their precision."""
    parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
    return inputs if parameter is None else inputs.to(parameter.device, parameter.dtype)
