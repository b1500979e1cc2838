"""From sources to heatmaps, files and records; a picture that cannot be read becomes a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from camcli.config import Options, from_keywords
from camcli.engine.probe import Tokens
from camcli.engine.run import Answer, Request, answer, found_default, seeded, target_layers_of
from camcli.engine.targets import Best, Choice, Fixed
from camcli.errors import ImageError, ModelError, OutputError, UnknownName, UsageError
from camcli.media.geometry import view as view_of
from camcli.media.read import PictureLike, picture_from, read_picture
from camcli.media.sources import IMAGE_SUFFIXES
from camcli.media.write import (
    PICTURE_SUFFIXES,
    check_writable,
    output_name,
    picture_format,
    write_map,
    write_picture,
)
from camcli.methods import compose
from camcli.models.labels import find_category, label
from camcli.models.load import Classifier
from camcli.records import Box, Heatmap, Picture, Record, Source, View
from camcli.registry import depends_on_category, method_name
from camcli.render import overlay as drawing
from camcli.render.colour import lookup_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Item = TypeVar("Item")


@dataclass(frozen=True)
class Explanation:
    """One heatmap of one picture, what it explains, and how sure the model was of it."""

    picture: Picture
    view: Box
    record: Record
    map: Heatmap
    input_size: tuple[int, int]

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """The raw map [h w], signed and not normalised."""
        return self.map.values

    @property
    def method(self) -> str:
        """The method's name."""
        return self.map.method

    @property
    def category(self) -> int:
        """The explained class's index."""
        return self.map.category

    @property
    def label(self) -> str:
        """The explained class's name."""
        return self.record.label

    @property
    def probability(self) -> float:
        """The explained class's softmax probability, 0..1."""
        return self.record.probability or 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the map, in words; empty where nothing is."""
        return self.record.warnings

    def overlay(self, alpha: float = 0.5, colormap: str = "jet") -> NDArray[np.uint8]:
        """Draws the heatmap on the original picture.  -> RGB [h w 3]"""
        return drawing.overlay(self.picture, self.map, alpha, colormap, box=self.view)

    def sized_map(self, size: str) -> NDArray[np.float32]:
        """Returns the raw map at the layer's, the network input's or the picture's size."""
        if size == "image":
            return drawing.resized_map(self.heatmap, self.view, self.picture.size)
        if size == "input":
            enlarged: NDArray[np.float32] = compose.enlarge(
                torch.from_numpy(self.heatmap), self.input_size
            ).numpy()
            return enlarged
        return self.heatmap

    def save(self, path: str | Path) -> Path:
        """Writes the raw map (.npy) or the overlay (an image suffix).

        Raises OutputError, or ImageError for a picture that is too large for its format.
        """
        path = Path(path)
        if path.suffix.lower() == ".npy":
            write_map(self.heatmap, path)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            write_picture(self.overlay(), path)
        else:
            raise OutputError(f"{path} ends neither in .npy (raw map) nor in an image suffix.")
        return path


def overlay(
    picture: PictureLike,
    heatmap: drawing.MapLike,
    alpha: float = 0.5,
    colormap: str = "jet",
    *,
    box: Box | None = None,
) -> NDArray[np.uint8]:
    """Draws a raw heatmap on a picture, inside the box that it shows (all of it).  -> RGB [h w 3]

    The picture is a path, PIL picture, array or tensor.  Raises ImageError or UsageError.
    """
    return drawing.overlay(picture_from(picture), heatmap, alpha, colormap, box=box)


@dataclass(frozen=True)
class Plan:
    """What is done to every picture: the request, the categories, and why this layer."""

    classifier: Classifier
    request: Request
    categories: tuple[int, ...] | int
    layer_reason: str

    def choice(self, pictures: int) -> Choice:
        """Returns the choice of categories for a batch."""
        if isinstance(self.categories, int):
            return Best(self.categories)
        return Fixed(torch.tensor(self.categories).expand(pictures, -1))

    @property
    def maps_per_picture(self) -> int:
        """How many heatmaps each picture gets."""
        k = self.categories if isinstance(self.categories, int) else len(self.categories)
        fused = len(self.request.layers) == 1 or self.request.layer_fusion != "none"
        return len(self.request.methods) * k * (1 if fused else len(self.request.layers))


def plan(classifier: Classifier, options: Options) -> Plan:
    """Resolves layers, methods and categories of a run; raises UsageError for what is unknown."""
    methods = tuple(dict.fromkeys(method_name(m) for m in options.method))
    _check_has_classes(classifier, methods)
    categories = _categories(classifier, options)
    tokens = Tokens(options.vit_like, options.num_extra_tokens)
    layers, layouts, reason = _layers(classifier, options.target_layers)
    request = Request(
        methods,
        layers,
        {} if tokens != Tokens() else layouts,
        tokens,
        options.layer_fusion,
        options.aug_smooth,
        options.eigen_smooth,
        seeded(methods, options.seed),
    )
    return Plan(classifier, request, categories, reason)


