"""Loads the model that the options name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.errors import ModelError, UsageError, first_line
from camcli.models.known_names import note_layers
from camcli.models.own_code.user_code import is_code
from camcli.utils.profiling import stage

WEIGHTS = frozenset({".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar"})

if TYPE_CHECKING:
    from collections.abc import Callable

    from camcli.config import Options
    from camcli.models.load import Classifier


@stage("load")
def load(options: Options, *, pretrained: bool) -> Classifier:
    """Loads the model that the options name; raises UsageError for what cannot be built."""
    with stage("import"):
        from camcli.engine.device.oom_chunks import is_out_of_memory
        from camcli.models.load import load_model

    try:
        classifier = _load_with(load_model, options, pretrained)
        return _replace_classes(classifier, options)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"{options.model!r} does not fit into memory: {first_line(error)}. Take a smaller"
            " model, --num-classes or --img-size."
        ) from error


def _load_with(
    load_model: Callable[..., Classifier], options: Options, pretrained: bool
) -> Classifier:
    preprocessing = options.preprocessing.model_dump(exclude_none=True)
    classifier = load_model(
        options.model,
        pretrained=pretrained,
        checkpoint=options.checkpoint,
        strict=options.strict,
        num_classes=options.num_classes,
        img_size=options.img_size,
        class_map=options.class_map,
        model_kwargs=options.model_kwargs,
        device=options.device,
        fit=preprocessing.pop("fit", None),
        preprocessing=preprocessing,
        output_key=options.output_key,
        outputs=options.outputs,
    )
    # for completion, which cannot wait until a model is built
    if not is_code(options.model):
        note_layers(options.model, (name for name, _ in classifier.module.named_modules() if name))
    return classifier


def _replace_classes(classifier: Classifier, options: Options) -> Classifier:
    """Puts pictures or words in the place of the model's classes, where they are given."""
    if options.text:
        with stage("import"):
            from camcli.models.words.prompts import prompt

        return prompt(classifier, options.text, options.template)
    return _compare(classifier, options) if options.like else classifier


def _compare(classifier: Classifier, options: Options) -> Classifier:
    """Puts the pictures of --like in the place of the model's classes."""
    with stage("import"):
        from camcli.media.sources.listing import find_sources
        from camcli.pipeline import compare_with

    references = find_sources(options.like, recursive=options.recursive)
    if not references:
        raise UsageError(f"There is no picture in {', '.join(options.like)}: --like names some.")
    return compare_with(classifier, references, options.likeness)


def load_compared(options: Options, classifier: Classifier) -> Classifier:
    """Loads the model of --compare, or the weights that it names for the same model."""
    assert options.compare is not None
    if Path(options.compare).suffix.lower() in WEIGHTS:
        other = options.model_copy(update={"checkpoint": Path(options.compare)})
        loaded = load(other, pretrained=False)
        return replace(loaded, name=f"{classifier.name}-{Path(options.compare).stem}")
    own = {
        name: type(options).model_fields[name].default
        for name in ("checkpoint", "num_classes", "img_size", "model_kwargs", "output_key")
    }
    fit = options.preprocessing.model_copy(
        update=dict.fromkeys(set(type(options.preprocessing).model_fields) - {"fit"})
    )
    other = options.model_copy(update={**own, "model": options.compare, "preprocessing": fit})
    loaded = load(other, pretrained=options.pretrained)
    # two models of one name would be one column
    same = loaded.name == classifier.name
    return replace(loaded, name=f"{loaded.name}-2") if same else loaded


def load_structure(options: Options) -> Classifier:
    """Loads the model for its layers alone: no published weights are fetched."""
    return load(options.model_copy(update={"like": (), "text": ()}), pretrained=False)
