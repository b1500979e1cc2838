"""From a name to a classifier that is ready to be explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from camcli.errors import (
    CamvizError,
    DeviceError,
    ModelError,
    UnknownName,
    UsageError,
    first_line,
)
from camcli.keywords import check_keywords
from camcli.models import embedded
from camcli.models.acceleration import (
    convert_weights_format,
    convert_weights_format_if_safe,
    trust_channels_last,
)
from camcli.models.build import build_with_checkpoint, build_with_own_weights, list_origins
from camcli.models.checkpoints import (
    Checkpoint,
    TrainingArgs,
    apply_training_args,
    is_transformers_folder,
    read_checkpoint,
)
from camcli.models.hugging_face.repository import is_model_folder
from camcli.models.labels import Labels, are_names, choose_labels, read_names
from camcli.models.memory_bound import limit_memory
from camcli.models.model_lookup import (
    FOLDER,
    OPEN_CLIP,
    TRANSFORMERS,
    Origin,
    find_model,
)
from camcli.models.model_spec import (
    BuiltModel,
    ModelSpec,
    make_spec,
    parse_size,
    warn_of_channels,
)
from camcli.models.outputs.interpretation import (
    OutputReading,
    check_outputs_meaning,
    declare_reading,
    measure_output,
    read_as_logit,
)
from camcli.models.outputs.logits import OutputKey
from camcli.models.own_code import from_module
from camcli.models.own_code.user_code import is_code
from camcli.models.preprocessing import PreprocessingLike, change_preprocessing, fit_view
from camcli.models.state import keep_random_state, lock_loading, lock_model
from camcli.records import Fit, Outputs, Preprocessing
from camcli.utils.paths import expand_home, is_folder

if TYPE_CHECKING:
    from camcli.models.preprocessing.measured_view import MeasuredView

# what is said where a model asks for more memory than there is
LESS_OF_A_PICTURE = "Take a smaller --img-size; it may stand in a preset or in the checkpoint."
# numbers in an input that are tried before the first picture
LARGE_INPUT = 2**24


@dataclass(frozen=True, repr=False)
class Classifier:
    """A model in evaluation mode on its device, and all that is known about it.

    `load_model` makes it, and `explain` takes it.

    Attributes:
        module: The model: [b in_chans H W] -> logits [b num_classes], or something that holds them
            under `output_key`.
        name: Its name in the library, without the library's own.
        origin: embedded, timm, torchvision, transformers, open_clip or python (own code).
        preprocessing: How a picture becomes its input.
        labels: The classes' names, by index; None where they are not known.
        weights: Where its weights are from, in words.
        num_classes: Numbers that it puts out; 0 where it has no head.
        in_chans: Channels of its input.
        warnings: What is to be known before its maps are believed, in words.
        reading: How its output is read.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> classifier.device, classifier.num_categories, classifier.origin
        (device(type='cpu'), 1000, 'embedded')
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
    reading: OutputReading = field(default_factory=OutputReading)

    def __repr__(self) -> str:
        """Says on a line what it is."""
        height, width = self.preprocessing.size
        outputs = "values" if self.reading.is_value else "classes"
        what = f"{self.name}, {self.num_categories or 'no'} {outputs}"
        return f"<Classifier {what}, {self.in_chans}x{height}x{width}, on {self.device}>"

    @property
    def output_key(self) -> OutputKey | None:
        """Where the outputs that count are in what the model returns."""
        return self.reading.key

    @property
    def num_categories(self) -> int:
        """How many classes can be explained: a single logit is a no (0) and a yes (1)."""
        return 2 if self.num_classes == 1 and not self.reading.is_value else self.num_classes

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.module.parameters(), torch.empty(0)).device


