"""Writes explanations to files, and makes a record of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.config import Options
from camcli.errors import CamvizError, ImageError
from camcli.media.map_files import MAP_ENDINGS, name_mask, write_map, write_mask
from camcli.media.output_names import name_output
from camcli.media.output_place import is_file
from camcli.media.pictures.write import write_picture
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.plan import Plan
from camcli.pipeline.run_state import OutputClaim, OutputPlaces
from camcli.pipeline.writing.color_scale import ColorScales
from camcli.pipeline.writing.output_naming import (
    OutputName,
    list_drawing_options,
    make_recipe,
    output_path,
)
from camcli.records import FileStamp, Picture, Record, Source
from camcli.registry import ALL
from camcli.render.boxes import NO_REGIONS, HotRegions, find_regions
from camcli.render.finish import add_caption, show_outside
from camcli.render.pixels import lay_pixels
from camcli.utils.profiling import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from camcli.pipeline.sheets.items import SheetItem

# a file beside an overlay has the overlay's name with one of these endings
PIXELS = ".pixels.png"


def find_source(picture: Picture) -> Source:
    """Returns a picture's source; a picture from Python has only a name."""
    return picture.source or Source(Path("picture"))


@dataclass(frozen=True)
class OutputWriter:
    """Writes the heatmaps of pictures; no output overwrites another run's."""

    plan: Plan
    options: Options
    state: OutputPlaces
    scales: ColorScales

    def write(self, explanations: Sequence[Explanation]) -> Iterator[Record]:
        """Writes the heatmaps of one picture; yields a record for each; raises OutputError.

        If a heatmap cannot be drawn, or its format cannot hold it, its record has the reason.
        """
        if self.plan.on_sheets:
            yield from self._write_sheets(explanations)
            return
        for explanation in explanations:
            yield self._write(explanation)

    def _write(self, explanation: Explanation) -> Record:
        path, record = self._place(explanation, self.make_record(explanation))
        files: dict[str, FileStamp] = {}
        try:
            regions, profile = self.find_regions(explanation), explanation.picture.profile
            record = self.note_boxes(record, regions)
            drawn = self.draw(explanation, regions)
            files[str(path)] = write_picture(drawn, path, profile)
            files.update(self.write_sidecars(explanation, path))
        except (ImageError, MemoryError) as error:
            # names of existing files are known, too
            record = replace(record, error=describe_failure(error, path))
        return replace(record, outputs=tuple(files), files=files)

    def draw(self, explanation: Explanation, regions: HotRegions) -> NDArray[np.uint8]:
        """Draws a heatmap as the options say, with what is hot and its caption.  -> RGB [H W 3]"""
        drawn = self._draw_heat(explanation, regions)
        if not self.options.caption:
            return drawn
        from camcli.pipeline.sheets.arrangement import describe_class

        with stage("draw"):
            return add_caption(drawn, describe_class(explanation.record))

    def _draw_heat(self, explanation: Explanation, regions: HotRegions) -> NDArray[np.uint8]:
        alpha, colormap = self.options.alpha, self.options.colormap
        drawn = explanation.overlay(alpha, colormap, self.scales.of(explanation))
        # boxes lie where the whole picture has them
        return self._show_outside(regions.draw(drawn), explanation)

    def _show_outside(
        self, drawn: NDArray[np.uint8], explanation: Explanation
    ) -> NDArray[np.uint8]:
        canvas, outside = explanation.picture.canvas, self.options.outside
        return show_outside(drawn, canvas, explanation.view, outside)

    def find_regions(self, explanation: Explanation) -> HotRegions:
        """Finds the hot regions, if the options ask for boxes or outlines."""
        options = self.options
        if options.boxes is None and not options.contour:
            return NO_REGIONS
        heat = explanation.sized_map("image")
        with stage("draw"):
            return find_regions(heat, options.box_threshold, options.boxes, contour=options.contour)

    def note_boxes(self, record: Record, regions: HotRegions) -> Record:
        """Returns the record with the boxes that the options ask for."""
        if self.options.boxes is None:
            return record
        return replace(record, boxes=regions.boxes, box_threshold=self.options.box_threshold)

    def make_record(self, explanation: Explanation) -> Record:
        """Returns a heatmap's record with how it is drawn."""
        has_own_colours = explanation.is_signed or explanation.concepts
        return replace(
            explanation.record,
            # maps of a compared model have that model's weights
            weights=explanation.record.weights or self.state.weights,
            scale=self.scales.of(explanation),
            colormap="" if has_own_colours else self.options.colormap,
            alpha=self.options.alpha,
            drawing=list_drawing_options(self.options),
        )

    def _place(self, explanation: Explanation, record: Record) -> tuple[Path, Record]:
        """Finds a place for a heatmap's picture, and notes what is known by it."""
        beside = dict(self.list_endings(explanation))
        if beside:
            record = replace(record, beside=beside)
        if is_file(self.options.save_path):
            return self.options.save_path, record
        source, layers = find_source(explanation.picture), self.list_named_layers(record)
        name = OutputName(
            source,
            record,
            self.options,
            lambda of, differing: output_path(
                of, record, layers, self.plan, self.options, differing
            ),
        )
        # a sheet shows more than its record says
        shared = "" if record.method == ALL else self.state.shared_options
        recipe, method = make_recipe(shared, record), record.method
        claim = OutputClaim(name.plain, source, beside, method, recipe)
        path = self.state.place(claim, name.rename)
        return path, replace(record, recipe=recipe, renamed=name.find_reason(path))

    def place_frame(self, explanation: Explanation) -> Path:
        """Returns the path of a frame's picture, and so of the files beside it."""
        if not is_file(self.options.save_path):
            return self._place(explanation, self.make_record(explanation))[0]
        record, video = explanation.record, self.options.save_path
        named = self.options.model_copy(update={"save_path": video.parent})
        return output_path(Source(Path(video.name)), record, (), self.plan, named)

    def list_named_layers(self, record: Record) -> tuple[str, ...]:
        """Returns the layers that the file name has to tell."""
        return record.layers if len(self.plan.request.layers) > 1 else ()

    def list_endings(self, explanation: Explanation) -> Iterator[tuple[str, str]]:
        """Yields the endings of what stands beside an overlay, and how it is made."""
        if "pixels" in explanation.details:
            yield PIXELS, "pixels"
        options = self.options
        if options.save_map:
            has_zero = options.map_size == "image" and options.map_outside == "zero"
            outside = "-zero" if has_zero else ""
            yield MAP_ENDINGS[options.save_map], f"{options.map_size}{outside}"
        share, percentile = options.save_mask, options.mask_percentile
        if share is not None or percentile is not None:
            yield name_mask(share, percentile), "mask"

    def write_sidecars(
        self, explanation: Explanation, path: Path
    ) -> Iterator[tuple[str, FileStamp]]:
        """Writes the files beside an overlay."""
        for ending, made in self.list_endings(explanation):
            sidecar = path.with_name(path.name + ending)
            if ending == PIXELS:
                # lossless, since single pixels matter here
                yield str(sidecar), write_picture(explanation.pixels(), sidecar)
            elif made == "mask":
                share, percentile = self.options.save_mask, self.options.mask_percentile
                mask = explanation.mask(share or 0, percentile=percentile)
                yield str(sidecar), write_mask(mask, sidecar)
            else:
                size, outside = self.options.map_size, self.options.map_outside
                values = explanation.sized_map(size, outside)
                yield str(sidecar), write_map(values, sidecar, self.options.save_map or "npy")

    def _write_sheets(self, explanations: Sequence[Explanation]) -> Iterator[Record]:
        """Draws a class's heatmaps on one sheet; heatmaps without a class are on every sheet."""
        classes = dict.fromkeys(e.category for e in explanations if e.record.target)
        recorded: set[tuple[str, ...]] = set()
        for category in classes or [explanations[0].category]:
            shown = [e for e in explanations if e.category == category or not e.record.target]
            shown.sort(key=lambda e: self.plan.request.methods.index(e.method))
            first = next((e for e in shown if e.record.target), shown[0])
            path, named = self._place(first, replace(first.record, method=ALL, layers=()))
            try:
                regions = [self.find_regions(explanation) for explanation in shown]
                drawn = self._sheet(shown, regions)
                sheet = {str(path): write_picture(drawn, path, first.picture.profile)}
            except (ImageError, MemoryError) as error:
                weights = first.record.weights or self.state.weights
                failure = describe_failure(error, path)
                yield replace(first.record, method=ALL, weights=weights, error=failure)
                continue
            for explanation, hot in zip(shown, regions, strict=True):
                key = (explanation.method, *explanation.map.layers)
                if explanation.record.target or key not in recorded:
                    recorded.add(key)
                    own = self._place_beside(explanation, path)
                    files: dict[str, FileStamp] = {}
                    record = self.note_boxes(self.make_record(explanation), hot)
                    record = replace(record, sheet=str(path), renamed=named.renamed)
                    try:
                        files.update(self.write_sidecars(explanation, own))
                    except (ImageError, MemoryError) as error:
                        record = replace(record, error=describe_failure(error, own))
                    yield replace(record, outputs=tuple(files), files=sheet | files)

    @stage("draw")
    def _sheet(
        self, shown: Sequence[Explanation], regions: Sequence[HotRegions]
    ) -> NDArray[np.uint8]:
        items = [self._make_item(e, hot) for e, hot in zip(shown, regions, strict=True)]
        # what draws a sheet takes a while to import
        from camcli.pipeline.sheets.arrangement import arrange
        from camcli.render.sheet_painting import draw_sheet

        sheet = arrange(items)
        return draw_sheet(sheet.list_rows(), sheet.grid, sheet.notes, sheet.bar)

    def _make_item(self, explanation: Explanation, hot: HotRegions) -> SheetItem:
        """Prepares a heatmap for a sheet."""
        record, picture = self.make_record(explanation), explanation.picture.canvas
        has_pixels = "pixels" in explanation.details
        shows_values = not has_pixels and not explanation.concepts
        alpha, colormap = self.options.alpha, self.options.colormap

        def draw() -> NDArray[np.uint8]:
            if has_pixels:
                # they show more than the map that is made of them
                laid = lay_pixels(picture, explanation.pixels(), explanation.view)
                return self._show_outside(laid, explanation)
            drawn = self._draw_heat(explanation, hot)
            return drawn if self.options.outside == "crop" else cut_legend(drawn, record)

        from camcli.pipeline.sheets.items import SheetItem, cut_legend, make_record_bar

        bar = make_record_bar(record, colormap, alpha) if shows_values else None
        return SheetItem(
            0, record, draw, lambda: self._show_original(explanation), bar, shows_values
        )

    def _show_original(self, explanation: Explanation) -> NDArray[np.uint8]:
        is_cropped = self.options.outside == "crop"
        picture = explanation.picture.canvas
        return self._show_outside(picture, explanation) if is_cropped else picture

    def _place_beside(self, explanation: Explanation, sheet: Path) -> Path:
        """Returns the path of the files beside a sheet for one of its heatmaps."""
        if not is_file(self.options.save_path):
            return self._place(explanation, self.make_record(explanation))[0]
        layer = ".".join(explanation.map.layers) if self.options.layer_fusion == "none" else None
        return sheet.parent / name_output(
            Source(Path(sheet.name)), explanation.method, None, "", layer=layer
        )


def describe_failure(error: CamvizError | MemoryError, path: Path) -> str:
    """Says why a picture is missing."""
    if isinstance(error, MemoryError):
        return f"{str(path)!r} does not fit into memory."
    return str(error)
