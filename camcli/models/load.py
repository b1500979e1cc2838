"""From a name to a classifier that is ready to be explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camcli.errors import CamvizError, DeviceError, ModelError, UnknownName, first_line
from camcli.models import embedded
from camcli.models.acceleration import (
    convert_weights_format,
    convert_weights_format_if_safe,
    trust_channels_last,
)
from camcli.models.checkpoints import (
    Checkpoint,
    FittedWeights,
    TrainingArgs,
    apply_training_args,
    build_for_checkpoint,
    carry_weights_over,
    find_counterpart,
    is_transformers_folder,
    load_into,
    other_library_error,
    place_weights_by_order,
    read_checkpoint,
)
from camcli.models.hugging_face.repository import is_model_folder
from camcli.models.labels import Labels, choose_labels
from camcli.models.memory_bound import check_numbers, limit_memory
from camcli.models.model_lookup import (
    FOLDER,
    OPEN_CLIP,
    TIMM_SCHEMES,
    TRANSFORMERS,
    Origin,
    find_model,
    import_builder,
)
from camcli.models.model_spec import (
    BuiltModel,
    ModelSpec,
    describe,
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
from camcli.models.preprocessing import change_preprocessing
from camcli.models.state import keep_random_state, lock_loading, lock_model
from camcli.models.user_code import is_code
from camcli.records import Fit, Outputs, Preprocessing
from camcli.utils.paths import expand_home, is_folder

# what is said where a model asks for more memory than there is
LESS_OF_A_MODEL = (
    "Take fewer classes (--num-classes) or channels, a smaller --img-size or other --model-kwargs; "
    "they may stand in a preset, in the checkpoint or in the folder's config.json."
)
LESS_OF_A_PICTURE = "Take a smaller --img-size; it may stand in a preset or in the checkpoint."
MANY_CLASSES = 2**16
# numbers in an input that are tried before the first picture
LARGE_INPUT = 2**24
# longer edges than any model was built for would only fill the memory
LONGEST_EDGE = 2**15


@dataclass(frozen=True)
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
    output_key: OutputKey | None = None,
    outputs: Outputs | None = None,
) -> Classifier:
    """Loads the embedded model, a classifier of timm, torchvision or transformers, or a user's own.

    The random state is left as it was. `camviz help weights` says how a checkpoint's names are
    matched.

    Args:
        name: embedded, any timm or torchvision classifier (timm/NAME, torchvision/NAME,
            hf-hub:ORG/NAME, local-dir:PATH), one of transformers (hf:ORG/NAME, a folder), or your
            own (FILE.py:FUNCTION); default embedded. Code is also `package.module:FUNCTION`, an
            architecture of transformers with random weights `transformers/NAME`.
        pretrained: The model's published weights, or random ones; default pretrained.
        checkpoint: Your own weights: .pth, .pt or .safetensors. A folder that transformers saved,
            too.
        strict: Refuse a checkpoint with missing or unexpected keys; default strict.
        num_classes: Classes of the model's head. Left out, the model's own number.
        img_size: Input size in pixels; default the model's. One number, or (height, width).
        class_map: Class names: a name a line, index,name, or JSON.
        model_kwargs: Arguments of the model's constructor.
        device: auto, cpu, cuda, cuda:N or mps; default auto. Auto is CUDA, else MPS, else the CPU.
        fit: What the network sees of the picture: crop, squash or pad; default the model's.
        preprocessing: What overrules the model's own preprocessing. A dictionary with any of mean,
            std, interpolation, fit, crop_pct.
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
        DeviceError: A device that this machine does not have.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> classifier.num_classes, classifier.labels[281], classifier.preprocessing.size
        (1000, 'tabby, tabby cat', (224, 224))
    """
    check_outputs_meaning(outputs)
    place = resolve_device(device)
    if checkpoint is None and _is_checkpoint_folder(name):
        checkpoint = expand_home(name.removeprefix(FOLDER))
        name = embedded.NAME
    saved = read_checkpoint(Path(checkpoint)) if checkpoint is not None else None
    name = _choose_name(name, saved)
    origin, plain_name = find_model(name)
    if output_key is not None and origin != "python":
        raise ModelError(
            f"{plain_name!r} returns logits and nothing else: leave --output-key out, which is for "
            "models of your own."
        )
    # training scripts note arguments of the libraries' constructors, not of the user's function
    noted = saved if origin != "python" else None
    settings = noted.settings_for(plain_name) if noted else TrainingArgs()
    kwargs = {**settings.model_kwargs, **(model_kwargs or {})}
    request = replace(
        _make_spec(plain_name, pretrained and saved is None, num_classes, img_size, kwargs),
        preprocessing=preprocessing or {},
        output_key=output_key,
        outputs=outputs,
        fit=fit,
    )
    with lock_loading(), _fix_random_state():
        if saved:
            origin, built = _build_with_checkpoint(
                _list_origins(origin, name, request), request, saved, strict
            )
        else:
            built = _apply_class_choice(origin, request)
        # the user's own code has run at its size
        large = built.in_chans * prod(built.preprocessing.size) > LARGE_INPUT
        if origin != "python" and (request.img_size is not None or large):
            _check_size(built, request)
        module = _prepare_module(origin, built, place)
    class_file = Path(class_map) if class_map is not None else None
    reading = _find_reading(built, outputs, class_file)
    labels, notes = choose_labels(
        built.labels, built.num_classes, class_file, is_value=reading.is_value
    )
    return Classifier(
        module=module,
        name=plain_name,
        origin=origin,
        preprocessing=change_preprocessing(
            apply_training_args(built.preprocessing, settings), fit, preprocessing or {}
        ),
        labels=labels,
        weights=built.weights,
        num_classes=built.num_classes,
        in_chans=built.in_chans,
        warnings=(*built.warnings, *notes, *warn_of_channels(built.in_chans)),
        reading=reading,
    )


def _find_reading(
    built: BuiltModel, outputs: Outputs | None, class_file: Path | None
) -> OutputReading:
    """Returns how the output is read: measured, or as the libraries' classifiers' is."""
    if built.reading is None:
        height, width = built.preprocessing.size
        shape = (built.in_chans, height, width)
        if outputs == "probabilities":
            return measure_output(built.module, shape, None, outputs)
        return declare_reading(outputs) if outputs else OutputReading()
    if built.reading.is_value and not built.reading.is_declared and class_file:
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


def _make_spec(
    name: str,
    pretrained: bool,
    num_classes: int | None,
    img_size: int | tuple[int, int] | None,
    model_kwargs: Mapping[str, Any] | None,
) -> ModelSpec:
    kwargs = dict(model_kwargs or {})
    inside = {key: kwargs.pop(key, None) for key in ("num_classes", "img_size")}
    classes = inside["num_classes"] if num_classes is None else num_classes
    size = inside["img_size"] if img_size is None else img_size
    if classes is not None and (not isinstance(classes, int) or classes < 0):
        raise ModelError(f"A number of classes is a whole number from 0, not {classes!r}.")
    return ModelSpec(name, pretrained, classes, _parse_size(size), kwargs)


def _parse_size(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    pair = (given, given) if isinstance(given, int) else tuple(given)
    if len(pair) != 2 or not all(isinstance(edge, int) and edge > 0 for edge in pair):
        raise ModelError(f"An input size is one or two (height, width) pixels, not {given!r}.")
    if max(pair) > LONGEST_EDGE:
        raise ModelError(
            f"An input has edges of up to {LONGEST_EDGE:,} pixels, not {pair[0]:,}x{pair[1]:,}: "
            "give --img-size."
        )
    return pair


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


def _apply_class_choice(origin: Origin, request: ModelSpec) -> BuiltModel:
    """Builds a model with its library's weights, or with random ones and a warning of them."""
    built = _build(origin, request)
    if origin == "python" or request.pretrained:
        return built
    warning = f"{request.name!r} has random weights: its maps mean nothing."
    return replace(built, warnings=(warning,))


