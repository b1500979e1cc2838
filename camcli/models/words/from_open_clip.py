"""Models out of open_clip: pictures and texts in one space of embeddings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.errors import ModelError, UnknownName, UsageError, WeightsError, first_line
from camcli.models.checkpoints import check_published
from camcli.models.model_spec import BuiltModel, ModelSpec, build_error
from camcli.models.outputs.interpretation import OutputReading
from camcli.models.weight_download import fetch_hub_file, fetch_url_file
from camcli.models.words.prompts import TextEmbeddings
from camcli.records import Fit, Preprocessing
from camcli.utils.warning_filters import ignore_warnings

HUB, FOLDER = "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
FITS: Mapping[str, Fit] = {"shortest": "crop", "squash": "squash", "longest": "pad"}
# what the models return for pictures, under its name
EMBEDDING = "image_features"


def knows(name: str) -> bool:
    """Tells whether open_clip has an architecture of that name, whatever the weights behind it."""
    return name.startswith((HUB, FOLDER)) or name.partition("/")[0] in list_names()


@cache
def list_names() -> tuple[str, ...]:
    """Lists all architectures of open_clip."""
    return tuple(_import_library().list_models())


def build(request: ModelSpec) -> BuiltModel:
    """Builds a model of open_clip, whole; raises ModelError, WeightsError or UnknownName."""
    if request.num_classes is not None:
        raise ModelError(
            f"{request.name!r} has no classifier: leave --num-classes out, and name what to look "
            'for with --text "a cat".'
        )
    name, file, options, origin = _locate(request)
    size = {"force_image_size": request.img_size} if request.img_size else {}
    try:
        if file:
            check_published(file)
        with _silence_log(), ignore_warnings():
            module = _import_library().create_model(
                name,
                pretrained=str(file) if file and not name.startswith(FOLDER) else None,
                load_weights=request.pretrained,
                # the towers' own weights would be fetched from elsewhere
                pretrained_text=False,
                pretrained_image=False,
                output_dict=True,
                **options,
                **size,
                **request.model_kwargs,
            )
    except Exception as error:  # constructors raise their own kinds
        raise build_error("open_clip", request, error, file) from error
    return BuiltModel(
        module=module,
        preprocessing=_read_preprocessing(module),
        num_classes=0,
        weights=origin,
        classifiers=(),
        reading=OutputReading(EMBEDDING),
    )


def encode_texts(module: nn.Module, name: str, texts: Sequence[str]) -> TextEmbeddings:
    """Encodes texts as the model compares them with pictures; raises UsageError or WeightsError."""
    model: Any = module
    tokens = _tokenize(model, name, texts)
    with torch.no_grad():
        vectors = F.normalize(
            model.encode_text(tokens.to(next(module.parameters()).device)).float(), dim=1
        )
        scale = float(model.logit_scale.exp())
    bias = getattr(model, "logit_bias", None)
    return TextEmbeddings(
        vectors.cpu(),
        scale,
        0.0 if bias is None else float(bias.detach()),
        "softmax" if bias is None else "sigmoid",
    )


def _import_library() -> ModuleType:
    try:
        with ignore_warnings():
            import open_clip
    except ImportError as error:
        raise ModelError(
            "Models of open_clip need its package: pip install 'camviz[clip]'."
        ) from error
    library: ModuleType = open_clip
    return library


def _locate(request: ModelSpec) -> tuple[str, Path | None, dict[str, Any], str]:
    """Returns open_clip's name, the file of weights, options, and where the weights are from."""
    name = request.name
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        config = fetch_hub_file(name, repository, (CONFIG,))
        if request.pretrained:
            file = fetch_hub_file(name, repository, WEIGHTS_FILES)
            return f"{FOLDER}{file.parent}", file, {}, repository
        return f"{FOLDER}{config.parent}", None, {}, "random"
    if name.startswith(FOLDER):
        return _locate_in_folder(request)
    arch, _, tag = name.partition("/")
    if not request.pretrained:
        return arch, None, {}, "random"
    return arch, *_fetch_weights(request, arch, tag)