@check_keywords()
def load_model(
    name: str | nn.Module = embedded.NAME,
    *,
    pretrained: bool = True,
    checkpoint: str | PathLike[str] | None = None,
    strict: bool = True,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    class_map: str | PathLike[str] | None = None,
    labels: Iterable[str] | Mapping[int, str] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    device: str | torch.device = "auto",
    fit: Fit | None = None,
    preprocessing: PreprocessingLike | None = None,
    output_key: OutputKey | None = None,
    outputs: Outputs | None = None,
) -> Classifier:
    """Loads the embedded model, a classifier of timm, torchvision or transformers, or a user's own.

    A module that you have is taken as it is: it stays in its mode and, unless a device is named, on
    its device. The random state is left as it was. `camviz help weights` says how a checkpoint's
    names are matched.

    Args:
        name: embedded, any timm or torchvision classifier (timm/NAME, torchvision/NAME,
            hf-hub:ORG/NAME, local-dir:PATH), one of transformers (hf:ORG/NAME, a folder), or your
            own (FILE.py:FUNCTION); default embedded. Code is also `package.module:FUNCTION`, an
            architecture of transformers with random weights `transformers/NAME`. Or a module.
        pretrained: The model's published weights, or random ones; default pretrained.
        checkpoint: Your own weights: .pth, .pt or .safetensors. A folder that transformers saved,
            too.
        strict: Refuse a checkpoint with missing or unexpected keys; default strict.
        num_classes: Classes of the model's head. Left out, the model's own number.
        img_size: Input size in pixels; default the model's. One number, or (height, width).
        class_map: Class names: a name a line, index,name, or JSON.
        labels: The classes' names, in their order, or some of them by index.
        model_kwargs: Arguments of the model's constructor.
        device: auto, cpu, cuda, cuda:N or mps; default auto. Auto is CUDA, else MPS, else the CPU.
        fit: What the network sees of the picture: crop, squash or pad; default the model's.
        preprocessing: What overrules the model's own preprocessing. A dictionary with any of mean,
            std, interpolation, fit, crop_pct; or all of it: a transform of torchvision or timm or
            another function of a PIL picture, an image processor of transformers, or a
            `camcli.records.Preprocessing`.
        output_key: Where your own model's logits are in the tuple or dictionary that it returns.
            For models of your own alone.
        outputs: What the outputs mean: logits, probabilities (of one class), independent (several
            classes at once) or value (a real number); default measured.

    Returns:
        A Classifier: the model in evaluation mode on its device, and all that is known about it.

    Raises:
        UnknownName: A model that neither library has; the message has the closest.
        ModelError: A model that cannot be built with these arguments.
        CheckpointError: A file that is no checkpoint, or weights that do not fit.
        WeightsError: Published weights that cannot be fetched.
        ConfigError: A class map, or preprocessing, that cannot be used.
        UsageError: Labels that do not fit, or options that do not go together.
        DeviceError: A device that this machine does not have.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> classifier.num_classes, classifier.labels[281], classifier.preprocessing.size
        (1000, 'tabby, tabby cat', (224, 224))
    """
    check_outputs_meaning(outputs)
    if labels is not None and class_map is not None:
        raise UsageError("labels and class_map both name the classes: give one of them.")
    view = _read_view(preprocessing, img_size)
    changes = dict(preprocessing) if isinstance(preprocessing, Mapping) else {}
    fit = changes.pop("fit", None) if fit is None else fit
    size = img_size if view is None else view.preprocessing.size
    request = replace(
        make_spec("", pretrained, num_classes, size, model_kwargs),
        preprocessing=changes,
        output_key=output_key,
        outputs=outputs,
        fit=fit,
    )
    if isinstance(name, nn.Module):
        if not pretrained or checkpoint is not None or not strict or model_kwargs:
            raise UsageError(
                "A module is taken as it is, with its own weights: pretrained, checkpoint, strict "
                "and model_kwargs are for a model that is built by its name."
            )
        own = view.preprocessing if view else None
        loaded = _take_module(name, request, own, device)
    else:
        loaded = _load_named(name, request, checkpoint, strict, resolve_device(device))
    built = loaded.built
    class_file = Path(class_map) if class_map is not None else None
    stored = loaded.class_names if labels is None else {}
    is_named = class_file is not None or labels is not None or are_names(stored, built.num_classes)
    reading = _find_reading(built, outputs, is_named=is_named)
    names, notes = choose_labels(
        built.labels, built.num_classes, class_file, stored=stored, is_value=reading.is_value
    )
    if labels is not None:
        names = read_names(labels, built.num_classes, is_value=reading.is_value)
    plain = apply_training_args(built.preprocessing, loaded.settings)
    if view is not None:
        plain = fit_view(view.preprocessing, built.in_chans)
        notes = (*notes, *view.warnings)
    return Classifier(
        module=built.module,
        name=loaded.name,
        origin=loaded.origin,
        preprocessing=change_preprocessing(plain, fit, changes),
        labels=names,
        weights=built.weights,
        num_classes=built.num_classes,
        in_chans=built.in_chans,
        warnings=(*built.warnings, *notes, *warn_of_channels(built.in_chans)),
        reading=reading,
    )