def _build_with_checkpoint(
    origins: Iterable[Origin], request: ModelSpec, saved: Checkpoint, strict: bool
) -> tuple[Origin, BuiltModel]:
    """Builds the model of the first library that the weights fit, or of the one they fit best."""
    attempts: list[tuple[Origin, BuiltModel, FittedWeights]] = []
    for origin in origins:
        attempts.append(
            (
                origin,
                *build_for_checkpoint(saved, partial(_build, origin), request),
            )
        )
        if not attempts[-1][-1].faults:
            break
    origin, built, fitted = min(attempts, key=lambda attempt: len(attempt[-1].faults))
    build = partial(_build, origin)
    if fitted.faults:
        built, fitted = (
            _build_from_counterpart(origin, request, saved, strict)
            or place_weights_by_order(fitted, built, build, request)
            or (built, fitted)
        )
    # arguments are tried on timm's constructors, never on the user's code
    rebuild = build if origin == "timm" else None
    notes = load_into(built, fitted, request, strict=strict, build=rebuild)
    return origin, replace(built, weights=f"checkpoint {saved}", warnings=(*built.warnings, *notes))


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
        build = partial(_build, library)  # type: ignore[arg-type]
        source, theirs = build_for_checkpoint(saved, build, other)
    except (ModelError, UnknownName):  # it cannot be built at this size
        return None
    if not theirs.faults:
        own = {"in_chans": source.in_chans} if source.in_chans != 3 else {}
        kwargs = {**request.model_kwargs, **own}
        adapted = replace(request, num_classes=source.num_classes, model_kwargs=kwargs)
        built = _build(origin, adapted)
        fitted_weights = carry_weights_over(theirs, source, built)
        if fitted_weights:
            return built, fitted_weights
    refusal = other_library_error(theirs, request, f"{library}/{name}")
    if refusal and strict:
        raise refusal
    return None


def _list_origins(origin: Origin, name: str, request: ModelSpec) -> Iterator[Origin]:
    """Gives where a checkpoint's model may come from: one name can stand for two networks."""
    yield origin
    # with a library before the name, a tag behind it or arguments, timm's is meant
    plain = name == request.name and "." not in name and request.model_kwargs.keys() <= {"in_chans"}
    torchvision = import_builder("torchvision")
    if origin == "timm" and plain and torchvision.knows(name):
        yield "torchvision"


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
