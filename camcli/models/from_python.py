"""Models of the user's own, built by a function, a class or a module in their code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from camcli.errors import ModelError, reason
from camcli.models.preprocessing import per_channel, scale_for
from camcli.models.request import Built, Request
from camcli.models.state import left_as_found, watchable
from camcli.models.user_code import find, is_code, running, where
from camcli.records import Preprocessing

# what nearly every ImageNet model was evaluated with
SIZE, CROP_PCT = (224, 224), 0.875


def knows(name: str) -> bool:
    """Tells whether a name means the user's own code."""
    return is_code(name)


def names() -> list[str]:
    """Returns no name: the user's code can be anywhere."""
    return []


def build(request: Request) -> Built:
    """Runs the user's code and the model that it builds once, on zeros.

    Raises UnknownName, or ModelError with the line on which the code failed.
    """
    with running(request.name):
        module = _module(find(request.name), request)
        channels, size = _channels(module, request), request.img_size or SIZE
        trial = _tried(module, (channels, *size), request.name)
    num_classes = _num_classes(trial, request)
    return Built(
        module=module,
        preprocessing=Preprocessing(
            size=size,
            scale=scale_for(size, CROP_PCT),
            mean=per_channel(Preprocessing.mean, channels),
            std=per_channel(Preprocessing.std, channels),
        ),
        num_classes=num_classes,
        weights=f"as built by {request.name}",
        classifiers=trial.classifiers if num_classes else (),
        in_chans=channels,
        warnings=(*_assumed_preprocessing(request), *_no_logits(trial, request)),
    )


def _module(found: Any, request: Request) -> nn.Module:
    function = (lambda: found) if isinstance(found, nn.Module) else found
    module = function(**_arguments(function, request))
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise ModelError(f"{request.name!r} gave a {kind}, and not a torch.nn.Module.")
    return watchable(module).cpu()


def _arguments(function: Callable[..., Any], request: Request) -> dict[str, Any]:
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
            f"{request.name!r} cannot be called with {given}: {reason(error)}. "
            "--model-kwargs KEY=VALUE gives it its arguments."
        ) from error
    return arguments


def _channels(module: nn.Module, request: Request) -> int:
    """Reads the input's channels off the user's mean, or else off the first convolution."""
    mean = request.preprocessing.get("mean")
    if isinstance(mean, tuple | list) and len(mean) > 1:
        return len(mean)
    # not depthwise ones, which stand in blocks; a linear layer in front takes patches of 3 channels
    full = (m for m in module.modules() if isinstance(m, nn.Conv2d) and m.groups == 1)
    first = next(full, None)
    return first.in_channels if first else 3


@dataclass(frozen=True)
class _Trial:
    """What one picture gave: the output, and the last layer with weights of its own."""

    output: Any
    last_name: str
    last: nn.Module | None

    @property
    def width(self) -> int:
        """How many logits the output could be; 0 where it is something else."""
        shape = tuple(self.output.shape) if isinstance(self.output, Tensor) else ()
        return prod(shape) if shape[:1] == (1,) and prod(shape) == prod(shape[:2]) else 0

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The name of the layer that puts out the logits, if it is one layer's work."""
        layer = self.last if isinstance(self.last, nn.Linear | nn.Conv2d) else None
        return (self.last_name,) if layer and layer.weight.shape[0] == self.width else ()

    @property
    def ends_in_a_norm(self) -> bool:
        """Whether nothing that could tell classes apart comes behind the last norm."""
        return "norm" in type(self.last).__name__.lower()


def _tried(module: nn.Module, shape: tuple[int, int, int], name: str) -> _Trial:
    last: list[tuple[str, nn.Module | None]] = [("", None)]

    def note(layer_name: str, layer: nn.Module, *_: object) -> None:
        last[0] = layer_name, layer

    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    with ExitStack() as stack:
        for layer_name, layer in module.named_modules():
            # the model itself holds class tokens and position embeddings, and always comes last
            if layer_name and next(layer.parameters(False), None) is not None:
                hook = layer.register_forward_hook(partial(note, layer_name))
                stack.callback(hook.remove)
        try:
            with torch.no_grad(), left_as_found(module):
                output = module(torch.zeros(1, *shape, dtype=like.dtype))
        except Exception as error:
            size = "x".join(map(str, shape))
            raise ModelError(
                f"{name!r} does not run on a {size} input (--img-size names another size, and N "
                f"numbers for --mean mean N channels). {where(error, name)}."
            ) from error
    return _Trial(output, *last[0])


def _num_classes(trial: _Trial, request: Request) -> int:
    asked, width = request.num_classes, trial.width
    if asked == 0 or (asked is None and trial.ends_in_a_norm):
        return 0
    if asked not in (None, width):
        raise ModelError(
            f"{request.name!r} gives {width or 'no'} classes, and --num-classes or the checkpoint "
            f"has {asked}: let the function take num_classes."
        )
    return width


def _assumed_preprocessing(request: Request) -> tuple[str, ...]:
    missing = [key for key in ("mean", "std") if key not in request.preprocessing]
    options = " and ".join(f"--{key}" for key in missing)
    told = f"preprocessing: ImageNet's {' and '.join(missing)} assumed; {options} would change it"
    return (told,) if missing else ()


def _no_logits(trial: _Trial, request: Request) -> tuple[str, ...]:
    if request.num_classes == 0:
        return ()
    if not trial.width:
        is_tensor = isinstance(trial.output, Tensor)
        given = list(trial.output.shape) if is_tensor else f"a {type(trial.output).__name__}"
        return (f"{request.name!r} gives {given} in place of logits [b n]: it has no classes",)
    if request.num_classes is None and trial.ends_in_a_norm:
        return (
            f"{request.name!r} ends in a {type(trial.last).__name__}: its {trial.width} outputs "
            f"are taken for features, and with --num-classes {trial.width} for classes",
        )
    return ()
