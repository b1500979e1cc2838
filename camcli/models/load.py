"""From a name to a classifier that is ready to be explained."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from camcli.errors import DeviceError, ModelError, UnknownName
from camcli.models import embedded, fitting
from camcli.models.checkpoint import Checkpoint, read_checkpoint
from camcli.models.embedded.network import Network
from camcli.models.labels import Labels, labels_for
from camcli.models.preprocessing import changed
from camcli.models.request import Built, Request, new_head_warning, reason
from camcli.records import Fit, Preprocessing

Origin = Literal["embedded", "timm", "torchvision"]

# asked in this order for a name without a prefix; imported when asked, for seconds are at stake
LIBRARIES: Mapping[Origin, str] = {
    "timm": "camcli.models.from_timm",
    "torchvision": "camcli.models.from_torchvision",
}
TIMM_SCHEMES = ("hf-hub:", "local-dir:")


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode on its device, and all that is known about it.

    [b in_chans H W] -> logits [b num_classes]; no classes at all if it has no head.
    """

    module: nn.Module
    name: str
    origin: Origin
    preprocessing: Preprocessing
    labels: Labels | None
    weights: str
    num_classes: int
    in_chans: int = 3
    warnings: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.module.parameters(), torch.empty(0)).device


def load_model(
    name: str = embedded.NAME,
    *,
    pretrained: bool = True,
    checkpoint: str | PathLike[str] | None = None,
    strict: bool = True,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    class_map: str | PathLike[str] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    device: str | torch.device = "auto",
    fit: Fit | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Classifier:
    """Loads the embedded model, or any classifier of timm or torchvision.

    `timm/` and `torchvision/` before a name choose the library; `img_size` is in pixels, one number
    or (height, width).  Raises UnknownName, ModelError, CheckpointError, WeightsError, ConfigError
    and DeviceError.
    """
    place = resolve_device(device)
    saved = read_checkpoint(Path(checkpoint)) if checkpoint is not None else None
    if saved and saved.arch and name == embedded.NAME:
        name = saved.arch
    origin, plain_name = find_model(name)
    request = _request(
        plain_name, pretrained and saved is None, num_classes, img_size, model_kwargs
    )
    with _undisturbed():
        built = _build(origin, request)
        if saved:
            built = _with_checkpoint(origin, request, built, saved, strict)
        elif not pretrained:
            warning = f"{plain_name!r} has random weights: its maps mean nothing."
            built = replace(built, warnings=(warning,))
        if request.img_size is not None:
            _check_size(built, request)
        module = _ready(built.module, place)
    class_file = Path(class_map) if class_map is not None else None
    return Classifier(
        module=module,
        name=plain_name,
        origin=origin,
        preprocessing=changed(built.preprocessing, fit, preprocessing or {}),
        labels=labels_for(built.labels, built.num_classes, class_file),
        weights=built.weights,
        num_classes=built.num_classes,
        in_chans=built.in_chans,
        warnings=built.warnings,
    )


def find_model(name: str) -> tuple[Origin, str]:
    """Returns where a model comes from and its name there; raises UnknownName."""
    if name == embedded.NAME:
        return "embedded", name
    if name.startswith(TIMM_SCHEMES):
        return "timm", name
    prefix, _, rest = name.partition("/")
    chosen = {origin: module for origin, module in LIBRARIES.items() if origin == prefix}
    plain_name = rest if chosen else name
    known: list[str] = [] if chosen else [embedded.NAME]
    for origin, module in (chosen or LIBRARIES).items():
        library = importlib.import_module(module)
        if library.knows(plain_name):
            return origin, plain_name
        known += library.names()
    where = f"in {prefix}" if chosen else "in timm or torchvision"
    hint = f"It is not {where}. Without --model the embedded classifier is used."
    raise UnknownName("model", plain_name, known, hint)


def resolve_device(name: str | torch.device) -> torch.device:
    """Returns a device of this machine: `auto` is CUDA, else MPS, else the CPU.

    Raises DeviceError.
    """
    there = _devices()
    text = str(name).lower()
    if text == "auto":
        return torch.device(there[0])
    if text in there:
        return torch.device(text)
    kind = text.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise DeviceError(
            f"Unknown device {str(name)!r}: it is one of auto, cpu, cuda, cuda:N, mps."
        )
    if not any(device.startswith(kind) for device in there):
        gpu = {"cuda": "CUDA", "mps": "MPS"}[kind]
        raise DeviceError(f"{gpu} was asked for, and there is none here: use --device cpu.")
    raise DeviceError(f"There is no device {text!r} here, only {', '.join(there)}.")


def _devices() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*(["cuda"] if cuda else []), *cuda, *mps, "cpu"]


