"""Models out of timm: by name, from a Hugging Face repository, or from a folder."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from timm.models import get_arch_pretrained_cfgs, get_deprecated_models, get_pretrained_cfg
from torch import nn

from camcli.errors import ModelError, UnknownName, WeightsError
from camcli.models.checkpoints import check_published
from camcli.models.labels import find_timm_labels
from camcli.models.model_spec import BuiltModel, ModelSpec, Weights, build_error, warn_of_new_head
from camcli.models.preprocessing import compute_scale, fit_channels
from camcli.models.weight_download import (
    fetch_hub_file,
    fetch_url_file,
    find_cached_hub_file,
    find_cached_url_file,
)
from camcli.records import Fit, Preprocessing

HUB, FOLDER = "hf-hub:", "local-dir:"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
# what it looks for in a folder that has neither
IN_FOLDERS = (".safetensors", ".bin", ".pth", ".tar")
FITS: Mapping[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}
# arguments with which a model takes pictures of any size, fixed though its configuration says
ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False, "use_naflex": True}


def knows(name: str) -> bool:
    """Tells whether timm has an architecture of that name, whatever the tag after the dot."""
    return name.startswith((HUB, FOLDER)) or bool(timm.is_model(name))


def list_names() -> list[str]:
    """Returns all architectures of timm."""
    return list(timm.list_models())


def build(request: ModelSpec) -> BuiltModel:
    """Builds a timm model; raises ModelError, WeightsError, or UnknownName for a tag."""
    name, config = _locate(request)
    overlay, origin = (
        _fetch_weights(request, name, config) if request.pretrained else ({}, "random")
    )
    arguments = _collect_arguments(request, config)
    try:
        if request.pretrained:
            for file in _list_files(request, overlay):
                check_published(file)
        module = timm.create_model(
            name,
            pretrained=request.pretrained,
            pretrained_cfg_overlay=overlay or None,
            **arguments,
        )
    except Exception as error:  # a thousand constructors raise their own kinds
        raise build_error("timm", request, error, overlay.get("file")) from error
    return _describe(module, request, origin)


def _locate(request: ModelSpec) -> tuple[str, Mapping[str, Any]]:
    """Returns the name that timm builds from, and the configuration of its pretrained weights."""
    name = request.name
    if name.startswith(HUB):
        config_file = fetch_hub_file(name, name.removeprefix(HUB), ("config.json",))
        return f"{FOLDER}{config_file.parent}", _read_folder_config(name, config_file)
    if name.startswith(FOLDER):
        config_file = Path(name.removeprefix(FOLDER)) / "config.json"
        return name, _read_folder_config(name, config_file)
    name = _find_current_name(name)
    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:
        arch, _, tag = name.partition(".")
        tags = [full.partition(".")[2] for full in get_arch_pretrained_cfgs(arch)]
        hint = f"{arch} has {', '.join(filter(None, tags)) or 'none'}."
        raise UnknownName("pretrained tag", tag, tags, hint) from None
    return name, asdict(config) if config else {}


def _read_folder_config(name: str, file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        config["architecture"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{name!r} is no timm model: {file} has to be there and name its architecture. "
            "A folder of weights alone goes to --checkpoint, beside --model."
        ) from error
    if "model_type" in config:
        raise ModelError(
            f"{name!r} was saved by transformers, and timm cannot read that: name its architecture "
            f"and weights, as in --model {config['architecture']} --checkpoint FOLDER."
        )
    known: Mapping[str, Any] = config.get("pretrained_cfg", config)
    return known


def _find_current_name(name: str) -> str:
    arch = name.partition(".")[0]
    deprecated = get_deprecated_models()
    if arch not in deprecated:
        return name
    current = deprecated[arch]
    if current is None:
        raise ModelError(f"timm has removed the model {arch!r}.")
    return str(current)


def _fetch_weights(
    request: ModelSpec, name: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Fetches the pretrained file, and returns what tells timm to take it, with its origin."""
    if request.name.startswith(FOLDER):
        return {}, request.name
    hub = request.name.removeprefix(HUB) if request.name.startswith(HUB) else ""
    repository, url = hub or config.get("hf_hub_id"), config.get("url")
    custom = False
    if repository:
        file = fetch_hub_file(request.name, repository, _list_hub_files(config))
        origin = str(repository)
    elif url and isinstance(url, str):
        file, origin = fetch_url_file(request.name, url), url
        custom = bool(config.get("custom_load"))
    else:
        raise _no_weights_error(request.name, name)
    return {"file": str(file), "source": None, "custom_load": custom}, origin


