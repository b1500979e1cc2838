"""Names a picture's output; the name says what differs from another run's output of that name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from camcli.config import Options
from camcli.media.output_names import name_output
from camcli.pipeline.plan import Plan
from camcli.records import Record, Source
from camcli.utils.jsonable import encode_json

# what a name says about a run, before the class and behind it: field of the record -> words
IN_FRONT = {"model": "model", "parts": "parts", "layers": "layer", "layer_fusion": "fusion"}
BEHIND = {
    "options": "options", "smoothing": "smoothing", "precision": "precision",
    "colormap": "colour map", "alpha": "alpha", "drawing": "drawing", "beside": "map",
}  # fmt: skip


def output_path(
    source: Source,
    record: Record,
    layers: Sequence[str],
    plan: Plan,
    options: Options,
    differing: Mapping[str, str] | None = None,
) -> Path:
    """Returns the path of an overlay, or of a video's frame; `layers` are those it may name.

    `differing` holds further texts for the name, by the field of the record.
    """
    layer = layers[0] if len(layers) == 1 and options.layer_fusion == "none" else None
    name = name_output(
        source,
        record.method,
        record.category,
        record.label,
        format=options.format,
        layer=layer,
        target="_".join(_list_marks(record, plan)),
        frame=record.frame,
        value=record.value,
        **place_in_name(differing or {}),
    )
    return options.save_path / name


def place_in_name(differing: Mapping[str, str]) -> dict[str, list[str]]:
    """Sorts what a name says besides by its place: in front of the layer, or behind the class."""
    places = {"front": IN_FRONT, "behind": BEHIND}
    return {
        place: [differing[name] for name in fields if name in differing]
        for place, fields in places.items()
    }


def _list_marks(record: Record, plan: Plan) -> Iterator[str]:
    """Yields what a name says about the compared model, and about the target."""
    if record.compared_with:
        yield f"minus-{record.compared_with}"
    elif record.model and record.model != plan.classifier.name:
        yield record.model
    if record.target and plan.request.target.mark:
        yield plan.request.target.mark


@dataclass
class OutputName:
    """The name of an output, and its other name if another run already has the first one.

    `make` makes the name of a source and of what differs, by the record's field; `why` says what
    another name is for.
    """

    source: Source
    record: Record
    options: Options
    make: Callable[[Source, Mapping[str, str]], Path]
    why: str = field(default="", init=False)

    @cached_property
    def plain(self) -> Path:
        """The name in an empty folder."""
        return self.make(self.source, {})

    def rename(self, other: Mapping[str, Any] | None) -> Path:
        """Names the output by its differences from the other run's record."""
        if other is None:
            self.why = "the plain name belongs to another input, or to a file that no run wrote"
            return self.make(replace(self.source, has_namesake=True), {})
        differing, words = {}, []
        for name, said in {**IN_FRONT, **BEHIND}.items():
            own, theirs = getattr(self.record, name), other.get(name)
            if name == "beside" and theirs is not None:
                own, theirs = _list_conflicts(own, theirs)
            # parts have their layers, and maps of single layers are named by them
            if name == "layers" and ("parts" in differing or self.options.layer_fusion == "none"):
                continue
            text, their_text = _describe(name, own), _describe(name, theirs)
            # a line of an older version does not have it
            if theirs is not None and text and text != their_text:
                differing[name] = text
                words.append(f"there {said} {their_text or 'none'}, here {text}")
        self.why = f"the plain name is another run's ({', '.join(words) or OTHER_OPTIONS})"
        return self.make(self.source, differing)

    def find_reason(self, path: Path) -> str:
        """Says why the output does not have its plain name; empty if it has it."""
        if path == self.plain:
            return ""
        return self.why or "the plain name was another run's"


def _list_conflicts(
    own: Mapping[str, str], theirs: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Lists how files beside a picture are made that would have one name, and are others."""
    shared = [ending for ending in own if theirs.get(ending, own[ending]) != own[ending]]
    return [own[ending] for ending in shared], [theirs[ending] for ending in shared]


OTHER_OPTIONS = "other options, for which the mark stands"


def _describe(name: str, value: Any) -> str:
    """Returns a value of a record as a part of a name."""
    if name == "alpha":
        return "" if value is None else f"alpha{value if isinstance(value, str) else f'{value:g}'}"
    if isinstance(value, Mapping):
        pairs = ((key, value[key]) for key in value)
        return "+".join(key if v is True else f"{key}={v}" for key, v in pairs)
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return str(value or "")


# how an overlay is drawn, besides its colours
DRAWING = ("outside", "caption", "boxes", "contour", "box_threshold")


def list_drawing_options(options: Options) -> dict[str, Any]:
    """Returns the drawing options that are not the defaults, by name."""
    given = {name: getattr(options, name) for name in DRAWING}
    defaults = Options.model_fields
    return {name: value for name, value in given.items() if value != defaults[name].default}


# options that choose pictures, or that a record holds itself
ELSEWHERE = frozenset(
    {
        "method", "top_k", "threshold", "target_category", "target_layers", "layer_fusion",
        "combine", "best_for", "set", "combined", "layers", "apart", "format", "save_map",
        "map_size", "map_outside", "save_mask", "mask_percentile",
    }
)  # fmt: skip


def digest_shared_options(configuration: Mapping[str, Any]) -> str:
    """Returns a digest of the options that make all pictures of a run.

    It is empty if they depend on more.  They do if pictures share a scale, and so depend on each
    other, or are compared with files.
    """
    if configuration["scale"] == "run" or configuration["like"]:
        return ""
    return _digest({name: v for name, v in configuration.items() if name not in ELSEWHERE})


def make_recipe(shared: str, record: Record) -> str:
    """Returns the digest of everything that makes a picture; empty for a frame.

    `shared` is the digest of the options of all pictures; if it is empty, so is the result.
    """
    if not shared or record.frame is not None:
        return ""
    own = [
        shared, record.picture_size, record.view, record.method, record.layers,
        record.layer_fusion, record.parts, record.combination, record.options, record.category,
        record.label, record.target, record.contrast, record.model, record.compared_with,
    ]  # fmt: skip
    return _digest(own)


def _digest(value: Any) -> str:
    text = encode_json(value, sort_keys=True)
    return blake2b(text.encode("ascii"), digest_size=6).hexdigest()