def _layers(classifier: Classifier, given: Sequence[str]) -> tuple[tuple[str, ...], Any, str]:
    shape = (len(classifier.preprocessing.mean), *classifier.preprocessing.size)
    probe = torch.empty(1, *shape)
    layers, layouts = target_layers_of(classifier.module, probe, given)
    reason = "named by --target-layers" if given else found_default(classifier.module, shape).reason
    return layers, layouts, reason


def _check_has_classes(classifier: Classifier, methods: Sequence[str]) -> None:
    asking = [name for name in methods if depends_on_category(name)]
    if asking and not classifier.num_classes:
        raise ModelError(
            f"{classifier.name!r} has no classifier, and so no class that {asking[0]} could "
            "explain: give --num-classes with your own --checkpoint, or try --method eigencam."
        )


def _categories(classifier: Classifier, options: Options) -> tuple[int, ...] | int:
    if not options.target_category:
        k, known = options.top_k or 1, classifier.num_classes
        if known and k > known:
            raise UsageError(f"--top-k {k} is more than the {known} classes of the model.")
        return k
    if options.top_k:
        raise UsageError("--target-category and --top-k each choose the classes: give one of them.")
    names = [name for text in options.target_category for name in _names(text, classifier)]
    found = (find_category(n, classifier.labels, classifier.num_classes) for n in names)
    return tuple(dict.fromkeys(found))


def _names(text: str, classifier: Classifier) -> list[str]:
    """Splits at commas, but not a class name that holds some (`tabby, tabby cat`)."""
    whole = text.strip().lower()
    if any(whole == known.lower() for known in classifier.labels or ()):
        return [text.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]


# the others would be passed over in silence
EXPLAINING = (
    "target_layers", "layer_fusion", "vit_like", "num_extra_tokens", "target_category", "top_k",
    "aug_smooth", "eigen_smooth", "seed", "batch_size",
)  # fmt: skip
NOT_EXPLAINING = (
    "What loads a model (device, fit, ...) goes to load_model, what draws (alpha, colormap) to "
    "overlay of an explanation."
)


def explain(
    classifier: Classifier, inputs: Any, method: str | Sequence[str] = "gradcam", **options: Any
) -> Iterator[Explanation]:
    """Explains pictures: paths, PIL pictures, arrays [h w 3] or tensors [3 h w], one or many.

    Options are those of the command line that say what is explained (`top_k=2`,
    `target_category=["tabby"]`, ...).  Raises CamvizError, ImageError for an unreadable picture.
    """
    for name in options:
        if name not in EXPLAINING:
            raise UnknownName("option of explain", name, EXPLAINING, NOT_EXPLAINING)
    checked = from_keywords(method=method, **options)
    todo = plan(classifier, checked)
    items = [inputs] if _is_one_picture(inputs) else inputs
    return (
        explanation
        for group in _batched(items, checked.batch_size)
        for explanations in explain_batch([picture_from(item) for item in group], todo)
        for explanation in explanations
    )


def _is_one_picture(value: Any) -> bool:
    if isinstance(value, str | Path | Picture) or not isinstance(value, Iterable):
        return True
    # an array or a tensor of several pictures has four dimensions, a list has none
    return getattr(value, "ndim", 4) <= 3


def explain_batch(pictures: Sequence[Picture], todo: Plan) -> list[list[Explanation]]:
    """Explains some pictures in one pass; a list of explanations for each picture."""
    if not pictures:
        return []
    views = [view_of(picture, todo.classifier.preprocessing) for picture in pictures]
    inputs = torch.stack([v.inputs for v in views])
    found = answer(todo.classifier.module, inputs, todo.choice(len(pictures)), todo.request)
    probabilities = _probabilities(found.logits).cpu()
    return [
        list(_explanations(picture, view, found, row, probabilities[row], todo))
        for row, (picture, view) in enumerate(zip(pictures, views, strict=True))
    ]


def _explanations(
    picture: Picture, view: View, found: Answer, row: int, probabilities: Tensor, todo: Plan
) -> Iterator[Explanation]:
    height, width = view.inputs.shape[-2:]
    for slot, category in enumerate(found.categories[row].tolist()):
        base = Record(
            source=str(picture.source or ""),
            picture_size=picture.size,
            view=view.box,
            model=todo.classifier.name,
            layer_reason=todo.layer_reason,
            category=category,
            label=label(todo.classifier.labels, category),
            probability=float(probabilities[category]),
            rank=int((probabilities > probabilities[category]).sum()) + 1,
        )
        for method, layers in found.maps.items():
            for name, maps in layers.items():
                used = (name,) if name else todo.request.layers
                values = maps[row, slot].float().cpu().contiguous().numpy()
                record = replace(
                    base,
                    method=method,
                    layers=used,
                    minimum=float(values.min()),
                    maximum=float(values.max()),
                    warnings=tuple(why_empty(values)),
                )
                heatmap = Heatmap(values, method, used, category)
                yield Explanation(picture, view.box, record, heatmap, (height, width))


