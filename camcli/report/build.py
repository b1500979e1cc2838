"""Makes the report of an output folder: reads it, summarises it, and writes the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.render.colormap import MOST_OPAQUE
from camcli.report.known_classes import KnownClasses, read_known_classes
from camcli.report.page import WrittenPage, write_page
from camcli.report.page_data import THRESHOLD, Look, PageContent, choose_colormap
from camcli.report.stored_heatmaps import StoredHeatmap, read_heatmaps
from camcli.report.summary import HOW_TO_INSTALL, can_cluster, summarise_classes
from camcli.report.thumbnails import RUN, count_missing, make_thumbnails
from camcli.runs import read_summary
from camcli.utils.cpu import count_cores

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """A page that was written: how many heatmaps, pictures and failures it shows, and notes."""

    page: WrittenPage
    heatmaps: int
    pictures: int
    failed: int
    notes: tuple[str, ...] = ()


def write_report(folder: Path, path: Path | None = None, labels: str | None = None) -> Report:
    """Writes the page of an output folder, by default into it; runs no model.

    `labels` says what the pictures show, as `read_known_classes` takes it.  Raises UsageError where
    the folder holds no run, AnnotationError for labels that do not fit, or OutputError.
    """
    heatmaps = read_heatmaps(folder)
    known = read_known_classes(labels, heatmaps)
    thumbnails = make_thumbnails(heatmaps, folder, workers=max(2, count_cores()))
    missing = count_missing(thumbnails, heatmaps)
    notes = tuple(_list_notes(heatmaps, missing["overlays"], missing["absent"], known))
    content = PageContent(
        title=f"{folder.absolute().name}",
        heatmaps=heatmaps,
        summaries=summarise_classes(heatmaps),
        thumbnails=thumbnails,
        known=known,
        look=_read_look(folder),
        notes=notes,
    )
    page = write_page(content, path or folder / PAGE)
    made = [stored for stored in heatmaps if not stored.record.error]
    return Report(
        page,
        len(made),
        len({stored.picture for stored in made}),
        sum(bool(stored.record.error) for stored in heatmaps),
        notes,
    )


def _list_notes(
    heatmaps: Sequence[StoredHeatmap], overlays: int, absent: int, known: KnownClasses
) -> Iterator[str]:
    unpacked = sum(s.values is None and not s.record.error for s in heatmaps)
    if unpacked:
        yield (
            f"{unpacked} of {len(heatmaps)} heatmaps have no raw map (it is not finite, or an "
            "older camviz made them): the page shows no heat for them"
        )
    if overlays:
        yield (
            f"the originals of {overlays} pictures were not found: the page shows their overlays "
            "as they were drawn"
        )
    if absent:
        yield f"{absent} pictures were not found: the page shows their heat alone"
    if not can_cluster():
        yield f"the clusters of a class's maps need scikit-learn: {HOW_TO_INSTALL}"
    yield from known.notes


def _read_look(folder: Path) -> Look:
    """Reads how the newest complete run drew its overlays; the defaults where nothing says so."""
    configuration: Any = (read_summary(folder / RUN) or {}).get("configuration")
    if not isinstance(configuration, dict):
        return Look()
    alpha = configuration.get("alpha")
    return Look(
        choose_colormap(configuration.get("colormap")),
        _read_share(alpha, MOST_OPAQUE if alpha == "auto" else Look.alpha),
        alpha == "auto",
        _read_share(configuration.get("box_threshold"), THRESHOLD),
        configuration.get("outside") != "keep",
    )


def _read_share(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else otherwise
