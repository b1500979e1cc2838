"""Writes drawn frames into videos, in order; a video is complete or absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from camcli.errors import ImageError, OutputError
from camcli.media.atomic_files import unwritable_error
from camcli.media.output_place import is_file
from camcli.media.pictures.write import write_picture
from camcli.media.videos import VideoFile, name_video
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.run_state import OutputClaim
from camcli.pipeline.work_items import Film
from camcli.pipeline.writing.color_scale import Key, scale_key
from camcli.pipeline.writing.output_naming import OutputName, place_in_name
from camcli.pipeline.writing.output_writer import OutputWriter, describe_failure, find_source
from camcli.records import FileStamp, Outcome, Record, Source
from camcli.runs import read_stamp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DrawnFrame:
    """A frame's heatmaps: for each one its record, its video, and its pixels if it was drawn.

    `time` and `duration` are those of the frame.
    """

    source: Source
    time: Fraction
    duration: Fraction | None
    records: tuple[Record, ...]
    videos: tuple[Path, ...]
    pixels: tuple[NDArray[np.uint8] | None, ...]


@dataclass(frozen=True)
class FrameWriter:
    """Draws the heatmaps of frames, and writes the frames' own files."""

    writer: OutputWriter

    def draw(self, explanations: Sequence[Explanation]) -> DrawnFrame:
        """Draws a frame's heatmaps; raises OutputError.

        If one cannot be drawn, or its format cannot hold it, its record has the reason.
        """
        drawn = [self._draw(explanation) for explanation in explanations]
        picture = explanations[0].picture
        source = find_source(picture)
        records, pixels = zip(*drawn, strict=True)
        videos, reasons = zip(*self._videos(source, records), strict=True)
        named = tuple(
            replace(record, renamed=why) for record, why in zip(records, reasons, strict=True)
        )
        assert picture.time is not None
        return DrawnFrame(source, picture.time, picture.duration, named, videos, pixels)

    def _draw(self, explanation: Explanation) -> tuple[Record, NDArray[np.uint8] | None]:
        writer, record = self.writer, self.writer.make_record(explanation)
        files: dict[str, FileStamp] = {}
        try:
            regions = writer.find_regions(explanation)
            record = writer.note_boxes(record, regions)
            drawn = writer.draw(explanation, regions)
            if writer.options.save_frames or any(writer.list_endings(explanation)):
                path = writer.place_frame(explanation)
                if writer.options.save_frames:
                    profile = explanation.picture.profile
                    files[str(path)] = write_picture(drawn, path, profile)
                files.update(writer.write_sidecars(explanation, path))
        except (ImageError, MemoryError) as error:
            failed = replace(record, error=describe_failure(error, Path(record.source)))
            return replace(failed, outputs=tuple(files), files=files), None
        return replace(record, outputs=tuple(files), files=files), drawn

    def _videos(self, source: Source, records: Sequence[Record]) -> Iterator[tuple[Path, str]]:
        """Yields the path of each heatmap's video, which is the same for all frames."""
        ranks = Counter[Key]()
        for record in records:
            key = scale_key(record)
            ranks[key] += 1
            yield self._video(source, record, ranks[key])

    def _video(self, source: Source, record: Record, rank: int) -> tuple[Path, str]:
        """Finds a place for a video, and says why it has another name than usual."""
        options, plan = self.writer.options, self.writer.plan
        if is_file(options.save_path):
            return options.save_path, ""
        layers = self.writer.list_named_layers(record)
        # the likeliest classes may change from frame to frame
        is_fixed = bool(record.target and (source.category or isinstance(plan.categories, tuple)))
        is_ranked = bool(record.target and not is_fixed and plan.categories != 1)

        def make(of: Source, differing: Mapping[str, str]) -> Path:
            return options.save_path / name_video(
                of,
                record.method,
                record.category if is_fixed else None,
                record.label,
                layer=layers[0] if len(layers) == 1 and options.layer_fusion == "none" else None,
                target=plan.request.target.mark if record.target else "",
                rank=rank if is_ranked else None,
                **place_in_name(differing),
            )

        name, state = OutputName(source, record, options, make), self.writer.state
        claim = OutputClaim(name.plain, source, method=record.method)
        path = state.place(claim, name.rename)
        return path, name.find_reason(path)


class VideoOutputs:
    """Writes one film after the other: a video for each heatmap of its frames.

    A film has no videos if its end never comes, or if one of its files could not be written.
    """

    def __init__(self) -> None:
        self._film: Film | None = None
        self._videos: dict[Path, VideoFile] = {}
        self._open = ExitStack()
        self._error: OutputError | None = None
        self._begin: Fraction | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drop(error or GeneratorExit())

    def add(self, frame: DrawnFrame, film: Film) -> Outcome:
        """Writes a frame; frames come in order and one at a time; raises OutputError."""
        with self._of(film):
            # the video begins at the first frame of the span
            self._begin = frame.time if self._begin is None else self._begin
            heatmaps = zip(frame.records, frame.videos, frame.pixels, strict=True)
            records = tuple(self._write(*heatmap, frame, film) for heatmap in heatmaps)
        return Outcome(frame.source, records, last=False)

    def pass_by(self, outcome: Outcome, film: Film) -> Outcome:
        """Passes on a failed frame, or a film's end, which completes its videos.

        Raises OutputError; a film that cannot be completed has failed.
        """
        try:
            with self._of(film):
                if not outcome.last:
                    return outcome
                self._open.close()
                return replace(outcome, files=dict(map(_stamp, self._videos)))
        except ImageError as error:
            self._drop(error)
            return Outcome.failure(film.source, str(error))
        finally:
            if outcome.last:
                self._film, self._videos = None, {}

    def give_up(self, error: OutputError, film: Film) -> NoReturn:
        """Drops the videos of a film whose frame could not be written; raises the error."""
        with self._of(film):
            raise error

    @contextmanager
    def _of(self, film: Film) -> Iterator[None]:
        """Begins a new film if it is another one; an error of writing ends the film for good."""
        if film is not self._film:
            self._film, self._error, self._begin = film, None, None
        if self._error:
            raise self._error
        try:
            yield
        except OutputError as error:
            self._error = error
            self._drop(error)
            raise

    def _write(
        self,
        record: Record,
        path: Path,
        pixels: NDArray[np.uint8] | None,
        frame: DrawnFrame,
        film: Film,
    ) -> Record:
        if pixels is None:
            return record
        try:
            if path not in self._videos:
                self._videos[path] = self._open.enter_context(VideoFile(path, film.times))
            self._videos[path].write(pixels, frame.time - (self._begin or 0), frame.duration)
        except ImageError as error:
            return replace(record, error=str(error))
        return replace(record, outputs=(str(path), *record.outputs))

    def _drop(self, error: BaseException) -> None:
        self._videos = {}
        self._open.__exit__(type(error), error, error.__traceback__)


def _stamp(video: Path) -> tuple[str, FileStamp]:
    try:
        return str(video), read_stamp(video)
    except OSError as error:
        raise unwritable_error(video, error) from error
