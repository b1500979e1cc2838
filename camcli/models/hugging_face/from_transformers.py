"""Models of transformers: by architecture, from a repository of the Hub, or from a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto import image_processing_auto, modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from camcli.errors import CamvizError, ModelError, UnknownName, WeightsError, first_line
from camcli.models.checkpoints import check_published
from camcli.models.hugging_face.adapters import (
    count_adapter_classes,
    find_base_name,
    merge_adapter,
)
from camcli.models.hugging_face.networks import (
    POOLED,
    TOKENS,
    embed_by_tokens,
    embeds_words,
    fix_arguments,
    fix_for_pictures,
    list_inputs,
    undo_patches,
)
from camcli.models.hugging_face.quiet import keep_quiet
from camcli.models.hugging_face.repository import (
    HUB,
    ModelFiles,
    fetch_processor_file,
    find_files,
    is_model_folder,
    parse_image_size,
)
from camcli.models.hugging_face.texts import encode_texts
from camcli.models.hugging_face.timm_twins import find_timm_twin
from camcli.models.model_spec import BuiltModel, ModelSpec, build_error, warn_of_new_head
from camcli.models.outputs.interpretation import OutputReading, declare_reading, measure_output
from camcli.models.outputs.logits import LOGITS
from camcli.models.preprocessing.measured_view import measure_view
from camcli.records import Preprocessing

__all__ = ["build", "encode_texts", "find_timm_twin", "knows", "list_names"]

CLASSIFIERS: Mapping[str, Any] = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
BACKBONES: Mapping[str, Any] = modeling_auto.MODEL_FOR_IMAGE_MAPPING_NAMES
# models of pictures and words
PROMPTED: Mapping[str, Any] = modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
# classes that were saved with something behind the backbone that is no classifier, and left out
PRETRAINING = frozenset({"", "PreTraining", "MaskedImageModeling"})
# what is left of models of pictures and words where it was saved alone
TEXT_TOWER = "TextModel"
PLACEHOLDER = re.compile(r"LABEL_\d+")
# the first argument of networks that take pictures
TAKES_PICTURES = ("pixel_values", "inputs")
INTERPOLATE = "interpolate_pos_encoding"
MOST_KEYS = 3


def knows(name: str) -> bool:
    """Tells whether transformers classifies pictures with an architecture of that name."""
    return name.startswith(HUB) or name in CLASSIFIERS or name in BACKBONES or is_model_folder(name)


def list_names() -> list[str]:
    """Returns all architectures of transformers that classify pictures."""
    return sorted(CLASSIFIERS)


def build(request: ModelSpec) -> BuiltModel:
    """Builds a model of transformers; raises ModelError, WeightsError or CheckpointError."""
    if request.in_chans is not None:
        raise ModelError("Models of transformers take num_channels in the place of in_chans.")
    with keep_quiet():
        try:
            return _build(request)
        except CamvizError:
            raise
        except Exception as error:  # a thousand constructors raise their own kinds
            raise build_error("transformers", request, error) from error


def _build(request: ModelSpec) -> BuiltModel:
    if request.name in CONFIG_MAPPING_NAMES and not is_model_folder(request.name):
        return _build_architecture(request)
    files = find_files(request.name, weights=request.pretrained)
    if files.adapter is not None:
        return _build_adapted(files, request)
    kind = _choose_class(files, request)
    config = _read_config(kind, files, request)
    if not request.pretrained:
        module = kind._from_config(config, dtype=torch.float32, **_choose_attention(kind))
        return _describe(module, files, request, "random")
    for file in files.weights:
        check_published(file)
    is_safe = files.weights[0].suffix == ".safetensors"
    module, report = kind.from_pretrained(
        files.folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=is_safe,
        weights_only=True,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **_choose_attention(kind),
    )
    new_head = _check_report(module, report, files)
    if any("pooler" in key for key in report["missing_keys"]):
        embed_by_tokens(module)
    return _describe(module, files, request, files.origin, new_head)


def _build_architecture(request: ModelSpec) -> BuiltModel:
    if request.pretrained:
        raise WeightsError(
            f"'transformers/{request.name}' is an architecture without weights: name weights as "
            "hf:ORG/NAME or a folder, give your own with --checkpoint FILE, or --no-pretrained for "
            "random ones."
        )
    default = CONFIG_MAPPING[request.name]()
    settings = {**default.to_dict(), "model_type": request.name, "architectures": None}
    files = ModelFiles(request.name, Path(), "random", settings)
    kind = _choose_class(files, request)
    config = CONFIG_MAPPING[request.name](**_collect_arguments(default, request))
    if not isinstance(config, kind.config_class):
        config = config.vision_config
    module = kind._from_config(config, dtype=torch.float32, **_choose_attention(kind))
    return _describe(module, files, request, "random")


def _choose_attention(kind: Any) -> dict[str, str]:
    """Returns the argument for classes that choose their attention once and for all."""
    is_fixed = kind._supports_sdpa and not kind._supports_attention_backend
    return {"attn_implementation": "eager"} if is_fixed else {}


def _build_adapted(files: ModelFiles, request: ModelSpec) -> BuiltModel:
    """Builds the base model of an adapter of peft, and merges the adapter into it."""
    for file in files.weights:
        check_published(file)
    classes = request.num_classes or count_adapter_classes(files)
    base = replace(request, name=find_base_name(files), num_classes=classes)
    built = _build(base)
    module = merge_adapter(built.module, files) if request.pretrained else built.module
    # the classifier came with the adapter
    warnings = tuple(w for w in built.warnings if w != warn_of_new_head(built.num_classes))
    weights = f"{files.origin} on {built.weights}" if request.pretrained else "random"
    return replace(built, module=module, weights=weights, warnings=warnings)


def _choose_class(files: ModelFiles, request: ModelSpec) -> Any:
    """Returns the class that classifies, or the backbone where nothing classifies.

    Raises ModelError for what neither classifies nor is a backbone for it.
    """
    name, saved = files.model_type, files.architecture
    if name not in CONFIG_MAPPING_NAMES:
        remote = ", and code out of repositories is never run" if "auto_map" in files.config else ""
        raise ModelError(
            f"{files.name!r} is of the type {name!r}, which transformers "
            f"{transformers.__version__} does not know{remote}."
        )
    if saved and saved == PROMPTED.get(name) and not request.num_classes:
        whole = getattr(transformers, saved)
        if embeds_words(whole):
            return whole
    purpose = _find_purpose(saved)
    classifiers = _list_class_names(CLASSIFIERS.get(name))
    wants_head = request.num_classes != 0 and (
        saved in classifiers or not saved or bool(request.num_classes)
    )
    if classifiers and wants_head:
        kind = getattr(transformers, saved if saved in classifiers else classifiers[0])
    elif TEXT_TOWER not in saved and (purpose in PRETRAINING or request.num_classes == 0):
        kind = _find_backbone(name)
    else:
        kind = None
    if kind is None or list_inputs(kind)[:1] not in ([each] for each in TAKES_PICTURES):
        raise ModelError(
            f"{files.name!r} is {_describe_purpose(saved, name)}, and camviz explains what "
            "classifies pictures: a model of transformers that ends in ForImageClassification, one "
            "that embeds pictures and texts (CLIP, SigLIP), or a backbone that takes pictures "
            "alone."
        )
    return kind


def _list_class_names(named: Any) -> list[str]:
    return [named] if isinstance(named, str) else list(named or ())


def _find_purpose(architecture: str) -> str:
    match = re.search(r"For([A-Z]\w*)$", architecture)
    return match[1] if match else ""


def _describe_purpose(architecture: str, model_type: str) -> str:
    purpose = _find_purpose(architecture)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", purpose).lower()
    is_language = not words and (
        TEXT_TOWER in architecture or model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    )
    for_what = f", which is for {words}" if words else ", a language model" if is_language else ""
    return f"a {architecture or model_type}{for_what}"


def _find_backbone(model_type: str) -> Any:
    """Returns the class without a head, of models of pictures and words the tower for pictures."""
    if model_type in BACKBONES:
        return getattr(transformers, _list_class_names(BACKBONES[model_type])[0])
    config = CONFIG_MAPPING_NAMES[model_type]
    return getattr(transformers, config.replace("Config", "VisionModel"), None)


def _read_config(kind: Any, files: ModelFiles, request: ModelSpec) -> Any:
    # a tower's own configuration stands inside that of the whole
    config = kind.config_class.from_pretrained(files.folder, local_files_only=True)
    given = _collect_arguments(config, request)
    for key, value in given.items():
        setattr(config, key, value)
    return config


def _collect_arguments(config: Any, request: ModelSpec) -> dict[str, Any]:
    """Returns what the user says about the configuration; raises UnknownName."""
    given = dict(request.model_kwargs)
    known = sorted({*config.to_dict(), "num_labels"})
    for key in given:
        if key not in known:
            hint = f"{type(config).__name__} has {', '.join(known)}."
            raise UnknownName("argument of the configuration", key, known, hint)
    if request.num_classes and request.num_classes != config.num_labels:
        given["num_labels"] = request.num_classes
    return given


def _check_report(module: Any, report: Mapping[str, Any], files: ModelFiles) -> bool:
    """Tells whether the classifier is new; raises ModelError for other weights that are missing."""
    # of these the shapes stand beside the names
    mismatched = {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
    missing = sorted({*report["missing_keys"], *mismatched})
    base = f"{module.base_model_prefix}."
    has_base = any(name.startswith(base) for name, _ in module.named_parameters())
    is_classifier = type(module).__name__ in _list_class_names(CLASSIFIERS.get(files.model_type))
    heads = set(_list_heads(module, int(module.config.num_labels) if is_classifier else 0))
    of_head = [
        key
        for key in missing
        if (has_base and not key.startswith(base)) or key.rpartition(".")[0] in heads
    ]
    # a backbone is taken without its pooler, which is done without then
    is_backbone = not (is_classifier or embeds_words(module))
    lost = [key for key in missing if key not in of_head and not (is_backbone and "pooler" in key)]
    if lost:
        more = f" and {len(lost) - MOST_KEYS} more" if len(lost) > MOST_KEYS else ""
        raise ModelError(
            f"The weights of {files.name!r} do not fit {type(module).__name__}: "
            f"{', '.join(lost[:MOST_KEYS])}{more} would stay random."
        )
    return bool(of_head)


def _describe(
    module: Any, files: ModelFiles, request: ModelSpec, origin: str, new_head: bool = False
) -> BuiltModel:
    config = module.config
    is_classifier = type(module).__name__ in _list_class_names(CLASSIFIERS.get(files.model_type))
    num_classes = int(config.num_labels) if is_classifier else 0
    own_size = parse_image_size(config.to_dict())
    view, notes = _find_view(files, request.img_size or own_size)
    if request.img_size is not None:
        view = _resize_view(view, request.img_size)
    inputs = list_inputs(type(module))
    fix_for_pictures(module)
    if own_size not in (None, view.size) and INTERPOLATE in inputs:
        fix_arguments(module, {INTERPOLATE: True})
    key = _find_logits(module, view, num_classes)
    if not is_classifier:
        module.num_classes = 0
    return BuiltModel(
        module=module,
        preprocessing=view,
        num_classes=num_classes,
        weights=origin,
        classifiers=tuple(_list_heads(module, num_classes)),
        stems=tuple(_list_stems(module)),
        labels=read_labels(config, num_classes),
        in_chans=len(view.mean),
        warnings=(*((warn_of_new_head(num_classes),) if new_head else ()), *notes),
        reading=_find_reading(module, view, request, key) if is_classifier else OutputReading(key),
    )


def _find_logits(module: Any, view: Preprocessing, num_classes: int) -> str:
    """Returns under which name the logits are, or a backbone's features, by a pass of zeros.

    Raises ModelError where the model does not run.
    """
    height, width = view.size
    try:
        with torch.no_grad():
            output = module.eval()(torch.zeros(1, len(view.mean), height, width))
    except Exception as error:  # every architecture refuses in its own way
        raise ModelError(
            f"{type(module).__name__} does not take pictures of {height}x{width}: "
            f"{first_line(error)}. Its configuration says "
            f"{parse_image_size(module.config.to_dict()) or 'no size'}; give --img-size."
        ) from error
    shapes = {key: tuple(getattr(value, "shape", ())) for key, value in output.items()}
    named = [key for key, shape in shapes.items() if shape == (1, num_classes)]
    if not num_classes and POOLED not in shapes and len(shapes.get(TOKENS, ())) == 3:
        embed_by_tokens(module)
        return POOLED
    if not num_classes:
        return POOLED if POOLED in shapes else str(next(iter(shapes)))
    # a few call them last_hidden_state
    return LOGITS if LOGITS in shapes or not named else str(named[-1])


def _find_view(
    files: ModelFiles, size: tuple[int, int] | None
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Returns the processor's view, or the architecture's default one and a word of that."""
    saved = fetch_processor_file(files) if files.folder.name else None
    names = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(files.model_type) or {}
    if saved is not None:
        processor = transformers.AutoImageProcessor.from_pretrained(
            saved.parent, local_files_only=True, trust_remote_code=False
        )
        measured = measure_view(undo_patches(processor), size)
        return measured.preprocessing, measured.warnings
    for name in filter(None, (names.get("torchvision"), names.get("pil"))):
        processor = image_processing_auto.get_image_processor_class_from_name(name)
        if processor is None:
            continue
        measured = measure_view(undo_patches(processor()), size)
        view = _resize_view(measured.preprocessing, size) if size else measured.preprocessing
        return view, (_say_default(name, view), *measured.warnings)
    view = Preprocessing(size=size or (224, 224), scale=size or (224, 224))
    return view, (_say_default("ImageNet", view),)


