"""Compares what a model embeds with other embeddings, so that likeness stands where logits do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.errors import ModelError
from camcli.models.outputs.logits import OutputKey, describe_output, select_output
from camcli.models.state import in_this_thread, list_modules, locks_model, preserve_state, unwrap
from camcli.records import Likeness

NORMS = {"l1": 1, "l2": 2}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Embeddings [k d] that a picture's is compared with, and how.

    `layer` is the classifier whose input is the embedding; without one it is the model's output.
    """

    references: Tensor
    likeness: Likeness = "cosine"
    layer: str = ""
    scale: float = 1.0
    bias: float = 0.0

    def compare(self, embeddings: Tensor) -> Tensor:
        """Returns how alike embeddings and references are: cosines, or distances below zero.

        [b d] -> [b k].  Raises ModelError for embeddings of another length.
        """
        references = self.references.to(embeddings.device)
        if embeddings.shape[1] != references.shape[1]:
            raise ModelError(
                f"The model embeds this picture in {embeddings.shape[1]} numbers and the reference"
                f" in {references.shape[1]}: pictures of one size are compared."
            )
        if self.likeness == "cosine":
            alike = F.normalize(embeddings, dim=1) @ F.normalize(references, dim=1).T
        else:
            alike = -torch.cdist(embeddings, references, NORMS[self.likeness])
        return alike * self.scale + self.bias


class EmbeddingWatch:
    """Sees the embedding in a pass: what the classifier is given, or what the model puts out."""

    def __init__(self, layer: str, key: OutputKey | None) -> None:
        self.layer, self.key = layer, key
        self._given: Tensor | None = None

    @contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Watches the classifier's input within its block."""
        if not self.layer:
            yield
            return

        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._given = args[0]

        handle = module.get_submodule(self.layer).register_forward_pre_hook(in_this_thread(note))
        try:
            yield
        finally:
            handle.remove()

    def read(self, output: Any) -> Tensor:
        """Returns the embedding of each picture as float32; raises ModelError.  -> [b d]"""
        given = self._given if self.layer else select_output(output, self.key)
        self._given = None
        if not isinstance(given, Tensor) or given.ndim < 2:
            raise ModelError(
                f"The model returned {describe_output(output)}, and no embedding [b d]: "
                "--output-key (in Python output_key) says which part of it is one."
            )
        maps = given.float()
        if maps.ndim == 3:
            # tokens, of which the classifier reads each
            return maps.mean(1)
        # what is pooled behind a classifier of 1x1
        return maps.flatten(2).mean(2) if maps.ndim > 3 else maps


@contextmanager
def apply_comparison(
    module: nn.Module, comparison: Comparison, key: OutputKey | None
) -> Iterator[None]:
    """Lets a model return, in its block, how alike its embedding is to each reference."""
    watch = EmbeddingWatch(comparison.layer, key)

    def read(_: nn.Module, __: Any, output: Any) -> Tensor:
        return comparison.compare(watch.read(output))

    with watch.watch(module), module.register_forward_hook(in_this_thread(read)):
        yield


@locks_model
def embed(
    module: nn.Module, inputs: Tensor, layer: str = "", key: OutputKey | None = None
) -> Tensor:
    """Returns the embeddings of a batch.  [b c H W] -> [b d]

    They are the input of the classifier `layer`, or without one the output, at `key` in it.
    """
    inner, watch = unwrap(module), EmbeddingWatch(layer, key)
    with torch.inference_mode(False), torch.no_grad(), preserve_state(inner), watch.watch(inner):
        return watch.read(inner(inputs))


@locks_model
def find_classifier_layer(module: nn.Module, inputs: Tensor, num_classes: int) -> str:
    """Names the layer that puts out a class's number each; "" where there is none.  [b c H W]"""
    inner, called = unwrap(module), list[str]()
    names = {m: name for name, m in inner.named_modules(remove_duplicate=False)}

    def note(m: nn.Module, _: Any, __: Any) -> None:
        called.append(names[m])

    linear = [
        m
        for m in list_modules(inner)
        if isinstance(m, nn.Linear | nn.Conv2d) and len(m.weight) == num_classes
    ]
    handles = [m.register_forward_hook(in_this_thread(note)) for m in linear]
    try:
        with torch.inference_mode(False), torch.no_grad(), preserve_state(inner):
            inner(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return called[-1] if called else ""
