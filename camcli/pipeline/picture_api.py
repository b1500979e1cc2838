"""Explains pictures for a caller in Python, in any form that it has them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from camcli.config import from_keywords
from camcli.engine.layer_selection import Layers, name_layers, warn_doubts
from camcli.errors import CamvizWarning, UsageError
from camcli.keywords import check_keywords
from camcli.media.pictures.read import make_picture
from camcli.models.load import Classifier, load_model
from camcli.models.outputs.logits import OutputKey
from camcli.models.preprocessing import PreprocessingLike
from camcli.pipeline.plan import make_plan
from camcli.pipeline.sheets.explanations import Explanations
from camcli.pipeline.stages import explain_batch, prepare
from camcli.records import BestFor, Combination, Fusion, Outputs, Picture, Precision, TargetName
from camcli.utils.paths import is_file, is_folder

Categories: TypeAlias = int | str | Sequence[int | str] | Tensor | NDArray[np.integer[Any]]
Item = TypeVar("Item")

ELSEWHERE = (
    "Options of loading (device, fit, ...) belong to load_model, and options of drawing (alpha, "
    "colormap) to an explanation's overlay."
)


@check_keywords(ELSEWHERE, targets="target_category")
def explain(
    classifier: Classifier | nn.Module,
    inputs: Any,
    method: str | Sequence[str] = "gradcam",
    *,
    target_layers: Layers | None = None,
    layer_fusion: Fusion = "mean",
    layers_sweep: bool = False,
    combine: Combination | None = None,
    best_for: BestFor | None = None,
    vit_like: bool | None = None,
    num_extra_tokens: int | None = None,
    target_category: Categories | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    target: TargetName | Callable[[Tensor, Tensor], Tensor] | None = None,
    contrast: Categories | None = None,
    contrast_strength: float = 0.6,
    set: Mapping[str, Any] | None = None,  # noqa: A002
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    noise_smooth: int | None = None,
    noise_sigma: float = 0.15,
    seed: int = 0,
    batch_size: int | Literal["auto"] | None = None,
    precision: Precision = "float32",
    labels: Iterable[str] | Mapping[int, str] | None = None,
    preprocessing: PreprocessingLike | None = None,
    img_size: int | tuple[int, int] | None = None,
    output_key: OutputKey | None = None,
    outputs: Outputs | None = None,
) -> Explanations:
    """Explains pictures: paths, PIL pictures, arrays or tensors, one or many.

    A batch of pictures is explained when its first explanation is asked for. For a model that takes
    more than pictures there is `heatmaps`.

    Args:
        classifier: The model, from `load_model`; or any module, which is then loaded first, with
            the last five arguments as those of `load_model`.
        inputs: One picture or an iterable of them: a path, a PIL picture, an array [h w 3] or a
            tensor [3 h w]; of uint8, or floats 0..1.
        method: Names of methods, see camviz methods; default gradcam. A list of names gives an
            explanation each.
        target_layers: Layers to explain at (layer4, blocks.-1.norm1); default found by measuring.
            Modules, too.
        layer_fusion: Several layers: mean, max, product, refine (RefineCAM), or none for a map
            each; default mean.
        layers_sweep: Explain the model layer by layer, from its coarsest grid to finer ones, and
            draw a sheet. Here: an explanation each, which `Sheet` draws.
        combine: Make one map of several methods, each at the target layers or, as METHOD@LAYER, at
            one of its own: product or mean.
        best_for: What the method best is best for: evidence (where the score comes from), extent
            (what the object covers) or balanced; default balanced.
        vit_like: The layer puts out tokens, or does not; default measured.
        num_extra_tokens: Tokens that are no part of the grid, such as the class token; default
            measured.
        target_category: Classes to explain, by index or name; default the predicted one.
        top_k: Explain the K best classes.
        threshold: Explain all classes of at least this probability, or else the likeliest.
        target: What is explained of the class: logit, probability, log-probability, rest,
            counterfactual (what speaks against it) or contrast; default logit. Or a function of
            logits [b n] and categories [b] to scores [b].
        contrast: Why this class and not those; with the target contrast, by default, the 3 most
            similar. Indices or names.
        contrast_strength: How much of the other classes' mean logit is taken away; default 0.6.
        set: Options of the methods, or of one: METHOD.NAME. {"max_channels": 64}, or
            {"scorecam.max_channels": 64}.
        aug_smooth: Average over flips and brightness changes.
        eigen_smooth: First principal component of the weighted channels in place of their sum.
        noise_smooth: Average over N noisy copies of the picture.
        noise_sigma: That noise's deviation, as a share of the picture's range; default 0.15.
        seed: Seed for methods and noise drawn at random; default 0.
        batch_size: Pictures in one pass, or copies that a method alters (32); auto finds what fits;
            default 8.
        precision: float32, bf16, fp16, or auto: bf16 where a GPU has it; default float32.
        labels: Of a module, the classes' names, in their order, or some of them by index.
        preprocessing: What overrules the model's own preprocessing. Of a module: a dictionary, a
            transform of pictures, or an image processor, as in `load_model`.
        img_size: Input size in pixels; default the model's. Of a module: one number, or (height,
            width).
        output_key: Where your own model's logits are in the tuple or dictionary that it returns.
            Of a module, as in `load_model`.
        outputs: What the outputs mean: logits, probabilities (of one class), independent (several
            classes at once) or value (a real number); default measured. Of a module, as in
            `load_model`.

    Returns:
        An iterator of explanations: picture by picture, class by class, method by method. Options
        are checked at once; pictures are read when their turn comes. A notebook shows it as a
        sheet.

    Raises:
        UnknownName: An unknown option, method, layer or class; the message names the closest one.
        ConfigError: An option with a value that it does not take.
        UsageError: Options that do not go together.
        ImageError: A picture that cannot be read; the other pictures of its batch are then not
            explained.
        LayerError: A layer without a grid, or one that the model does not call.
        MethodError: A method that is not defined for this model or these options.
        ModelError: A module that cannot be explained.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> picture = "demo_images/cat_and_coffee.jpg"
        >>> for e in camcli.explain(classifier, picture, target_category=["tabby", "espresso"]):
        ...     print(e.category, e.label, e.heatmap.shape)
        281 tabby, tabby cat (7, 7)
        967 espresso (7, 7)
    """
    if isinstance(inputs, Classifier | nn.Module):
        raise UsageError("The model comes first, and the pictures second: explain(model, inputs).")
    if isinstance(inputs, Mapping):
        raise UsageError(
            "explain takes pictures, and not a dictionary of a model's inputs: camcli.heatmaps("
            "classifier.module, inputs) takes one, and passes on the inputs beside the pictures."
        )
    _check_is_picture(inputs)
    classifier = find_classifier(
        classifier,
        labels=labels,
        preprocessing=preprocessing,
        img_size=img_size,
        output_key=output_key,
        outputs=outputs,
    )
    options = {
        "method": method,
        "target_layers": _name_layers(classifier, target_layers),
        "layer_fusion": layer_fusion,
        "layers_sweep": layers_sweep,
        "combine": combine,
        "best_for": best_for,
        "vit_like": vit_like,
        "num_extra_tokens": num_extra_tokens,
        "target_category": _list_categories(target_category),
        "top_k": top_k,
        "threshold": threshold,
        "target": target,
        "contrast": _list_categories(contrast),
        "contrast_strength": contrast_strength,
        "set": set,
        "aug_smooth": aug_smooth,
        "eigen_smooth": eigen_smooth,
        "noise_smooth": noise_smooth,
        "noise_sigma": noise_sigma,
        "seed": seed,
        "batch_size": batch_size,
        "precision": precision,
    }
    plan = make_plan(classifier, from_keywords(**_leave_out_defaults(options)))
    warn_doubts(plan.doubts.values())
    items = [inputs] if is_one_picture(inputs) else inputs
    return Explanations(
        explanation
        for group in group_items(items, plan.batch_size)
        for explanations in explain_batch([prepare(make_picture(i), plan) for i in group], plan)
        for explanation in explanations
    )


def find_classifier(given: Any, taker: str = "explain", **loading: Any) -> Classifier:
    """Returns the classifier, or that of a module, with warnings of what was assumed of it."""
    told = [name for name, value in loading.items() if value is not None]
    if isinstance(given, Classifier):
        if told:
            raise UsageError(
                f"{told[0]} is for a module, and this is a classifier already: give {told[0]} to "
                "load_model."
            )
        return given
    if isinstance(given, nn.Module):
        classifier = load_model(given, **loading)
        for warning in classifier.warnings:
            warnings.warn(f"{classifier.name}: {warning}", CamvizWarning, stacklevel=4)
        return classifier
    way_on = f": camcli.load_model({given!r}) makes one" if isinstance(given, str) else ""
    raise UsageError(
        f"{taker} takes a Classifier or a torch.nn.Module, not a {type(given).__name__}{way_on}."
    )


def _check_is_picture(given: Any) -> None:
    """Raises UsageError for a folder, a pattern or an address, which the command line takes."""
    if not isinstance(given, str | Path) or is_file(given):
        return
    if is_folder(given):
        raise UsageError(
            f"{str(given)!r} is a folder: give its pictures, as in sorted(Path({str(given)!r})"
            ".glob('*.jpg'))."
        )
    if "://" in str(given) or "*" in str(given):
        raise UsageError(
            f"{str(given)!r} is for the command line, camviz {str(given)!r}: explain takes files "
            "that are there, or pictures that were opened."
        )


def _name_layers(classifier: Classifier, given: Layers | None) -> Any:
    """Returns the names of layers, which may be given as modules."""
    if given is None or isinstance(given, str):
        return given
    listed = [given] if isinstance(given, nn.Module) else list(given)
    if not any(isinstance(layer, nn.Module) for layer in listed):
        return listed
    return name_layers(classifier.module, listed)


def _list_categories(given: Categories | None) -> Any:
    """Returns classes as a list, also those of an array or tensor of indices."""
    return given.tolist() if isinstance(given, Tensor | np.ndarray) else given


def _leave_out_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that are not defaults; giving one may already mean something."""
    parameters = inspect.signature(explain).parameters
    return {name: v for name, v in options.items() if v != parameters[name].default}


def is_one_picture(value: Any) -> bool:
    """Tells whether this is a picture, and not several."""
    if isinstance(value, str | Path | Picture) or not isinstance(value, Iterable):
        return True
    # an array or tensor of several pictures has four dimensions
    return getattr(value, "ndim", 4) <= 3


def group_items(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields groups of at most `size` items."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