def _list_files(request: ModelSpec, overlay: Mapping[str, Any]) -> list[Path]:
    """Lists the files that timm may read weights from."""
    if not request.name.startswith(FOLDER):
        return [Path(overlay["file"])]
    files = sorted(Path(request.name.removeprefix(FOLDER)).iterdir())
    return [file for file in files if file.suffix.lower() in IN_FOLDERS]


def find_cached_weights(config: Mapping[str, Any]) -> Path | None:
    """Returns the pretrained file that building would take without a download, or None."""
    repository, url = config.get("hf_hub_id"), config.get("url")
    if repository:
        return find_cached_hub_file(repository, _list_hub_files(config))
    return find_cached_url_file(url) if url and isinstance(url, str) else None


def _list_hub_files(config: Mapping[str, Any]) -> tuple[str, ...]:
    given = config.get("hf_hub_filename")
    return (given,) if given else WEIGHTS_FILES


def _no_weights_error(given: str, name: str) -> WeightsError:
    having = [n for n, c in get_arch_pretrained_cfgs(name).items() if c.has_weights]
    others = f" It has them for {', '.join(having)}." if having else ""
    return WeightsError(
        f"timm has no pretrained weights for {given!r}.{others} Give your own with "
        "--checkpoint FILE, choose another model, or leave out --model for the embedded one."
    )


def _collect_arguments(request: ModelSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(request.model_kwargs)
    if request.num_classes is not None:
        arguments["num_classes"] = request.num_classes
    if request.in_chans is not None:
        arguments["in_chans"] = request.in_chans
    free = any(arguments.get(key) == value for key, value in ANY_SIZE.items())
    if request.img_size is not None and config.get("fixed_input_size") and not free:
        arguments["img_size"] = request.img_size
    return arguments


def _describe(module: nn.Module, request: ModelSpec, origin: str) -> BuiltModel:
    config: Any = module.pretrained_cfg
    num_classes = int(getattr(module, "num_classes", 0))
    new_head = request.pretrained and num_classes not in (0, config.get("num_classes"))
    preprocessing = read_preprocessing(module, request)
    return BuiltModel(
        module=module,
        preprocessing=preprocessing,
        num_classes=num_classes,
        weights=origin,
        classifiers=_list_tags(config.get("classifier")),
        stems=_list_tags(config.get("first_conv")),
        labels=find_timm_labels(config, num_classes),
        in_chans=len(preprocessing.mean),
        warnings=(warn_of_new_head(num_classes),) if new_head else (),
        convert=_convert,
    )


def _list_tags(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def read_preprocessing(module: nn.Module, request: ModelSpec) -> Preprocessing:
    """Reads what a module of timm says of its input."""
    config = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    channels = request.in_chans or config["input_size"][0]
    size = request.img_size or tuple(config["input_size"][1:])
    return Preprocessing(
        size=size,
        scale=compute_scale(size, config["crop_pct"]),
        mean=fit_channels(config["mean"], channels),
        std=fit_channels(config["std"], channels),
        interpolation=config["interpolation"],
        fit=FITS.get(config["crop_mode"], "crop"),
    )


# what modules of timm call their converter; the older ones take the weights alone
CONVERTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


def _convert(weights: Weights, module: nn.Module) -> Weights:
    # timm keeps beside each architecture what turns its original files into timm's layout
    own = sys.modules[type(module).__module__]
    convert = next((getattr(own, name) for name in CONVERTERS if hasattr(own, name)), None)
    if convert is None:
        return weights
    takes_model = len(inspect.signature(convert).parameters) > 1
    converted: Weights = convert(weights, module) if takes_model else convert(weights)
    return converted
