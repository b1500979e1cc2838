"""A picture's heatmap with what it explains, and how it is drawn and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from camcli.errors import MethodError, OutputError
from camcli.media.pictures.formats import PICTURE_SUFFIXES
from camcli.media.pictures.read import PictureLike, make_picture
from camcli.media.pictures.write import write_map, write_picture
from camcli.methods import postprocessing
from camcli.records import Box, Concept, Heatmap, Picture, Record
from camcli.registry import depends_on_category
from camcli.render import overlay as drawing
from camcli.render.concepts import overlay_concepts
from camcli.render.pixels import draw_on_grey
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Explanation:
    """One heatmap of one picture, what it explains, and how sure the model was of it."""

    picture: Picture
    view: Box
    record: Record
    map: Heatmap
    input_size: tuple[int, int]
    details: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """The raw map [h w], signed and not normalised."""
        return self.map.values

    @property
    def method(self) -> str:
        """The method's name."""
        return self.map.method

    @property
    def category(self) -> int | None:
        """The explained class's index, None for a model without classes."""
        return self.map.category

    @property
    def label(self) -> str:
        """The explained class's name."""
        return self.record.label

    @property
    def probability(self) -> float | None:
        """The explained class's softmax probability, 0..1; None for a model without classes."""
        return self.record.probability

    @property
    def value(self) -> float | None:
        """What a model of values puts out; None for one of classes."""
        return self.record.value

    @property
    def is_signed(self) -> bool:
        """Whether the map says what raises a value and what lowers it, and is drawn so."""
        return self.value is not None and bool(self.record.target)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the map, in words; empty where nothing is."""
        return self.record.warnings

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The concepts that a method tells apart, the strongest first; empty for most methods."""
        return self.record.concepts

    @stage("draw")
    def overlay(
        self, alpha: float = 0.5, colormap: str = "jet", scale: drawing.Scale | None = None
    ) -> NDArray[np.uint8]:
        """Draws the heatmap on the original picture.  -> RGB [h w 3]

        The colours go from the map's own least to most heat, or between the raw values of a
        `scale`.  Concepts, where there are some, are drawn in colours of their own, above a legend;
        the map of a value in red where it raises the value, and in blue where it lowers it.
        """
        if self.concepts:
            strengths = self.details["concepts"]
            return overlay_concepts(self.picture, strengths, self.concepts, alpha, box=self.view)
        box, signed = self.view, self.is_signed
        return drawing.overlay(
            self.picture, self.map, alpha, colormap, box=box, scale=scale, signed=signed
        )

    @stage("draw")
    def pixels(self) -> NDArray[np.uint8]:
        """Draws what each pixel of the network's input counts, zero in grey.  -> RGB [H W 3]

        Raises MethodError for a method that does not tell.
        """
        if "pixels" not in self.details:
            raise MethodError(
                f"{self.method} gives a map, and nothing for single pixels: guidedbackprop and"
                " guidedgradcam do."
            )
        return draw_on_grey(self.details["pixels"])

    @stage("draw")
    def sized_map(self, size: str) -> NDArray[np.float32]:
        """Returns the raw map at the layer's, the network input's or the picture's size."""
        if size == "image":
            return drawing.resize_map(self.heatmap, self.view, self.picture.size)
        if size == "input":
            enlarged: NDArray[np.float32] = postprocessing.enlarge(
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
            write_picture(self.overlay(), path, self.picture.profile)
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
    signed: bool = False,
) -> NDArray[np.uint8]:
    """Draws a raw heatmap on a picture, inside the box that it shows (all of it).  -> RGB [h w 3]

    The picture is a path, PIL picture, array or tensor.  A `signed` map, that of a value, is red
    above zero and blue below.  Raises ImageError or UsageError.
    """
    pixels = make_picture(picture)
    return drawing.overlay(pixels, heatmap, alpha, colormap, box=box, signed=signed)


def explain_empty(
    values: NDArray[np.float32], method: str = "gradcam", layers: int = 1, *, signed: bool = False
) -> Iterator[str]:
    """Says why a raw map [h w] shows nothing, with the likely cause; nothing where it does show.

    A map of several layers is empty where one of them is, or where they do not meet; a map of none
    is one of the whole network.  A signed map shows what is below zero, too.
    """
    raw, asks_class = torch.from_numpy(values), depends_on_category(method)
    seen = "this layer" if layers else "the picture"
    # more than constant above zero, which a drawn map stretches
    if postprocessing.has_contrast(raw.relu()) or (
        signed and postprocessing.scale_signed(raw).any()
    ):
        return
    if not raw.isfinite().all():
        yield "the map is not finite: activations or gradients overflowed (half precision?)"
    elif not raw.any() and layers > 1:
        yield (
            "the layers' maps together are zero everywhere: one or all of them are empty, or no "
            "place is hot in each; --layer-fusion none shows them one by one"
        )
    elif not raw.any() and asks_class:
        yield (
            f"the map is zero everywhere: the score does not depend on {seen} (a dead layer, a "
            "head that is zero, a layer behind the last attention, or a probability of 0 or 1), or "
            "the layer says the same everywhere"
        )
    elif not raw.any():
        yield f"the map is zero everywhere: {seen} is dead, or says the same everywhere"
    elif raw.max() <= 0 and asks_class:
        yield f"the map is negative everywhere: {seen} speaks against the class at every place"
    elif raw.max() <= 0:
        yield "the map is negative everywhere, and only what is above zero is drawn"
    else:
        choice = "; choose an earlier one" if layers else ""
        yield f"the map is constant: {seen} says the same everywhere{choice}"
