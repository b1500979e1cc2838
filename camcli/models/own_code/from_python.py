"""Models of the user's own: what their code builds, and what is found out by running it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from camcli.errors import CamvizError, ModelError, first_line
from camcli.models.model_spec import BuiltModel, ModelSpec
from camcli.models.multiple_inputs import check_takes_a_picture_alone
from camcli.models.outputs.interpretation import measure_output
from camcli.models.outputs.logits import describe_output, select_output
from camcli.models.own_code.user_code import describe_error, import_builder, run_user_code
from camcli.models.preprocessing import compute_scale, fit_view
from camcli.models.state import check_hookable, in_this_thread, lock_model, preserve_state
from camcli.records import Preprocessing

# what nearly every ImageNet model was evaluated with
SIZE, CROP_PCT = (224, 224), 0.875


def build(request: ModelSpec) -> BuiltModel:
    """Runs the user's code and the model that it builds once, on zeros.

    Raises UnknownName, or ModelError with the line on which the code failed.
    """
    with run_user_code(request.name):
        module = _check_module(import_builder(request.name), request)
        built = describe_module(module, request)
    what, flags = say_assumed(request)
    assumed = (f"{what}; change it with {flags}",) if what else ()
    weights, warnings = f"as built by {request.name}", (*assumed, *built.warnings)
    return replace(built, weights=weights, warnings=warnings)


def describe_module(
    module: nn.Module, request: ModelSpec, own: Preprocessing | None = None
) -> BuiltModel:
    """Runs a model on zeros, and says what is known of it; `own` is its preprocessing.

    Raises ModelError where it does not run.
    """
    size = own.size if own else request.img_size or SIZE
    # the code may hand out a model that it has handed out before
    with lock_model(module):
        trial = _try_model(module, _list_channels(module, request), size, request)
        channels = trial.channels
        key, outputs = request.output_key, request.outputs
        reading = measure_output(module, (channels, *size), key, outputs)
    trial = replace(trial, width=reading.width or 0)
    num_classes = _count_classes(trial, request)
    return BuiltModel(
        module=module,
        preprocessing=own or _assume_preprocessing(size, channels),
        num_classes=num_classes,
        weights="as given",
        classifiers=trial.classifiers if num_classes else (),
        in_chans=channels,
        reading=reading,
        warnings=_warn_no_logits(trial, request),
    )


def _assume_preprocessing(size: tuple[int, int], channels: int) -> Preprocessing:
    plain = Preprocessing(size=size, scale=compute_scale(size, CROP_PCT))
    return fit_view(plain, channels)


def _check_module(value: Any, request: ModelSpec) -> nn.Module:
    function = (lambda: value) if isinstance(value, nn.Module) else value
    module = function(**_collect_arguments(function, request))
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise ModelError(f"{request.name!r} gave a {kind}, and not a torch.nn.Module.")
    return check_hookable(module).cpu()


def _collect_arguments(function: Callable[..., Any], request: ModelSpec) -> dict[str, Any]:
    signature = inspect.signature(function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    arguments = dict(request.model_kwargs)
    if request.num_classes is not None and ("num_classes" in signature.parameters or takes_any):
        arguments["num_classes"] = request.num_classes
    if request.img_size is not None and "img_size" in signature.parameters:
        height, width = request.img_size
        arguments["img_size"] = height if height == width else (height, width)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
        raise ModelError(
            f"{request.name!r} cannot be called with {given}: {first_line(error)}. "
            "--model-kwargs KEY=VALUE gives it its arguments."
        ) from error
    return arguments


def _list_channels(module: nn.Module, request: ModelSpec) -> list[int]:
    """Lists the numbers of channels that the input may have, the likeliest first.

    They are those of the user's mean, of the first convolution, and of a picture.
    """
    mean = request.preprocessing.get("mean")
    of_mean = [len(mean)] if isinstance(mean, tuple | list) and len(mean) > 1 else []
    # not depthwise ones, which stand in blocks; a linear layer in front takes patches of 3 channels
    full = (m for m in module.modules() if isinstance(m, nn.Conv2d) and m.groups == 1)
    # the first that is written down need not be the first that runs
    of_first = [m.in_channels for m in islice(full, 1)]
    return list(dict.fromkeys([*of_mean, *of_first, 3]))


@dataclass(frozen=True)
class _Trial:
    """What a picture of so many channels gave: the output, and the last layer with weights.

    `width` is how many logits the output could be; 0 where it is something else.
    """

    channels: int
    output: Any
    last_name: str
    last: nn.Module | None
    width: int = 0

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The name of the layer that puts out the logits, if it is one layer's work."""
        layer = self.last if isinstance(self.last, nn.Linear | nn.Conv2d) else None
        return (self.last_name,) if layer and layer.weight.shape[0] == self.width else ()

    @property
    def is_headless(self) -> bool:
        """Whether nothing that could tell classes apart comes behind the last norm."""
        return "norm" in type(self.last).__name__.lower()


