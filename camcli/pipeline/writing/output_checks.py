"""Checks that the outputs of a run fit its sources, before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from camcli.config import Options
from camcli.errors import UsageError
from camcli.media.output_place import check_output_place, is_file, too_many_for_a_file
from camcli.media.pictures.output_formats import find_format
from camcli.media.sources.listing import is_video
from camcli.media.videos import FORMATS, name_video
from camcli.pipeline.plan import Plan
from camcli.pipeline.work_items import is_film, may_have_films
from camcli.pipeline.writing.output_naming import output_path
from camcli.records import Record, Source
from camcli.registry import ALL
from camcli.render.letters import tell_missing


def warn_of_letters(
    sources: Sequence[Source], labels: Sequence[str] | None, options: Options
) -> tuple[str, ...]:
    """Says which letters of captions and sheets no font has, before the first one is drawn."""
    has_names = options.sheet is not None
    if not (has_names or options.caption or ALL in options.method):
        return ()
    names = [source.path.name for source in sources] if has_names else []
    message = tell_missing([*(labels or ()), *names])
    return (message,) if message else ()


def check_outputs(sources: Sequence[Source], plan: Plan, options: Options) -> None:
    """Raises UsageError or OutputError if outputs would collide or cannot be written."""
    _check_films(sources, plan, options)
    if options.sheet:
        # what draws a sheet takes a while to import
        from camcli.pipeline.sheets.run_sheet import check_run_sheet

        check_run_sheet(options)
    if options.export:
        # imported here: it imports readers of YAML and XML, which no other run needs
        from camcli.pipeline.writing.box_export import check_export

        check_export(sources, options.export)
    if is_file(options.save_path) and options.export:
        raise UsageError(
            f"--export {options.export} writes into the output folder, and --save-path "
            f"{options.save_path} is one file: name a folder."
        )
    if is_file(options.save_path):
        _check_single_file(sources, plan, options)
    else:
        _check_distinct_files(sources, plan, options)
    check_output_place(options.save_path, sources, options.format)


def _check_films(sources: Sequence[Source], plan: Plan, options: Options) -> None:
    if options.camera is not None and options.scale == "run":
        raise UsageError(
            "--scale run reads everything twice, and a camera shows it only once: give --scale "
            "MIN,MAX."
        )
    if plan.other and may_have_films(sources, options):
        raise UsageError(
            "--compare shows two models beside a picture, and no videos: leave videos, --every and "
            "--frames out."
        )
    if plan.threshold is not None and may_have_films(sources, options):
        raise UsageError(
            "--threshold may find another number of classes in each frame, and a video shows one "
            "in all: give --top-k or --target-category, or leave videos, --every, --frames and "
            "--camera out."
        )
    if plan.on_sheets and may_have_films(sources, options):
        video = next((f"{str(source)!r} is a video" for source in sources if is_video(source)), "")
        raise UsageError(
            f"--method {ALL} draws sheets of pictures, and no videos{video and f'; {video}'}: name "
            "the methods, or leave videos, --every, --frames and --camera out."
        )


def _check_single_file(sources: Sequence[Source], plan: Plan, options: Options) -> None:
    count = len(sources) * plan.overlays_per_picture
    if count == 1:
        _check_kind(sources[0], options)
    if count > 1:
        raise too_many_for_a_file(options.save_path, count)


def _check_kind(source: Source, options: Options) -> None:
    """Raises an error if a picture would be written as a video, or a video as a picture."""
    if is_film(source, options):
        if options.save_path.suffix.lower() not in FORMATS:
            raise UsageError(
                f"{str(source)!r} is a video, and --save-path {options.save_path} is not a video "
                f"that can be written ({' '.join(FORMATS)}): name such a file, or a folder."
            )
    elif is_video(Source(options.save_path)):
        raise UsageError(
            f"--save-path {options.save_path} is a video, and {str(source)!r} a picture: name a "
            "picture file, or a folder."
        )
    else:
        find_format(options.save_path)


def _check_distinct_files(sources: Sequence[Source], plan: Plan, options: Options) -> None:
    some = Record("", method="m")
    written = [
        (
            name_video(s, "m", None, "")
            if is_video(s)
            else output_path(s, some, (), plan, options),
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
