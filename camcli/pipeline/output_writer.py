"""Explanations to files and records, and where the files stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.config import Options
from camcli.errors import CamvizError, ImageError, OutputError, UsageError
from camcli.media.sources import is_video
from camcli.media.video_file import FORMATS, video_name
from camcli.media.write import (
    PICTURE_SUFFIXES,
    check_writable,
    output_name,
    picture_format,
    write_map,
    write_picture,
)
from camcli.pipeline.color_scale import Scales
from camcli.pipeline.explanation import Explanation, why_empty
from camcli.pipeline.plan import Plan
from camcli.pipeline.run_state import Kept, is_file
from camcli.pipeline.work_items import is_film, may_move
from camcli.records import FileStamp, Picture, Record, Source
from camcli.registry import ALL
from camcli.render.sheet import contact_sheet
from camcli.stages import stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# what stands beside an overlay has its name, and behind it
PIXELS, MAP = ".pixels.png", ".npy"


def check_outputs(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    """Raises UsageError or OutputError where outputs would collide or cannot be written."""
    _check_films(sources, todo, options)
    if is_file(options.save_path):
        if options.save_path.is_dir():
            raise OutputError(
                f"Cannot write {str(options.save_path)!r}: Is a directory. Choose another place "
                "(--save-path)."
            )
        _check_single_file(sources, todo, options)
        check_writable(options.save_path.parent)
    else:
        _check_distinct_files(sources, todo, options)
        check_writable(options.save_path)


def _check_films(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    if options.camera is not None and options.scale == "run":
        raise UsageError(
            "--scale run looks at everything twice, and a camera shows it once: give --scale "
            "MIN,MAX."
        )
    if todo.threshold is not None and may_move(sources, options):
        raise UsageError(
            "--threshold finds other classes in each frame, and a video shows one in all: give "
            "--top-k or --target-category, or leave videos, --every, --frames and --camera out."
        )
    if todo.on_sheets and may_move(sources, options):
        video = next((f"{str(source)!r} is a video" for source in sources if is_video(source)), "")
        raise UsageError(
            f"--method {ALL} draws sheets of pictures, and no videos{video and f'; {video}'}: name "
            "the methods, or leave videos, --every, --frames and --camera out."
        )


def _check_single_file(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    count = len(sources) * todo.overlays_per_picture
    if count == 1:
        _check_kind(sources[0], options)
    kind = PICTURE_SUFFIXES.get(options.save_path.suffix.lower())
    if kind and options.format and PICTURE_SUFFIXES[f".{options.format}"] != kind:
        raise UsageError(
            f"--save-path {options.save_path} and --format {options.format} name two formats: "
            "give one of them."
        )
    if count > 1:
        raise UsageError(
            f"--save-path {options.save_path} is one file, but {count} pictures are to be "
            "written: name a folder."
        )
    if any(_is_same_file(options.save_path, source.path) for source in sources):
        raise UsageError(
            f"--save-path {options.save_path} is the picture itself, which would be lost: "
            "name another file, or a folder."
        )


def _check_kind(source: Source, options: Options) -> None:
    """Raises OutputError or UsageError where a picture is to be a video, or a video a picture."""
    if is_film(source, options):
        if options.save_path.suffix.lower() not in FORMATS:
            raise UsageError(
                f"--save-path {options.save_path} is no video as {str(source)!r} is, of a kind "
                f"that can be written ({' '.join(FORMATS)}): name such a file, or a folder."
            )
    elif is_video(Source(options.save_path)):
        raise UsageError(
            f"--save-path {options.save_path} is a video, and {str(source)!r} a picture: name a "
            "picture file, or a folder."
        )
    else:
        picture_format(options.save_path)


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _check_distinct_files(sources: Sequence[Source], todo: Plan, options: Options) -> None:
    some = Record("", method="m")
    written = [
        (
            video_name(s, "m", None, "") if is_video(s) else _output(s, some, (), todo, options),
            s.category,
        )
        for s in sources
    ]
    names = Counter(written)
    if len(names) < len(written):
        same = [str(s) for s, name in zip(sources, written, strict=True) if names[name] > 1]
        raise UsageError(
            f"{' and '.join(same[:2])} would write the same files: name the folder that holds "
            "them, or use a --save-path for each."
        )


def _output(
    source: Source, record: Record, layers: Sequence[str], todo: Plan, options: Options
) -> Path:
    layer = layers[0] if len(layers) == 1 and options.layer_fusion == "none" else None
    name = output_name(
        source,
        record.method,
        record.category,
        record.label,
        format=options.format,
        layer=layer,
        target=todo.request.target.mark if record.target else "",
        frame=record.frame,
        value=record.value,
    )
    return options.save_path / name


def source_of(picture: Picture) -> Source:
    """Returns where a picture comes from; one that Python made has a name only."""
    return picture.source or Source(Path("picture"))


@dataclass(frozen=True)
class Writer:
    """Writes what was found in pictures, each output where it overwrites nobody else's."""

    todo: Plan
    options: Options
    kept: Kept
    scales: Scales

    def written(self, explanations: Sequence[Explanation]) -> Iterator[Record]:
        """Writes what was found in one picture: a record for each heatmap; raises OutputError.

        A heatmap that cannot be drawn, or held by its format, has the reason in its record.
        """
        if self.todo.on_sheets:
            yield from self._on_sheets(explanations)
            return
        for explanation in explanations:
            yield self._written(explanation)

    def _written(self, explanation: Explanation) -> Record:
        record = self.recorded(explanation)
        path = self._place(explanation, record)
        files: dict[str, FileStamp] = {}
        try:
            drawn, profile = self.overlay(explanation), explanation.picture.profile
            files[str(path)] = write_picture(drawn, path, profile)
            files.update(self.besides(explanation, path))
        except (ImageError, MemoryError) as error:
            # what stands there already is known, too
            record = replace(record, error=why(error, path))
        return replace(record, outputs=tuple(files), files=files)

    def overlay(self, explanation: Explanation) -> NDArray[np.uint8]:
        """Draws a heatmap as the options say.  -> RGB [h w 3]"""
        alpha, colormap = self.options.alpha, self.options.colormap
        return explanation.overlay(alpha, colormap, self.scales.of(explanation))

    def recorded(self, explanation: Explanation) -> Record:
        """Returns a heatmap's record with the scale by which it is drawn."""
        return replace(explanation.record, scale=self.scales.of(explanation))

    def _place(self, explanation: Explanation, record: Record) -> Path:
        if is_file(self.options.save_path):
            return self.options.save_path
        source = source_of(explanation.picture)
        path = _output(source, record, self.named_layers(record), self.todo, self.options)
        return self.kept.place(path, source, *self.endings(explanation))

    def place_frame(self, explanation: Explanation) -> Path:
        """Returns where the picture of a video's frame stands, and what stands beside it."""
        if not is_file(self.options.save_path):
            return self._place(explanation, explanation.record)
        record, video = explanation.record, self.options.save_path
        named = self.options.model_copy(update={"save_path": video.parent})
        return _output(Source(Path(video.name)), record, (), self.todo, named)

    def named_layers(self, record: Record) -> tuple[str, ...]:
        """Returns the layers of which a name has to tell."""
        return record.layers if len(self.todo.request.layers) > 1 else ()

    def endings(self, explanation: Explanation) -> Iterator[str]:
        """Yields the endings of what stands beside an overlay."""
        if "pixels" in explanation.details:
            yield PIXELS
        if self.options.save_map:
            yield MAP

    def besides(self, explanation: Explanation, path: Path) -> Iterator[tuple[str, FileStamp]]:
        """Writes what stands beside an overlay."""
        for ending in self.endings(explanation):
            beside = path.with_name(path.name + ending)
            if ending == PIXELS:
                # without loss: single pixels count here
                yield str(beside), write_picture(explanation.pixels(), beside)
            else:
                values = explanation.sized_map(self.options.map_size)
                yield str(beside), write_map(values, beside)

    def _on_sheets(self, explanations: Sequence[Explanation]) -> Iterator[Record]:
        """Draws a class's heatmaps on one sheet; those that ask no class stand on every sheet."""
        classes = dict.fromkeys(e.category for e in explanations if e.record.target)
        recorded: set[tuple[str, ...]] = set()
        for category in classes or [explanations[0].category]:
            shown = [e for e in explanations if e.category == category or not e.record.target]
            shown.sort(key=lambda e: self.todo.request.methods.index(e.method))
            about = next((e for e in shown if e.record.target), shown[0])
            path = self._place(about, replace(about.record, method=ALL, layers=()))
            try:
                drawn = self._sheet(about, shown)
                sheet = {str(path): write_picture(drawn, path, about.picture.profile)}
            except (ImageError, MemoryError) as error:
                yield replace(about.record, method=ALL, error=why(error, path))
                continue
            for explanation in shown:
                key = (explanation.method, *explanation.map.layers)
                if explanation.record.target or key not in recorded:
                    recorded.add(key)
                    own = self._place_beside(explanation, path)
                    files: dict[str, FileStamp] = {}
                    record = replace(self.recorded(explanation), sheet=str(path))
                    try:
                        files.update(self.besides(explanation, own))
                    except (ImageError, MemoryError) as error:
                        record = replace(record, error=why(error, own))
                    yield replace(record, outputs=tuple(files), files=sheet | files)

    @stage("draw")
    def _sheet(self, about: Explanation, shown: Sequence[Explanation]) -> NDArray[np.uint8]:
        percent = "" if about.probability is None else f" {about.probability:.1%}"
        if about.value is not None:
            percent = f" {about.value:.4g}"
        tiles = [(f"{about.label}{percent}", about.picture.canvas)]
        separate = self.options.layer_fusion == "none"
        for e in shown:
            layer = f" {e.map.layers[0]}" if separate and e.map.layers else ""
            empty = " (empty)" if any(why_empty(e.heatmap, signed=e.is_signed)) else ""
            # pixels say more than the map that is made of them
            drawn = e.pixels() if "pixels" in e.details else self.overlay(e)
            tiles.append((f"{e.method}{layer}{empty}", drawn))
        return contact_sheet(tiles)

    def _place_beside(self, explanation: Explanation, sheet: Path) -> Path:
        """Names what stands beside a sheet for one of its heatmaps."""
        if not is_file(self.options.save_path):
            return self._place(explanation, explanation.record)
        layer = ".".join(explanation.map.layers) if self.options.layer_fusion == "none" else None
        return sheet.parent / output_name(
            Source(Path(sheet.name)), explanation.method, None, "", layer=layer
        )


def why(error: CamvizError | MemoryError, path: Path) -> str:
    """Says why a picture is missing."""
    if isinstance(error, MemoryError):
        return f"{str(path)!r} does not fit into memory."
    return str(error)
