"""The tensor API: a model and a batch of inputs to raw heatmaps, or to activations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

import camcli.engine.evidence.attention
import camcli.engine.evidence.curvature
import camcli.engine.evidence.forward_backward
import camcli.engine.evidence.fullgrad
import camcli.engine.evidence.guided_backprop
import camcli.methods  # noqa: F401  (fills the registry)
from camcli.engine.answer_request import answer_request, move_to_model
from camcli.engine.batch_context import BatchContext, TokenOptions, choose_chunk
from camcli.engine.device.oom_chunks import run_in_chunks
from camcli.engine.explain_request import WHOLE, ExplainRequest
from camcli.engine.layer_selection import (
    Layers,
    find_doubts,
    find_target_layers,
    warn_doubts,
)
from camcli.engine.method_selection import find_selected_layers, select_methods
from camcli.engine.targets import (
    CategoryChoice,
    Targets,
    TopKCategories,
    make_target,
    parse_targets,
)
from camcli.errors import MethodError, UsageError
from camcli.keywords import check_keywords
from camcli.method_terms import BEST, COMBINED, check_methods, find_method_names, split_term
from camcli.methods import smoothing
from camcli.models.acceleration import PrepackCache, accelerate
from camcli.models.multiple_inputs import (
    InputKey,
    SeveralInputs,
    add_other_inputs,
    split_several_inputs,
)
from camcli.models.outputs.interpretation import (
    OutputReading,
    find_output_reading,
    read_as_logit,
    takes_one_alone,
)
from camcli.models.outputs.logits import OutputKey
from camcli.models.state import (
    call_on_model,
    check_hookable,
    has_classifier,
    lock_model,
    lock_to_restore,
)
from camcli.records import BestFor, Combination, Fusion, Outputs, Precision, TargetName
from camcli.registry import ALL, assign_options, depends_on_category

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


@check_keywords(targets="target_category")
def heatmaps(
    module: nn.Module,
    inputs: Inputs,
    method: str | Sequence[str] = "gradcam",
    *,
    target_layers: Layers | None = None,
    target_category: Targets | None = None,
    target: TargetName | Callable[[Tensor, Tensor], Tensor] | None = None,
    contrast: int | Sequence[int] = (),
    contrast_strength: float = 0.6,
    layer_fusion: Fusion = "mean",
    combine: Combination | None = None,
    best_for: BestFor | None = None,
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
    """Computes raw float32 maps of any model, signed if the formula is.  [b 3 H W] -> [b h w]

    The model is left as it was found: mode, gradients, hooks and random state. `camviz help
    methods` says what each method computes, with its paper and equation.

    Args:
        module: Any model of pictures, on any device; inputs are moved to it.
        inputs: A float batch [b 3 H W], normalised as the model expects. Or a tuple or dictionary
            of all inputs of the model: the first float tensor [b 3 H W] in it is explained, and
            the others are passed on; a picture gets its own row of those that have b rows.
        method: Names of methods, see camviz methods; default gradcam. A list of names gives a
            dictionary.
        target_layers: Layers to explain at (layer4, blocks.-1.norm1); default found by measuring.
            Modules, too. Several are fused at the input's size.
        target_category: Classes to explain, by index or name; default the predicted one. Here
            indices: one for all pictures, one a picture [b], or k for each [b k]. For a model
            whose outputs are values, the index of the explained value.
        target: What is explained of the class: logit, probability, log-probability, rest,
            counterfactual (what speaks against it) or contrast; default logit. Or a function of
            logits [b n] and categories [b] to scores [b].
        contrast: Why this class and not those; with the target contrast, by default, the 3 most
            similar. Indices of classes (Finer-CAM, arXiv:2501.11309).
        contrast_strength: How much of the other classes' mean logit is taken away; default 0.6.
        layer_fusion: Several layers: mean, max, product, refine (RefineCAM), or none for a map
            each; default mean. A map each gives {layer: maps}.
        combine: Make one map of several methods, each at the target layers or, as METHOD@LAYER, at
            one of its own: product or mean. One map 0 to 1 at the input's size, of a list, too.
        best_for: What the method best is best for: evidence (where the score comes from), extent
            (what the object covers) or balanced; default balanced. Its map is 0 to 1 at the input's
            size.
        aug_smooth: Average over flips and brightness changes. Six passes in place of one.
        eigen_smooth: First principal component of the weighted channels in place of their sum. For
            methods that weight channels.
        noise_smooth: Average over N noisy copies of the picture. N is a whole number from 1; left
            out, none.
        noise_sigma: That noise's deviation, as a share of the picture's range; default 0.15.
        vit_like: The layer puts out tokens, or does not; default measured.
        num_extra_tokens: Tokens that are no part of the grid, such as the class token; default
            measured.
        precision: float32, bf16, fp16, or auto: bf16 where a GPU has it; default float32. Maps are
            float32 all the same.
        seed: Seed for methods and noise drawn at random; default 0.
        set: Options of the methods, or of one: METHOD.NAME. {"max_channels": 64}, or
            {"scorecam.max_channels": 64}.
        output_key: Where your own model's logits are in the tuple or dictionary that it returns. A
            key, a position, or a path of them ("heads.race"); left out, lone `logits` are found.
        outputs: What the outputs mean: logits, probabilities (of one class), independent (several
            classes at once) or value (a real number); default measured. Softmax and sigmoid at the
            end are looked through; the map of a value is that of the value itself, signed.
        image_input: Which of several inputs is explained: a position or a name; default the first
            that is a float tensor [b 3 H W].

    Returns:
        Maps [b h w] at the layer's own resolution, or [b H W] if several layers are fused; [b k h
        w] for k targets of each picture; [b t h w] for a layer whose output [b*t ...] has t frames
        or slices of each picture. A list of methods gives a dictionary {method: maps}, and
        `layer_fusion="none"` gives {layer: maps}.

    Raises:
        UsageError: Inputs, targets or options that are invalid, or do not go together.
        UnknownName: An unknown method, layer, target or option; the message names the closest one.
        LayerError: A layer without a grid, or one that the model does not call.
        MethodError: A method that is not defined for this model or these options.
        ModelError: A model that hooks cannot look inside, or whose output is not understood.

    Example:
        >>> import camcli, torch
        >>> model = camcli.load_model(device="cpu").module
        >>> inputs = torch.zeros(2, 3, 224, 224)
        >>> camcli.heatmaps(model, inputs).shape
        torch.Size([2, 7, 7])
        >>> classes = [[281, 285]] * 2
        >>> maps = camcli.heatmaps(model, inputs, ["gradcam", "cam"], target_category=classes)
        >>> {method: tuple(m.shape) for method, m in maps.items()}
        {'gradcam': (2, 2, 7, 7), 'cam': (2, 2, 7, 7)}
    """
    if isinstance(inputs, nn.Module):
        raise UsageError("The model comes first, and its inputs second: heatmaps(model, inputs).")
    with call_on_model(module):
        others, pictures = _split_inputs(inputs, image_input)
        several = not isinstance(method, str) and combine is None
        given = [method] if isinstance(method, str) else list(method)
        names = {g: find_method_names([g])[0] for g in given}
        terms = tuple(dict.fromkeys(names.values()))
        _check_terms(terms, combine, best_for)
        against = [contrast] if isinstance(contrast, int) else contrast
        asking = [m for m in terms if m == BEST or depends_on_category(split_term(m)[0])]
        if asking and not has_classifier(module):
            raise MethodError(
                f"This {type(module).__name__} has no classifier, so {asking[0]} has no class to "
                "explain. Try eigencam."
            )
        reading, is_unsure = OutputReading(output_key), False
        if asking or target_category is not None:
            with add_other_inputs(module, others):
                output_options = (output_key, outputs, others and others.shapes)
                reading = _find_reading(
                    module, pictures, output_options, chosen=target_category is not None
                )
            is_unsure = reading.is_value and not reading.is_declared
            # a single number is read as the logit of yes and no until the caller says what it means
            reading = read_as_logit(reading) if is_unsure else reading
        elif others is None and _must_run_alone(module, pictures):
            reading = replace(reading, is_alone=True)
        explained = make_target(target, against, contrast_strength, reading)
        shape = (pictures.shape[1], pictures.shape[2], pictures.shape[3])
        with add_other_inputs(module, others):
            selected = select_methods(
                module, shape, terms, target_layers, combine, best_for, reading
            )
            layers, layouts, doubts = find_selected_layers(
                module, pictures, selected, target_layers, reading
            )
        options = assign_options(selected.all_methods, set or {}, seed)
        warn_doubts(doubts.values())
        tokens = TokenOptions(vit_like, num_extra_tokens)
        request = ExplainRequest(
            selected.methods,
            layers,
            layouts,
            tokens,
            layer_fusion,
            aug_smooth,
            eigen_smooth,
            options,
            explained,
            reading,
            None if noise_smooth is None else smoothing.Noise(noise_smooth, noise_sigma, seed),
            choose_chunk(move_to_model(module, pictures[:0]).device),
            precision,
            others,
            combined=selected.combined,
        )
        choice: CategoryChoice | None = (
            parse_targets(target_category, len(pictures)) if target_category is not None else None
        )
        if choice is None and asking:
            choice = parse_targets(0, len(pictures)) if reading.is_value else TopKCategories()
        answered = answer_request(module, pictures, choice, request)
        if is_unsure and target_category is None and answered.logits is not None:
            _warn_of_negative_logit(module, answered.logits)
        k_wanted = target_category is not None and torch.as_tensor(target_category).ndim == 2

        def shape_maps(name: str) -> Any:
            maps = answered.maps[name]
            is_combined = request.find_combined(name) is not None
            plain = {layer: m if k_wanted else m[:, 0] for layer, m in maps.items()}
            if layer_fusion == "none" and WHOLE in plain and not is_combined:
                return dict.fromkeys(layers or (WHOLE,), plain[WHOLE])
            as_layers = layer_fusion == "none" and not is_combined
            return plain if as_layers else next(iter(plain.values()))

        return (
            {g: shape_maps(n) for g, n in names.items()}
            if several
            else shape_maps(COMBINED if combine else names[given[0]])
        )


def _check_terms(
    terms: Sequence[str], combine: Combination | None, best_for: BestFor | None
) -> None:
    check_methods(terms, combine, best_for)
    if ALL in terms:
        raise UsageError(
            "Method all is for the command line, where it draws a sheet: name methods here, such "
            "as gradcam."
        )


def _must_run_alone(module: nn.Module, pictures: Tensor) -> bool:
    """Tells whether several pictures go to a model that takes only one at a time."""
    shape = (pictures.shape[1], pictures.shape[2], pictures.shape[3])
    return len(pictures) > 1 and takes_one_alone(check_hookable(module), shape)


_warned_modules: WeakSet[nn.Module] = WeakSet()


def _find_reading(
    module: nn.Module,
    inputs: Tensor,
    output_options: tuple[OutputKey | None, Outputs | None, Hashable],
    *,
    chosen: bool,
) -> OutputReading:
    """Returns how outputs are read; raises UsageError if one of several values must be chosen."""
    shape = (inputs.shape[1], inputs.shape[2], inputs.shape[3])
    reading = find_output_reading(check_hookable(module), shape, *output_options)
    if reading.is_value and reading.width != 1 and not chosen:
        raise UsageError(
            f"This model puts out {reading.width or 'several'} values: say with target_category"
            " which one is explained."
        )
    if reading.inverse or reading.mixes:
        _warn_once(module, reading.note)
    return reading


def _warn_of_negative_logit(module: nn.Module, logits: Tensor) -> None:
    """Warns if a single number is below zero, where a logit and a value have different maps."""
    if bool((logits < 0).any()):
        _warn_once(
            module,
            "its single output is read as the logit of yes, so no is explained where it is below"
            ' zero; outputs="value" explains the number itself, outputs="logits" confirms that it'
            " is a logit",
        )


def _warn_once(module: nn.Module, note: str) -> None:
    if note and module not in _warned_modules:
        _warned_modules.add(module)
        warnings.warn(f"This {type(module).__name__}: {note}.", stacklevel=5)


@check_keywords()
@contextmanager
def packed(module: nn.Module) -> Iterator[None]:
    """Makes the calls in its block faster on a CPU, for about as much memory as the weights take.

    The second pass prepacks the weights, and they stay prepacked until the block ends.  Weights
    that change are prepacked again.  Only one kind of change cannot be seen: single numbers inside
    some filters that are set through `.data`.  Do not set those within the block.

    Args:
        module: The model that `heatmaps` or `activations` is called with in the block.

    Raises:
        ModelError: A model that hooks cannot look inside.

    Example:
        >>> import camcli, torch
        >>> model = camcli.load_model(device="cpu").module
        >>> with camcli.packed(model):
        ...     maps = [camcli.heatmaps(model, torch.zeros(1, 3, 224, 224)) for _ in range(3)]
        >>> len(maps)
        3
    """
    stack, module = ExitStack(), check_hookable(module)
    try:
        with lock_model(module):
            stack.enter_context(accelerate(module, PrepackCache()))
        # while the block is open, other threads can still call the model
        yield
    finally:
        with lock_to_restore(module):
            stack.close()


@check_keywords()
def activations(
    module: nn.Module,
    inputs: Inputs,
    target_layers: Layers | None = None,
    *,
    output_key: OutputKey | None = None,
    image_input: InputKey | None = None,
) -> dict[str, Tensor]:
    """Returns the target layers' outputs laid out as maps.  [b 3 H W] -> {layer: [b c h w]}

    Args:
        module: Any model of pictures, on any device; inputs are moved to it.
        inputs: A float batch [b 3 H W], normalised as the model wants it, or several inputs as in
            `heatmaps`.
        target_layers: Layers to explain at (layer4, blocks.-1.norm1); default found by measuring.
            Modules, too.
        output_key: Where your own model's logits are in the tuple or dictionary that it returns. A
            key, a position, or a path of them ("heads.race"); left out, lone `logits` are found.
        image_input: Which of several inputs are the pictures: a position or a name; default the
            first that is a float tensor [b 3 H W].

    Returns:
        {layer's name: float maps [b c h w]}, on the model's device; [b t c h w] for a layer that
        puts out t frames or slices of each picture.

    Raises:
        UsageError: Inputs that are not a float batch.
        UnknownName: A layer that the model does not have.
        LayerError: A layer without a grid, or one that the model does not call.
        ModelError: A model that hooks cannot look inside.

    Example:
        >>> import camcli, torch
        >>> model = camcli.load_model(device="cpu").module
        >>> {k: v.shape for k, v in camcli.activations(model, torch.zeros(1, 3, 224, 224)).items()}
        {'features': torch.Size([1, 1280, 7, 7])}
    """
    with call_on_model(module):
        given, pictures = _split_inputs(inputs, image_input)
        pictures = move_to_model(module, pictures)
        with add_other_inputs(module, given):
            reading = OutputReading(output_key)
            layers, layouts = find_target_layers(module, pictures, target_layers, reading)
            doubts = find_doubts(module, pictures.shape[1:], layers, target_layers, reading)
        warn_doubts(doubts.values())

        def run(rows: slice) -> dict[str, Tensor]:
            with add_other_inputs(module, given, rows.start):
                context = BatchContext(
                    module, pictures[rows], layers, TopKCategories(), graph=False, layouts=layouts
                )
                maps = {layer: context.get("activations", layer) for layer in layers}
            b = len(pictures[rows])
            # frames and slices are rows of the batch
            return {n: m if len(m) == b else m.unflatten(0, (b, -1)) for n, m in maps.items()}

        with torch.inference_mode(False), torch.no_grad():
            one_by_one = given is not None or _must_run_alone(module, pictures)
            parts = run_in_chunks(run, len(pictures), 1 if one_by_one else len(pictures))
        return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def _split_inputs(
    inputs: Inputs, image_input: InputKey | None
) -> tuple[SeveralInputs | None, Tensor]:
    """Returns the batch of pictures, and the model's other inputs if there are any."""
    if isinstance(inputs, tuple | list | Mapping):
        given = split_several_inputs(inputs, image_input)
        return given, _check_batch(given.pictures)
    if image_input is not None:
        raise UsageError(
            f"image_input {image_input!r} chooses among several inputs, and only one is given."
        )
    return None, _check_batch(inputs)


def _check_batch(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise UsageError(f"Inputs are a float tensor [b 3 H W], not a {type(inputs).__name__}.")
    if inputs.ndim != 4 or not inputs.is_floating_point() or not inputs.numel():
        given = f"{inputs.dtype} {list(inputs.shape)}"
        raise UsageError(f"Inputs are a float tensor [b 3 H W], not {given}.")
    return inputs