def _read_view(
    preprocessing: PreprocessingLike | None, img_size: int | tuple[int, int] | None
) -> MeasuredView | None:
    """Returns the view that a transform makes, None where the model's own is changed at most."""
    if preprocessing is None or isinstance(preprocessing, Mapping):
        return None
    # it needs torchvision, which takes a while
    from camcli.models.preprocessing.transforms import read_preprocessing

    return read_preprocessing(preprocessing, parse_size(img_size))


@dataclass(frozen=True)
class _LoadedModel:
    """A model on its device, its name, and what its checkpoint says of pictures and classes."""

    name: str
    origin: Origin
    built: BuiltModel
    settings: TrainingArgs = field(default_factory=TrainingArgs)
    class_names: Mapping[str, Any] = field(default_factory=dict)


def _take_module(
    module: nn.Module, request: ModelSpec, view: Preprocessing | None, device: str | torch.device
) -> _LoadedModel:
    """Takes a module as it is; it is moved where a device is named."""
    name = type(module).__name__
    if str(device) != "auto":
        with lock_model(module):
            module.to(resolve_device(device))
    with lock_loading(), _fix_random_state():
        built = from_module.build(module, replace(request, name=name), view)
    return _LoadedModel(name, "python", built)


def _load_named(
    name: str,
    request: ModelSpec,
    checkpoint: str | PathLike[str] | None,
    strict: bool,
    place: torch.device,
) -> _LoadedModel:
    """Builds a model by its name, and fills in its weights."""
    if not isinstance(name, str):
        raise UsageError(f"A model is a name or a torch.nn.Module, not a {type(name).__name__}.")
    if checkpoint is None and _is_checkpoint_folder(name):
        checkpoint = expand_home(name.removeprefix(FOLDER))
        name = embedded.NAME
    saved = read_checkpoint(Path(checkpoint)) if checkpoint is not None else None
    name = _choose_name(name, saved)
    origin, plain_name = find_model(name)
    if request.output_key is not None and origin != "python":
        raise ModelError(
            f"{plain_name!r} returns logits and nothing else: leave --output-key out, which is for "
            "models of your own."
        )
    # training scripts note arguments of the libraries' constructors, not of the user's function
    noted = saved if origin != "python" else None
    settings = noted.settings_for(plain_name) if noted else TrainingArgs()
    kwargs = {**settings.model_kwargs, **request.model_kwargs}
    pretrained = request.pretrained and saved is None
    fresh = make_spec(plain_name, pretrained, request.num_classes, request.img_size, kwargs)
    request = replace(
        request,
        name=plain_name,
        pretrained=pretrained,
        num_classes=fresh.num_classes,
        img_size=fresh.img_size,
        model_kwargs=fresh.model_kwargs,
    )
    with lock_loading(), _fix_random_state():
        if saved:
            origin, built = build_with_checkpoint(
                list_origins(origin, name, request), request, saved, strict
            )
        else:
            built = build_with_own_weights(origin, request)
        # the user's own code has run at its size
        large = built.in_chans * prod(built.preprocessing.size) > LARGE_INPUT
        if origin != "python" and (request.img_size is not None or large):
            _check_size(built, request)
        built = replace(built, module=_prepare_module(origin, built, place))
    return _LoadedModel(plain_name, origin, built, settings, saved.class_names if saved else {})