def _locate_in_folder(request: ModelSpec) -> tuple[str, Path | None, dict[str, Any], str]:
    folder = Path(request.name.removeprefix(FOLDER)).expanduser()
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{str(folder)!r} is no model of open_clip: it has no {CONFIG}. A file of weights goes "
            "to --checkpoint, beside --model open_clip:NAME."
        )
    name = f"{FOLDER}{folder}"
    if not request.pretrained:
        return name, None, {}, "random"
    files = [folder / file for file in WEIGHTS_FILES if (folder / file).is_file()]
    if not files:
        raise WeightsError(
            f"{str(folder)!r} has none of {', '.join(WEIGHTS_FILES)}: give --checkpoint FILE."
        )
    return name, files[0], {}, str(folder)


def _fetch_weights(request: ModelSpec, arch: str, tag: str) -> tuple[Path, dict[str, Any], str]:
    """Fetches the weights of a tag, and returns what they have to be used with."""
    library = _import_library()
    tags = library.list_pretrained_tags_by_model(arch)
    if not tag:
        raise WeightsError(
            f"open_clip has several weights for {arch!r}: name one, as in --model open_clip:{arch}/"
            f"{tags[0]} ({', '.join(tags)})."
            if tags
            else f"open_clip has no weights for {arch!r}: give your own with --checkpoint FILE."
        )
    config = library.pretrained.get_pretrained_cfg(arch, tag)
    if not config:
        raise UnknownName("pretrained tag", tag, tags, f"{arch} has {', '.join(tags) or 'none'}.")
    if config.get("hf_hub"):
        repository, _, file = config["hf_hub"].rpartition("/")
        path = fetch_hub_file(request.name, repository, (file,) if file else WEIGHTS_FILES)
        origin = repository
    else:
        path, origin = fetch_url_file(request.name, config["url"]), config["url"]
    kept = ("size", "mean", "std", "interpolation", "resize_mode")
    options: dict[str, Any] = {"force_preprocess_cfg": {k: config[k] for k in kept if k in config}}
    # open_clip warns and goes on where the weights were trained with another activation
    if config.get("quick_gelu"):
        options["force_quick_gelu"] = True
    return path, options, str(origin)


def _read_preprocessing(module: nn.Module) -> Preprocessing:
    config = _import_library().get_model_preprocess_cfg(module)
    size = config["size"]
    pair = (size, size) if isinstance(size, int) else tuple(size)
    return Preprocessing(
        size=pair,
        scale=pair,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        fit=FITS[config["resize_mode"]],
    )


def _tokenize(model: Any, name: str, texts: Sequence[str]) -> Tensor:
    """Makes tokens of texts; raises UsageError for one that open_clip would cut in silence."""
    own = getattr(model, "context_length", None) or model.text.context_length
    given = name if name.startswith((HUB, FOLDER)) else name.partition("/")[0]
    try:
        with _silence_log(), ignore_warnings():
            # one more than fits shows what would be cut
            tokenizer = _import_library().get_tokenizer(given, context_length=own + 1)
            longer: Tensor = tokenizer(list(texts))
            tokenizer = _import_library().get_tokenizer(given, context_length=own)
            tokens: Tensor = tokenizer(list(texts))
    except Exception as error:  # tokenizers may have to be fetched
        raise WeightsError(
            f"The tokenizer of {name!r} cannot be had: {first_line(error)}."
        ) from error
    for text, row, whole in zip(texts, tokens, longer, strict=True):
        if not torch.equal(row, whole[:own]):
            raise UsageError(
                f"{text!r} is longer than the {own} tokens that {name!r} reads: shorten it."
            )
    return tokens


@contextlib.contextmanager
def _silence_log() -> Iterator[None]:
    """Keeps open_clip's remarks on weights that are not there from the screen."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