def _say_default(name: str, view: Preprocessing) -> str:
    return (
        f"no preprocessor_config.json: preprocessing as {name} has it by default, at "
        f"{view.size[0]}x{view.size[1]}; change it with --img-size, --mean, --std, --fit"
    )


def _resize_view(view: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """Returns the same share of a picture at another size."""
    height, width = (
        round(new * scale / old)
        for new, scale, old in zip(size, view.scale, view.size, strict=True)
    )
    return replace(view, size=size, scale=(height, width))


def _find_reading(
    module: nn.Module, view: Preprocessing, request: ModelSpec, key: str
) -> OutputReading:
    """Returns how the logits are read: as the user says, or as they were trained."""
    config: Any = module.config
    if request.outputs == "probabilities":
        shape = (len(view.mean), *view.size)
        return measure_output(module, shape, key, request.outputs)
    if request.outputs is not None:
        return declare_reading(request.outputs, key)
    if config.problem_type == "multi_label_classification":
        return OutputReading(key, "independent", "sigmoid")
    if config.num_labels == 1 or config.problem_type == "regression":
        return OutputReading(key, "value")
    return OutputReading(key)


def read_labels(config: Any, num_classes: int) -> tuple[str, ...] | None:
    """Reads the names of the classes of a configuration; None where it has none of its own."""
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    if set(names) != set(range(num_classes)):
        return None
    if all(PLACEHOLDER.fullmatch(name) for name in names.values()):
        return None
    return tuple(names[index] for index in range(num_classes))


def _list_heads(module: nn.Module, num_classes: int) -> Iterator[str]:
    """Yields the layer that puts out the logits."""
    layers = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[0] == num_classes
    ]
    yield from layers[-1:] if num_classes else ()


def _list_stems(module: nn.Module) -> Iterator[str]:
    yield from [n for n, layer in module.named_modules() if isinstance(layer, nn.Conv2d)][:1]