def _find_reading(built: BuiltModel, outputs: Outputs | None, *, is_named: bool) -> OutputReading:
    """Returns how the output is read: measured, or as the libraries' classifiers' is."""
    if built.reading is None:
        height, width = built.preprocessing.size
        shape = (built.in_chans, height, width)
        if outputs == "probabilities":
            return measure_output(built.module, shape, None, outputs)
        return declare_reading(outputs) if outputs else OutputReading()
    if built.reading.is_value and not built.reading.is_declared and is_named:
        # who names a no and a yes has classes
        return read_as_logit(built.reading)
    return built.reading


def _is_checkpoint_folder(name: str) -> bool:
    """Tells whether a name is a folder of weights, timm's network that transformers saved too."""
    if name.startswith(FOLDER):
        folder = expand_home(name.removeprefix(FOLDER))
        return is_transformers_folder(folder) and not is_model_folder(name)
    try:
        find_model(name)
    except UnknownName:
        return is_folder(name)
    return False


def _choose_name(name: str, saved: Checkpoint | None) -> str:
    """Returns the user's name of the model, or the checkpoint's where the user gave none."""
    # a checkpoint is data: it may name an architecture, but no code to run
    if name != embedded.NAME or not saved or not saved.arch or is_code(saved.arch):
        return name
    try:
        find_model(saved.arch)
    except UnknownName as error:
        hint = f"Checkpoint {str(saved.path)!r} says so: name another with --model."
        raise UnknownName("model", saved.arch, error.closest, hint) from error
    return saved.arch


def resolve_device(name: str | torch.device) -> torch.device:
    """Returns a device of this machine: `auto` is CUDA, else MPS, else the CPU.

    Raises DeviceError.
    """
    devices = _list_devices()
    text = str(name).lower()
    if text == "auto":
        return torch.device(devices[0])
    if text in devices:
        return torch.device(text)
    kind = text.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise DeviceError(
            f"Unknown device {str(name)!r}: it is one of auto, cpu, cuda, cuda:N, mps."
        )
    if not any(device.startswith(kind) for device in devices):
        gpu = {"cuda": "CUDA", "mps": "MPS"}[kind]
        raise DeviceError(f"{gpu} was asked for, and there is none here: use --device cpu.")
    raise DeviceError(f"There is no device {text!r} here, only {', '.join(devices)}.")


def _list_devices() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*(["cuda"] if cuda else []), *cuda, *mps, "cpu"]


def _check_size(built: BuiltModel, request: ModelSpec) -> None:
    height, width = built.preprocessing.size
    what = f"{request.name!r} with pictures of {height}x{width} and {built.in_chans} channels"
    try:
        with torch.no_grad(), limit_memory(what, LESS_OF_A_PICTURE):
            built.module.eval()(torch.zeros(1, built.in_chans, height, width))
    except CamvizError:
        raise
    except Exception as error:  # every architecture refuses in its own way
        raise ModelError(
            f"{request.name!r} does not take pictures of {height}x{width}: {first_line(error)}."
        ) from error


def _prepare_module(origin: Origin, built: BuiltModel, place: torch.device) -> nn.Module:
    with lock_model(built.module):
        return _move_to_device(origin, built, place)


def _move_to_device(origin: Origin, built: BuiltModel, place: torch.device) -> nn.Module:
    try:
        module = built.module.eval().to(place)
    except RuntimeError as error:
        raise DeviceError(f"The model cannot be put on {place}: {first_line(error)}.") from error
    if origin in ("python", TRANSFORMERS, OPEN_CLIP):
        convert_weights_format_if_safe(module, (built.in_chans, *built.preprocessing.size))
    else:
        # the libraries' own were all seen to take it (`python -m tests.tools.coverage --all`)
        convert_weights_format(module)
        trust_channels_last(module)
    return module


@contextmanager
def _fix_random_state() -> Iterator[None]:
    """Builds the same random weights each time, and leaves the caller's random state as it was.

    Weights made in a caller's inference mode could never be differentiated.
    """
    with torch.inference_mode(False), keep_random_state():
        # not torch.manual_seed, which would seed the GPUs too
        torch.default_generator.manual_seed(0)
        yield