def _request(
    name: str,
    pretrained: bool,
    num_classes: int | None,
    img_size: int | tuple[int, int] | None,
    model_kwargs: Mapping[str, Any] | None,
) -> Request:
    kwargs = dict(model_kwargs or {})
    inside = {key: kwargs.pop(key, None) for key in ("num_classes", "img_size")}
    classes = inside["num_classes"] if num_classes is None else num_classes
    size = inside["img_size"] if img_size is None else img_size
    if classes is not None and (not isinstance(classes, int) or classes < 0):
        raise ModelError(f"A number of classes is a whole number from 0, not {classes!r}.")
    return Request(name, pretrained, classes, _size(size), kwargs)


def _size(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    pair = (given, given) if isinstance(given, int) else tuple(given)
    if len(pair) != 2 or not all(isinstance(edge, int) and edge > 0 for edge in pair):
        raise ModelError(f"An input size is one or two (height, width) pixels, not {given!r}.")
    return pair


def _build(origin: Origin, request: Request) -> Built:
    if origin == "embedded":
        return _build_embedded(request)
    library: ModuleType = importlib.import_module(LIBRARIES[origin])
    built: Built = library.build(request)
    return built


def _build_embedded(request: Request) -> Built:
    if request.model_kwargs:
        raise ModelError(f"The embedded model takes no model_kwargs: {dict(request.model_kwargs)}.")
    labels = embedded.labels()
    classes = len(labels) if request.num_classes is None else request.num_classes
    if classes < 1:
        raise ModelError("The embedded model needs at least one class.")
    module = embedded.load()[0] if request.pretrained else Network(classes)
    new_head = request.pretrained and classes != len(labels)
    if new_head:
        module.fc = nn.Linear(module.fc.in_features, classes)
    size = request.img_size or (embedded.SIZE, embedded.SIZE)
    return Built(
        module=module,
        preprocessing=embedded.preprocessing(size),
        num_classes=classes,
        weights="embedded" if request.pretrained else "random",
        classifiers=("fc",),
        labels=labels,
        warnings=(new_head_warning(classes),) if new_head else (),
    )


def _with_checkpoint(
    origin: Origin, request: Request, built: Built, saved: Checkpoint, strict: bool
) -> Built:
    fitted = fitting.fitted(saved, built.module, built.convert)
    classes = fitting.num_classes(fitted.weights, built.classifiers)
    if request.num_classes is None and classes not in (None, built.num_classes):
        built = _build(origin, replace(request, num_classes=classes))
        fitted = fitting.fitted(saved, built.module, built.convert)
    notes = fitting.load_into(built.module, fitted, model=request.name, strict=strict)
    return replace(built, weights=f"checkpoint {saved}", warnings=(*built.warnings, *notes))


def _check_size(built: Built, request: Request) -> None:
    height, width = built.preprocessing.size
    try:
        with torch.no_grad():
            built.module.eval()(torch.zeros(1, built.in_chans, height, width))
    except Exception as error:  # every architecture refuses in its own way
        raise ModelError(
            f"{request.name!r} does not take pictures of {height}x{width}: {reason(error)}."
        ) from error


def _ready(module: nn.Module, place: torch.device) -> nn.Module:
    for part in module.modules():
        # not the whole module: other 4-D parameters may be viewed in their own order
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    try:
        return module.eval().to(place)
    except RuntimeError as error:
        raise DeviceError(f"The model cannot be put on {place}: {reason(error)}.") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Builds the same random weights each time, and leaves the caller's random state as it was.

    Weights made in a caller's inference mode could never be differentiated.
    """
    with torch.inference_mode(False), torch.random.fork_rng(devices=()):
        # not torch.manual_seed, which would seed the GPUs too
        torch.default_generator.manual_seed(0)
        yield
