"""Explains pictures of any kind that a caller in Python has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from camcli.config import from_keywords
from camcli.engine.layer_selection import warn_doubts
from camcli.errors import UnknownName, UsageError
from camcli.media.pictures.read import make_picture
from camcli.models.load import Classifier
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.plan import make_plan
from camcli.pipeline.stages import explain_batch, prepare
from camcli.records import Picture

Item = TypeVar("Item")

# the others would be passed over in silence
EXPLAINING = (
    "target_layers", "layer_fusion", "combine", "best_for", "vit_like",
    "num_extra_tokens", "target_category", "top_k", "threshold", "target",
    "contrast", "contrast_strength", "set", "aug_smooth", "eigen_smooth",
    "noise_smooth", "noise_sigma", "seed", "batch_size", "precision",
)  # fmt: skip
NOT_EXPLAINING = (
    "What loads a model (device, fit, ...) goes to load_model, what draws (alpha, colormap) to "
    "overlay of an explanation."
)


def explain(
    classifier: Classifier, inputs: Any, method: str | Sequence[str] = "gradcam", **options: Any
) -> Iterator[Explanation]:
    """Explains pictures: paths, PIL pictures, arrays or tensors, one or many.

    Pictures are explained a batch at a time, when the next explanation is asked for. A model that
    takes more than pictures goes to `heatmaps`.

    Args:
        classifier: The model, of `load_model`.
        inputs: One picture or an iterable of them: a path, a PIL picture, an array [h w 3] or a
            tensor [3 h w]; of uint8, or floats 0..1.
        method: Names of methods, see camviz methods; default gradcam. A list of names gives an
            explanation each.
        **options: Those of the command line that say what is explained, below.

    Options:
        target_layers: Layers to explain at (layer4, blocks.-1.norm1); default found by measuring.
        layer_fusion: Several layers: mean, max, product, refine (RefineCAM), or none for a map
            each; default mean.
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
            counterfactual (what speaks against it) or contrast; default logit.
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

    Returns:
        An iterator of explanations, picture by picture: for each its classes, for each class its
        methods. Options are checked at once, pictures read when it comes to them.

    Raises:
        UnknownName: An option, method, layer or class that nobody knows; the message has the
            closest.
        ConfigError: An option with a value that it does not take.
        UsageError: Options that do not go together.
        ImageError: A picture that cannot be read; then those of its batch are not explained.
        LayerError: A layer without a grid, or one that the model does not call.
        MethodError: A method that is not defined for this model or these options.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> picture = "demo_images/cat_and_coffee.jpg"
        >>> for e in camcli.explain(classifier, picture, target_category=["tabby", "espresso"]):
        ...     print(e.category, e.label, e.heatmap.shape)
        281 tabby, tabby cat (7, 7)
        967 espresso (7, 7)
    """
    for name in options:
        if name not in EXPLAINING:
            raise UnknownName("option of explain", name, EXPLAINING, NOT_EXPLAINING)
    if isinstance(inputs, Mapping):
        raise UsageError(
            "explain takes pictures, and no dictionary of a model's inputs: camcli.heatmaps("
            "classifier.module, inputs) takes one, and passes on what stands beside the pictures."
        )
    checked = from_keywords(method=method, **options)
    plan = make_plan(classifier, checked)
    warn_doubts(plan.doubts.values())
    items = [inputs] if _is_one_picture(inputs) else inputs
    return (
        explanation
        for group in group_items(items, plan.batch_size)
        for explanations in explain_batch([prepare(make_picture(i), plan) for i in group], plan)
        for explanation in explanations
    )


def _is_one_picture(value: Any) -> bool:
    if isinstance(value, str | Path | Picture) or not isinstance(value, Iterable):
        return True
    # an array or a tensor of several pictures has four dimensions, a list has none
    return getattr(value, "ndim", 4) <= 3


def group_items(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Groups items, at most `size` together."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
