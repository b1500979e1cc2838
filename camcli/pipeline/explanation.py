"""A picture's heatmap with everything that is known about it; it can be drawn and saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from camcli.errors import MethodError, OutputError, UsageError
from camcli.keywords import check_keywords
from camcli.media.map_files import write_map
from camcli.media.pictures.output_formats import PICTURE_SUFFIXES
from camcli.media.pictures.read import PictureLike, make_picture
from camcli.media.pictures.write import write_picture
from camcli.method_terms import BEST, COMBINED
from camcli.methods import postprocessing
from camcli.records import Box, Concept, Heatmap, Outside, Picture, Record
from camcli.registry import depends_on_category
from camcli.render import overlay as drawing
from camcli.render.boxes import Which, boxes_of, find_regions, hot_mask, percentile_mask
from camcli.render.colormap import ColormapLike
from camcli.render.concepts import overlay_concepts
from camcli.render.finish import add_caption, show_outside
from camcli.render.overlay import Alpha
from camcli.render.pixels import draw_on_grey
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Explanation:
    """One heatmap of one picture, what it explains, and how sure the model was of that.

    `explain` yields them.  A notebook shows it as its overlay, with a line and a colour bar.

    Attributes:
        picture: The original picture.
        view: The part of it that the network saw, in its pixels.
        record: Everything that is known about the heatmap, as in the command's manifest.
        map: The heatmap with its method, layers and class.
        input_size: The network input's height and width, in pixels.
        details: Further float32 arrays that the method computes, by name.
        scale: The raw values that are drawn as no heat and as full heat; None for the map's own.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> (e,) = camcli.explain(classifier, "demo_images/cat_and_coffee.jpg", method="layercam")
        >>> e.method, e.label, round(e.probability, 2), e.map.layers, e.warnings
        ('layercam', 'espresso', 0.34, ('features',), ())
    """

    picture: Picture
    view: Box
    record: Record
    map: Heatmap
    input_size: tuple[int, int]
    details: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    scale: drawing.Scale | None = None

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
        """The explained value of a model of values; None for a model of classes."""
        return self.record.value

    @property
    def is_signed(self) -> bool:
        """Whether the map shows what raises a value and what lowers it, in two colours.

        The difference of two maps is signed, too.
        """
        return self.record.is_signed

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the map, in words; empty if nothing is."""
        return self.record.warnings

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The concepts that the method separates, the strongest first; empty for most methods."""
        return self.record.concepts

    @check_keywords()
    @stage("draw")
    def overlay(
        self,
        alpha: Alpha = 0.5,
        colormap: ColormapLike = "jet",
        scale: drawing.Scale | None = None,
        *,
        boxes: Which | None = None,
        box_threshold: float = 0.2,
        contour: bool = False,
        outside: Outside = "dim",
        caption: bool = False,
    ) -> NDArray[np.uint8]:
        """Draws the heatmap on the original picture.  -> uint8 RGB [h w 3]

        If there are concepts, each has its own colour, with a legend below. The map of a value is
        red where it raises the value, and blue where it lowers it. The command line writes these
        pixels.

        Args:
            alpha: How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.
            colormap: jet, turbo, viridis, inferno, ...; default jet. Or a colour map of matplotlib,
                a table of 256 colours [256 3], or a function of levels 0..1 to colours.
            scale: The raw values (low, high) that are drawn as no heat and as full heat; default
                the explanation's own scale, or the map's lowest and highest value.
            boxes: Draw boxes around what is hot: the largest region's, or all; default none.
            box_threshold: What is hot: above this share of the map's maximum; default 0.2.
            contour: Draw the outline of what is hot.
            outside: What the network did not see of the picture: dim, keep (as it is) or crop
                (away); default dim.
            caption: Write the class and its probability below the picture, or each frame of a
                video.

        Raises:
            UsageError: An alpha outside 0..1, another outside, or an invalid scale, threshold or
                colour map.
            UnknownName: A colour map that nobody knows.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> (e,) = camcli.explain(classifier, "demo_images/cat_and_coffee.jpg")
            >>> e.overlay(alpha="auto", boxes="largest").shape
            (400, 600, 3)
        """
        if self.concepts:
            strengths = self.details["concepts"]
            drawn = overlay_concepts(self.picture, strengths, self.concepts, alpha, box=self.view)
        else:
            box, signed = self.view, self.is_signed
            scale = scale or self.scale
            drawn = drawing.overlay(
                self.picture, self.map, alpha, colormap, box=box, scale=scale, signed=signed
            )
        if boxes is not None or contour:
            heat = self.sized_map("image")
            drawn = find_regions(heat, box_threshold, boxes, contour=contour).draw(drawn)
        drawn = show_outside(drawn, self.picture.canvas, self.view, outside)
        if not caption:
            return drawn
        from camcli.pipeline.sheets.arrangement import describe_class

        return add_caption(drawn, describe_class(self.record))

    @check_keywords()
    def box(self, box_threshold: float = 0.2) -> Box | None:
        """Finds the box around the largest hot region, in the picture's pixels.

        Args:
            box_threshold: What is hot: above this share of the map's maximum; default 0.2.

        Returns:
            The box, whose right and bottom edge lie outside; None where nothing is hot.

        Raises:
            UsageError: A threshold that is no share below 1.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> (e,) = camcli.explain(classifier, "demo_images/cat_and_coffee.jpg")
            >>> e.box(box_threshold=0.5)
            Box(left=320, top=25, right=475, bottom=244)
        """
        hot = boxes_of(self.sized_map("image"), box_threshold)
        return hot[0].box if hot else None

    @check_keywords()
    def compare(
        self, other: Explanation, *, own_scales: bool = False
    ) -> tuple[Explanation, Explanation, Explanation]:
        """Puts this map and another one of the picture on one scale, and takes that from this.

        Args:
            other: An explanation of the same picture, by another model, method or class.
            own_scales: Whether each map is drawn by its own maximum, and the difference is that of
                the shares of it; default one scale of raw values.

        Returns:
            This explanation and the other on their scale, and their difference: red where this map
            is the stronger one, blue where the other is.

        Raises:
            UsageError: An explanation of a picture of another size.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> photo = "demo_images/cat_and_coffee.jpg"
            >>> one, other = camcli.explain(classifier, photo, ["gradcam", "layercam"])
            >>> first, second, difference = one.compare(other)
            >>> first.scale == second.scale == (0.0, float(other.heatmap.max()))
            True
            >>> camcli.Sheet([first, second, difference])
            <Sheet of 3 maps: 1 row, 4 columns>
        """
        from camcli.pipeline.comparison.map_comparison import compare_maps

        return compare_maps(self, other, own_scales=own_scales)

    @check_keywords()
    def figure(self, alpha: Alpha = 0.5, colormap: ColormapLike = "jet") -> Any:
        """Draws the original, the overlay and a colour bar as a figure of matplotlib.

        Args:
            alpha: How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.
            colormap: jet, turbo, viridis, inferno, ...; default jet. Or a colour map of matplotlib,
                a table of 256 colours [256 3], or a function of levels 0..1 to colours.

        Raises:
            UsageError: Matplotlib is not installed, or an alpha outside 0..1.
            UnknownName: A colour map that nobody knows.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> (e,) = camcli.explain(classifier, "demo_images/cat_and_coffee.jpg")
            >>> e.figure().savefig("figure.pdf")
        """
        from camcli.pipeline.sheets.sheet import Sheet

        return Sheet([self], alpha, colormap).figure()

    @check_keywords()
    @stage("draw")
    def pixels(self) -> NDArray[np.uint8]:
        """Draws the contribution of each input pixel, zero in grey.  -> uint8 RGB [H W 3]

        Raises:
            MethodError: A method without pixel values; guidedbackprop and guidedgradcam have them.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> (e,) = camcli.explain(classifier, "demo_images/cat_and_coffee.jpg", "guidedgradcam")
            >>> e.pixels().shape
            (224, 224, 3)
        """
        if "pixels" not in self.details:
            raise MethodError(
                f"{self.method} gives a map, and no values of single pixels: guidedbackprop and "
                "guidedgradcam do."
            )
        return draw_on_grey(self.details["pixels"])

    @check_keywords()
    @stage("draw")
    def sized_map(
        self,
        size: Literal["layer", "input", "image"],
        outside: Literal["nan", "zero"] = "nan",
    ) -> NDArray[np.float32]:
        """Returns the raw map [h w] at the layer's, the network input's or the picture's size.

        Args:
            size: The raw map's size: layer, input or image.
            outside: What a map of the picture's size has outside the network's view: nan or zero;
                default nan.

        Raises:
            UsageError: Another size, or another word for what lies outside.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> (e,) = camcli.explain(classifier, "demo_images/cat_and_coffee.jpg")
            >>> [e.sized_map(size).shape for size in ("layer", "input", "image")]
            [(7, 7), (224, 224), (400, 600)]
        """
        if outside not in ("nan", "zero"):
            raise UsageError(f"A map has nan or zero outside the view, not {outside!r}.")
        if size == "image":
            fill = math.nan if outside == "nan" else 0.0
            return drawing.resize_map(self.heatmap, self.view, self.picture.size, fill)
        if size == "input":
            enlarged: NDArray[np.float32] = postprocessing.enlarge(
                torch.from_numpy(self.heatmap), self.input_size
            ).numpy()
            return enlarged
        if size != "layer":
            raise UsageError(f"A map's size is layer, input or image, not {size!r}.")
        return self.heatmap

    @check_keywords()
    @stage("draw")
    def mask(self, share: float = 0.5, *, percentile: float | None = None) -> NDArray[np.bool_]:
        """Tells which pixels of the picture are hot; none is outside the view.  -> bool [h w]

        Args:
            share: A pixel is hot above this share of the map's maximum, from 0 to below 1; default
                0.5.
            percentile: In its place a percentile of the map, as the picture's size has it in the
                view, from 0 to below 100; what is hot is above it, and above zero.

        Raises:
            UsageError: A share or a percentile that is none.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> (e,) = camcli.explain(classifier, "demo_images/cat_and_coffee.jpg")
            >>> e.mask(0.5).shape, round(float(e.mask(percentile=90).mean()), 3)
            ((400, 600), 0.051)
        """
        values = self.sized_map("image")
        if percentile is not None:
            return percentile_mask(values, percentile)
        return hot_mask(values, share)

    @check_keywords()
    def save(self, path: str | Path, alpha: Alpha = 0.5, colormap: ColormapLike = "jet") -> Path:
        """Writes the raw map (.npy) or the overlay (an image suffix), and returns the path.

        Args:
            path: The file; an existing one is replaced.
            alpha: How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.
            colormap: jet, turbo, viridis, inferno, ...; default jet. Or a colour map of matplotlib,
                a table of 256 colours [256 3], or a function of levels 0..1 to colours.

        Raises:
            OutputError: Another suffix, or a place that cannot be written to.
            UsageError: An alpha outside 0..1.
            UnknownName: A colour map that nobody knows.
            ImageError: A picture that is too large for its format.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> for e in camcli.explain(classifier, "demo_images/cat_and_coffee.jpg", top_k=2):
            ...     print(e.save(f"{e.category}.npy"), e.save(f"{e.category}.png"))
            967.npy 967.png
            285.npy 285.png
        """
        path = Path(path)
        if path.suffix.lower() == ".npy":
            write_map(self.heatmap, path)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            write_picture(self.overlay(alpha, colormap), path, self.picture.profile)
        else:
            raise OutputError(f"{path} ends neither in .npy (raw map) nor in an image suffix.")
        return path

    def _repr_png_(self) -> bytes:
        from camcli.pipeline.sheets.notebook import make_png

        return make_png(self)

    def _repr_html_(self) -> str:
        from camcli.pipeline.sheets.notebook import make_html

        return make_html(self)

    def __repr__(self) -> str:
        from camcli.pipeline.sheets.notebook import describe

        return f"<Explanation: {describe(self)}>"


@check_keywords()
def overlay(
    picture: PictureLike,
    heatmap: drawing.MapLike,
    alpha: Alpha = 0.5,
    colormap: ColormapLike = "jet",
    *,
    box: Box | None = None,
    signed: bool = False,
) -> NDArray[np.uint8]:
    """Draws a raw heatmap on a picture, inside the box that it shows.  -> uint8 RGB [h w 3]

    A pixel inside the box is (1 - alpha) * picture + alpha * colour; outside it the picture is
    dimmed. A map without heat leaves the picture as it is.

    Args:
        picture: A path, a PIL picture, an array [h w 3] or a tensor [3 h w].
        heatmap: A raw map [h w], of any size.
        alpha: How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.
        colormap: jet, turbo, viridis, inferno, ...; default jet. Or a colour map of matplotlib, a
            table of 256 colours [256 3], or a function of levels 0..1 to colours.
        box: The part of the picture that the map shows, in the picture's pixels; default all of it.
        signed: Whether the map is that of a value, red above zero and blue below; default a map of
            heat, whose negative part is not drawn.

    Raises:
        UsageError: A map of another shape, an alpha outside 0..1, or an invalid colour map.
        UnknownName: A colour map that nobody knows.
        ImageError: A picture that cannot be read.

    Example:
        >>> import camcli, numpy
        >>> heatmap = numpy.array([[0.0, 1.0], [0.0, 0.0]])
        >>> camcli.overlay("demo_images/cat_and_coffee.jpg", heatmap, colormap="turbo").shape
        (400, 600, 3)
    """
    pixels = make_picture(picture)
    return drawing.overlay(pixels, heatmap, alpha, colormap, box=box, signed=signed)


def explain_empty(
    values: NDArray[np.float32], method: str = "gradcam", layers: int = 1, *, signed: bool = False
) -> Iterator[str]:
    """Yields why a raw map [h w] shows nothing, with the likely cause; nothing if it shows heat.

    `layers` is the number of layers that the map is made of.  A map of several layers is empty if
    one of them is, or if their heat does not overlap; with 0 the map is one of the whole network.
    A `signed` map also shows values below zero.
    """
    raw, is_combined = torch.from_numpy(values), method in (BEST, COMBINED)
    asks_class = is_combined or depends_on_category(method)
    seen = "this layer" if layers else "the picture"
    # not constant above zero, so that drawing can stretch it
    if postprocessing.has_contrast(raw.relu()) or (
        signed and postprocessing.scale_signed(raw).any()
    ):
        return
    if not raw.isfinite().all():
        yield "the map is not finite: activations or gradients overflowed (half precision?)"
    elif not raw.any() and is_combined:
        yield (
            "the combination of the maps is zero everywhere: at least one of them is empty, or no "
            "place is hot in all of them; look at each method alone, with --target-layers"
        )
    elif not raw.any() and layers > 1:
        yield (
            "the fused map of the layers is zero everywhere: at least one layer's map is empty, "
            "or no place is hot in all of them; --layer-fusion none shows them one by one"
        )
    elif not raw.any() and asks_class:
        yield (
            f"the map is zero everywhere: the score does not depend on {seen} (a dead layer, a "
            "head of zeros, a layer behind the last attention, or a probability of 0 or 1), or "
            "the output of the layer is the same everywhere"
        )
    elif not raw.any():
        yield f"the map is zero everywhere: {seen} is dead, or the same everywhere"
    elif raw.max() <= 0 and asks_class:
        yield f"the map is negative everywhere: {seen} speaks against the class at every place"
    elif raw.max() <= 0:
        yield "the map is negative everywhere, and only values above zero are drawn"
    else:
        choice = "; choose an earlier one" if layers else ""
        yield f"the map is constant: {seen} says the same everywhere{choice}"
