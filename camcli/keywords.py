"""Keywords that a public function does not take, and what they are called here.

People who come from other libraries write their words: grad-cam's `model`, `input_tensor` and
`target_layers`, torch-cam's `class_idx` and `scores`, captum's `inputs` and `target`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from camcli.errors import UnknownName, UsageError

P = ParamSpec("P")
R = TypeVar("R")

ORDINALS = ("first", "second", "third", "fourth")
POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD

MODEL = ("classifier", "module", "name")
PICTURES = ("inputs", "picture", "references")
CLASSES = ("target_category",)
# words of other libraries: what they may mean here, of which a function takes one at most
FOREIGN_WORDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("model", "net", "network", "nn_module", "backbone", "arch"), MODEL),
    **dict.fromkeys(("module", "classifier", "name", "model_name"), MODEL),
    **dict.fromkeys(("image", "images", "img", "imgs", "picture", "pictures"), PICTURES),
    **dict.fromkeys(("input", "inputs", "input_tensor", "input_image", "x", "batch"), PICTURES),
    **dict.fromkeys(("source", "sources", "files", "paths", "photo", "photos"), PICTURES),
    **dict.fromkeys(("path", "file", "filename"), (*PICTURES, "path")),
    **dict.fromkeys(("file_name", "save_path", "fname", "output", "out"), ("path",)),
    **dict.fromkeys(("layer", "layers", "target_layer", "layer_name"), ("target_layers",)),
    **dict.fromkeys(("class_idx", "class_index", "class_id", "classes", "category"), CLASSES),
    **dict.fromkeys(("target_class", "target_classes", "target_index", "label"), CLASSES),
    **dict.fromkeys(("categories", "class_names", "names"), ("labels", "target_category")),
    **dict.fromkeys(("methods", "cam", "algorithm", "explainer"), ("method",)),
    **dict.fromkeys(("topk", "k"), ("top_k",)),
    **dict.fromkeys(("transform", "transforms", "processor"), ("preprocessing",)),
    **dict.fromkeys(("input_size", "image_size", "input_shape", "size"), ("img_size",)),
    **dict.fromkeys(("weights", "weights_path", "ckpt", "state_dict"), ("checkpoint",)),
    **dict.fromkeys(("cmap", "color_map", "colourmap"), ("colormap",)),
    **dict.fromkeys(("opacity", "transparency"), ("alpha",)),
    **dict.fromkeys(("map", "mask", "cam_map", "attribution", "attributions"), ("heatmap",)),
    **dict.fromkeys(("text", "prompts", "prompt", "words"), ("texts",)),
    **dict.fromkeys(("use_cuda", "cuda", "gpu"), ("device",)),
    **dict.fromkeys(("threshold", "thr"), ("box_threshold", "share")),
    **dict.fromkeys(("shape", "resolution"), ("size",)),
    "aug": ("aug_smooth",),
    "explanation": ("explanations", "other"),
    "reference": ("references",),
}
# what other libraries are told and nobody is here
NOT_WANTED: Mapping[str, str] = {
    "scores": "Nothing is to be handed in: the pass is run here.",
    "input_shape": "Nothing is to be said of it: the inputs have a shape.",
    "reshape_transform": "Tokens are laid out as a grid by themselves: leave it out, or give "
    "vit_like and num_extra_tokens.",
    "image_weight": "Here it is alpha, which is 1 - image_weight.",
    "use_rgb": "Pictures are RGB here: leave it out.",
    "retain_graph": "Nothing of the pass is kept: leave it out.",
}


def check_keywords(hint: str = "", **synonyms: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function: a keyword that it does not take is refused, with the one that is meant.

    `synonyms` are other words for its parameters, and `hint` is said of words that nobody knows.
    An editor and mypy see the function's own signature.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = _Signature(function, hint)

        @wraps(function)
        def call_checked(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = {}
            for name, value in kwargs.items():
                parameter = synonyms.get(name, name)
                if parameter not in signature.parameters:
                    raise signature.refuse(len(args), [synonyms.get(k, k) for k in kwargs])
                if parameter in given:
                    raise UsageError(f"{name} and {parameter} are the same: give one of them.")
                given[parameter] = value
            return function(*args, **given)

        return call_checked

    return decorate


class _Signature:
    """What a function takes, and what is said of keywords that it does not."""

    def __init__(self, function: Callable[..., Any], hint: str) -> None:
        self.parameters = inspect.signature(function).parameters
        self.names = [name for name in self.parameters if name != "self"]
        # a class is called by its own name
        self.called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
        self.hint = hint

    def refuse(self, count: int, keywords: Sequence[str]) -> UnknownName:
        """Makes the error for keywords of which some are unknown, beside so many arguments."""
        first, *others = [name for name in keywords if name not in self.parameters]
        told = [self._advise(first) or self.hint]
        for name in others:
            told += [f"Unknown, too: {name!r}.", self._advise(name) or self.hint]
        meant = {self._find_meant(name) for name in (first, *others)}
        there = {*list(self.parameters)[:count], *keywords, *meant}
        missing = [f"`{name}`" for name in self._list_required() if name not in there]
        told += [f"Missing: {', '.join(missing)}."] if missing else []
        closest = () if self._advise(first) else self.names
        hints = " ".join(filter(None, dict.fromkeys(told)))
        return UnknownName(f"argument of {self.called}", first, closest, hints)

    def _advise(self, word: str) -> str | None:
        """Says what a word of another library is called here; None for a word that is nobody's."""
        meant = self._find_meant(word)
        if meant is None:
            return NOT_WANTED.get(word)
        place = self.names.index(meant)
        if self.parameters[meant].kind is POSITIONAL and place < len(ORDINALS):
            return f"Here it is the {ORDINALS[place]} argument, `{meant}`."
        return f"Here it is `{meant}`."

    def _find_meant(self, word: str) -> str | None:
        """Returns the parameter that a word of another library means, None where there is none."""
        return next((m for m in FOREIGN_WORDS.get(word.lower(), ()) if m in self.parameters), None)

    def _list_required(self) -> list[str]:
        empty = inspect.Parameter.empty
        return [name for name in self.names if self.parameters[name].default is empty]
