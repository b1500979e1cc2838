"""Explanations in one figure, which shows itself in a notebook and writes itself to files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli.errors import UsageError
from camcli.keywords import check_keywords
from camcli.pipeline.sheets.arrangement import arrange
from camcli.pipeline.sheets.items import list_items
from camcli.pipeline.sheets.sheet_files import write_sheet
from camcli.render.colormap import ColormapLike
from camcli.render.overlay import Alpha
from camcli.render.sheet_layout import PAGE_HEIGHT, Page, lay_out
from camcli.render.sheet_painting import write_png

if TYPE_CHECKING:
    from camcli.pipeline.explanation import Explanation


class Sheet:
    """Explanations side by side: pictures x methods, classes, layers or models.

    The original stands first in each row. What several maps of a picture differ in makes the
    columns: the model, else the layer, else the method, else the class; what else they differ in
    makes rows. A colour bar below each map has the raw values at its ends, or one below all where
    they share a scale. A notebook shows a sheet as a picture.

    Args:
        explanations: Those of `explain`, or some of them, or one.
        alpha: How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.
        colormap: jet, turbo, viridis, inferno, ...; default jet. Or a colour map of matplotlib, a
            table of 256 colours [256 3], or a function of levels 0..1 to colours.

    Raises:
        UsageError: No explanation, an alpha that is no share, or no colour map.
        UnknownName: A colour map that nobody knows.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> photo = "demo_images/cat_and_coffee.jpg"
        >>> sheet = camcli.Sheet(camcli.explain(classifier, photo, ["gradcam", "layercam"]))
        >>> sheet
        <Sheet of 2 maps: 1 row, 3 columns>
        >>> sheet.save("methods.png")
        (PosixPath('methods.png'),)
    """

    @check_keywords()
    def __init__(
        self,
        explanations: Iterable[Explanation] | Explanation,
        alpha: Alpha = 0.5,
        colormap: ColormapLike = "jet",
    ) -> None:
        if not isinstance(explanations, Iterable):
            explanations = [explanations]
        items = list_items(list(explanations), alpha, colormap)
        if not items:
            raise UsageError("A sheet takes one explanation or more, and there is none.")
        self._count = len(items)
        self._arrangement = arrange(items)

    @check_keywords()
    def save(self, path: str | Path) -> tuple[Path, ...]:
        """Writes the sheet, 8.5 or 17.8 cm wide, and returns its files.

        Args:
            path: A file that ends in .png, .svg or .pdf; the last two are drawn with matplotlib
                (the extra `figures`). What is higher than a page goes on in the next one: of a
                PDF, or in `NAME-2.png` and so on. A sheet that stands there is replaced.

        Raises:
            UsageError: Another suffix, matplotlib that is missing, or a file that is no sheet.
            OutputError: A place that cannot be written to.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> explanations = camcli.explain(classifier, "demo_images/chelsea.png", top_k=3)
            >>> camcli.Sheet(explanations, alpha="auto").save("classes.png")
            (PosixPath('classes.png'),)
        """
        return write_sheet(self._lay_out(PAGE_HEIGHT), Path(path))

    @check_keywords()
    def figure(self) -> Any:
        """Draws the sheet as one figure of matplotlib, however high, which can be drawn on.

        Raises:
            UsageError: Matplotlib is not installed.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> explanations = camcli.explain(classifier, "demo_images/chelsea.png", top_k=3)
            >>> figure = camcli.Sheet(explanations).figure()
            >>> [round(2.54 * float(inches), 1) for inches in figure.get_size_inches()]
            [8.5, 3.0]
        """
        from camcli.render.sheet_vectors import make_figure

        (page,) = self._lay_out(None)
        return make_figure(page)

    def _lay_out(self, height: int | None) -> Iterator[Page]:
        sheet = self._arrangement
        return lay_out(sheet.list_rows(), sheet.grid, sheet.notes, sheet.bar, height=height)

    def _repr_png_(self) -> bytes:
        (page,) = self._lay_out(None)
        return write_png(page)

    def __repr__(self) -> str:
        rows, columns = len(self._arrangement.rows), len(self._arrangement.rows[0]) + 1
        maps = f"{self._count} map{'' if self._count == 1 else 's'}"
        return f"<Sheet of {maps}: {rows} row{'' if rows == 1 else 's'}, {columns} columns>"