def _try_model(
    module: nn.Module, channels: Sequence[int], size: tuple[int, int], request: ModelSpec
) -> _Trial:
    """Runs the model on as many channels as it takes; raises ModelError of the first number."""
    failed, name = [], request.name
    check_takes_a_picture_alone(module, name)
    for number in channels:
        try:
            trial = _run_trial(module, number, size)
            return replace(trial, output=select_output(trial.output, request.output_key))
        except CamvizError:
            raise
        except Exception as error:  # the user's code raises what it will
            failed.append(error)
    shape = "x".join(map(str, (channels[0], *size)))
    raise ModelError(
        f"{name!r} does not run on a {shape} input (--img-size names another size, and N "
        f"numbers for --mean mean N channels). {describe_error(failed[0], name)}."
    ) from failed[0]


def _run_trial(module: nn.Module, channels: int, size: tuple[int, int]) -> _Trial:
    last: list[tuple[str, nn.Module | None]] = [("", None)]

    def note(layer_name: str, layer: nn.Module, *_: object) -> None:
        last[0] = layer_name, layer

    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    inputs = torch.zeros(1, channels, *size, dtype=like.dtype, device=like.device)
    with ExitStack() as stack:
        for layer_name, layer in module.named_modules():
            # the model itself holds class tokens and position embeddings, and always comes last
            if layer_name and next(layer.parameters(False), None) is not None:
                hook = layer.register_forward_hook(in_this_thread(partial(note, layer_name)))
                stack.callback(hook.remove)
        with torch.no_grad(), preserve_state(module):
            output = module(inputs)
    return _Trial(channels, output, *last[0])


def _count_classes(trial: _Trial, request: ModelSpec) -> int:
    asked, width = request.num_classes, trial.width
    if asked == 0 or (asked is None and trial.is_headless):
        return 0
    if asked not in (None, width):
        raise ModelError(
            f"{request.name!r} gives {width or 'no'} classes, and --num-classes or the checkpoint "
            f"has {asked}: let the function take num_classes."
        )
    return width


def say_assumed(request: ModelSpec) -> tuple[str, str]:
    """Says what of the preprocessing nobody said, and which options say it; empty where all is."""
    moments = [key for key in ("mean", "std") if key not in request.preprocessing]
    assumed = {f"--{key}": f"ImageNet's {' and '.join(moments)}" for key in moments}
    if request.img_size is None:
        assumed = {"--img-size": f"{SIZE[0]}x{SIZE[1]} pixels", **assumed}
    if request.fit is None and "crop_pct" not in request.preprocessing:
        assumed["--fit"] = "a crop of the centre (the edges are cut off)"
    *others, last = dict.fromkeys(assumed.values()) or ("",)
    what = f"{', '.join(others)}, and {last}" if others else last
    return (f"preprocessing: {what} assumed" if what else ""), ", ".join(assumed)


def _warn_no_logits(trial: _Trial, request: ModelSpec) -> tuple[str, ...]:
    if request.num_classes == 0:
        return ()
    if not trial.width:
        is_tensor = isinstance(trial.output, Tensor)
        given = list(trial.output.shape) if is_tensor else describe_output(trial.output)
        way_on = "" if is_tensor else "; --output-key says which part of it the logits are"
        return (
            f"{request.name!r} gives {given} in place of logits [b n]: it has no classes{way_on}",
        )
    if request.num_classes is None and trial.is_headless:
        return (
            f"{request.name!r} ends in a {type(trial.last).__name__}: its {trial.width} outputs "
            f"are taken for features, and with --num-classes {trial.width} for classes",
        )
    return ()