def _probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes; a single logit is a yes or no.  [b n] -> [b n]"""
    return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()


def why_empty(values: NDArray[np.float32]) -> Iterator[str]:
    """Says why a raw map [h w] shows nothing, with the likely cause; nothing where it does show."""
    raw = torch.from_numpy(values)
    if compose.normalise(raw).any():
        return
    if not raw.isfinite().all():
        yield "the map is not finite: activations or gradients overflowed (half precision?)"
    elif not raw.any():
        yield (
            "the map is zero everywhere: the score does not depend on this layer (a dead layer, "
            "a head that is zero, or a layer behind the last attention)"
        )
    elif raw.max() <= 0:
        yield "the map is negative everywhere: this layer speaks against the class at every place"
    else:
        yield "the map is constant: this layer says the same everywhere; choose an earlier one"


def run(classifier: Classifier, sources: Sequence[Source], options: Options) -> Iterator[Record]:
    """Explains sources and writes the files; one record a heatmap, or a picture that failed.

    Raises UsageError before anything is written where names, outputs or options do not fit.
    """
    lookup_table(options.colormap)
    todo = plan(classifier, options)
    check_outputs(sources, todo, options)
    for group in _batched(sources, options.batch_size):
        read = [_read(source) for source in group]
        explained = iter(explain_batch([p for p in read if isinstance(p, Picture)], todo))
        for picture in read:
            if isinstance(picture, Record):
                yield picture
                continue
            for explanation in next(explained):
                yield _written(explanation, todo, options)


def _read(source: Source) -> Picture | Record:
    try:
        return read_picture(source)
    except ImageError as error:
        return Record(source=str(source), error=str(error))


def check_outputs(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    """Raises UsageError or OutputError where outputs would collide or cannot be written."""
    if _is_file(options.save_path):
        _check_single_file(sources, todo, options)
        check_writable(options.save_path.parent)
    else:
        _check_distinct_files(sources, options)
        check_writable(options.save_path)


def _check_single_file(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    count = len(sources) * todo.maps_per_picture
    kind = picture_format(options.save_path)
    if options.format and PICTURE_SUFFIXES[f".{options.format}"] != kind:
        raise UsageError(
            f"--save-path {options.save_path} and --format {options.format} name two formats: "
            "give one of them."
        )
    if count > 1:
        raise UsageError(
            f"--save-path {options.save_path} is one file, but {count} heatmaps are to be "
            "written: name a folder."
        )
    if any(_is_same_file(options.save_path, source.path) for source in sources):
        raise UsageError(
            f"--save-path {options.save_path} is the picture itself, which would be lost: "
            "name another file, or a folder."
        )


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _check_distinct_files(sources: Sequence[Source], options: Options) -> None:
    names = Counter(_output(source, "m", (), 0, "", options) for source in sources)
    doubled = {name for name, count in names.items() if count > 1}
    if doubled:
        same = [str(s) for s in sources if _output(s, "m", (), 0, "", options) in doubled]
        raise UsageError(
            f"{' and '.join(same[:2])} would write the same files: name the folder that holds "
            "them, or use a --save-path for each."
        )


def _is_file(save_path: Path) -> bool:
    return save_path.suffix.lower() in IMAGE_SUFFIXES


def _output(
    source: Source, method: str, layers: Sequence[str], category: int, text: str, options: Options
) -> Path:
    layer = layers[0] if len(layers) == 1 and options.layer_fusion == "none" else None
    name = output_name(source, method, category, text, format=options.format, layer=layer)
    return options.save_path / name


def _written(explanation: Explanation, todo: Plan, options: Options) -> Record:
    record, picture = explanation.record, explanation.picture
    if _is_file(options.save_path):
        path = options.save_path
    else:
        source = picture.source or Source(Path("picture"))
        several = len(todo.request.layers) > 1
        layers = record.layers if several else ()
        path = _output(source, record.method, layers, explanation.category, record.label, options)
    try:
        write_picture(explanation.overlay(options.alpha, options.colormap), path)
    except ImageError as error:
        return replace(record, error=str(error))
    outputs = [str(path)]
    if options.save_map:
        map_path = path.with_name(path.name + ".npy")
        write_map(explanation.sized_map(options.map_size), map_path)
        outputs.append(str(map_path))
    return replace(record, outputs=tuple(outputs))


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
