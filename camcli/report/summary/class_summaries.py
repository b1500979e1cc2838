"""Says of each class where its heat lies, and which of its pictures are unlike the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from camcli.report.stored_heatmaps import StoredHeatmap
from camcli.report.summary.clusters import can_cluster, cluster_maps, measure_difference
from camcli.report.summary.fixed_places import FixedPlace, find_fixed_places
from camcli.report.summary.map_geometry import (
    FRAME,
    PLACES,
    HeatPlacement,
    measure_placement,
    resample_heat,
    share_heat,
)

Array = NDArray[np.float64]

SHOWN = 5  # pictures that differ most, and examples of a cluster


@dataclass(frozen=True)
class MeasuredHeatmap:
    """A heatmap with heat: where it lies, and its shares [h w] on the grid of its class.

    `difference` is the share of its heat that lies elsewhere than in its class's mean.
    """

    stored: StoredHeatmap
    placement: HeatPlacement
    shares: Array
    difference: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """Maps of a class that are alike: the mean of their shares [h w], and the most typical."""

    size: int
    mean_map: Array
    placement: HeatPlacement
    examples: tuple[MeasuredHeatmap, ...]


@dataclass(frozen=True)
class ClassSummary:
    """What the maps of a class have in common, by one method at the same layers of one model.

    `mean_map` [h w] is the mean of the maps' shares of heat, on the model's view; `pictures` are
    those with heat, `empty` those without; `placement` has the means over the pictures;
    `differing` those whose heat lies elsewhere the most, the first most so.
    """

    model: str
    method: str
    layers: tuple[str, ...]
    target: str
    category: int | None
    label: str
    pictures: int
    empty: int
    probability: float | None
    placement: HeatPlacement
    mean_map: Array
    difference: float
    members: tuple[MeasuredHeatmap, ...]
    clusters: tuple[Cluster, ...]
    fixed_places: tuple[FixedPlace, ...] = ()

    @property
    def differing(self) -> tuple[MeasuredHeatmap, ...]:
        """The pictures that differ most from the mean, none of a class of two or fewer."""
        ranked = sorted(self.members, key=lambda member: -member.difference)
        return tuple(ranked[:SHOWN]) if len(ranked) > 2 else ()

    @property
    def name(self) -> str:
        """The class's name, or its number."""
        return self.label or ("the output" if self.category is None else f"class {self.category}")


def summarise_classes(
    heatmaps: Iterable[StoredHeatmap], *, with_clusters: bool | None = None
) -> list[ClassSummary]:
    """Summarises the maps of each class, those that hang on one place of the view first.

    With clusters where scikit-learn is installed, unless `with_clusters` says otherwise.
    """
    clusters = can_cluster() if with_clusters is None else with_clusters
    summaries = [
        summary
        for classes in _group_by_kind(heatmaps).values()
        for summary in _summarise_kind(classes, with_clusters=clusters)
    ]
    return sorted(summaries, key=lambda s: (-_find_excess(s), -s.pictures, s.name))


def _find_excess(summary: ClassSummary) -> float:
    """How many times more heat lies in the most striking place than if it were spread evenly."""
    return max((found.share / found.area for found in summary.fixed_places), default=0.0)


Kind = tuple[str, str, tuple[str, ...], str]


def _group_by_kind(
    heatmaps: Iterable[StoredHeatmap],
) -> Mapping[Kind, Mapping[int | None, list[StoredHeatmap]]]:
    """Groups maps by what they can be compared in, and by class; of a picture the newest.

    The difference of two models' maps (`--compare`) is no heat of a class.
    """
    newest: dict[tuple[object, ...], StoredHeatmap] = {}
    for stored in heatmaps:
        record = stored.record
        if stored.heat is not None and record.method and not record.compared_with:
            kind = (record.model, record.method, record.layers, record.target)
            newest[(*kind, record.category, *stored.picture)] = stored
    kinds: dict[Kind, dict[int | None, list[StoredHeatmap]]] = {}
    for stored in newest.values():
        record = stored.record
        kind = (record.model, record.method, record.layers, record.target)
        kinds.setdefault(kind, {}).setdefault(record.category, []).append(stored)
    return kinds


def _summarise_kind(
    classes: Mapping[int | None, Sequence[StoredHeatmap]], *, with_clusters: bool
) -> Iterator[ClassSummary]:
    summaries = [_summarise(heatmaps, with_clusters=with_clusters) for heatmaps in classes.values()]
    present = [summary for summary in summaries if summary is not None]
    found = find_fixed_places([_collect_places(summary) for summary in present])
    for summary, places in zip(present, found, strict=True):
        yield replace(summary, fixed_places=places)


def _summarise(heatmaps: Sequence[StoredHeatmap], *, with_clusters: bool) -> ClassSummary | None:
    """Summarises the maps of one class; None where none of them has heat."""
    measured = list(_measure(heatmaps))
    if not measured:
        return None
    maps = _bring_together([one.shares for one in measured])
    mean = maps.mean(0)
    members = tuple(
        replace(one, shares=shares, difference=measure_difference(shares, mean))
        for one, shares in zip(measured, maps, strict=True)
    )
    first = heatmaps[0].record
    chances = [r.probability for r in (h.record for h in heatmaps) if r.probability is not None]
    return ClassSummary(
        model=first.model,
        method=first.method,
        layers=first.layers,
        target=first.target,
        category=first.category,
        label=first.label,
        pictures=len(measured),
        empty=len(heatmaps) - len(measured),
        probability=float(np.mean(chances)) if chances else None,
        placement=average_placements([one.placement for one in measured]),
        mean_map=mean,
        difference=float(np.mean([one.difference for one in members])),
        members=members,
        clusters=tuple(_cluster(members, maps)) if with_clusters else (),
    )


def _measure(heatmaps: Iterable[StoredHeatmap]) -> Iterator[MeasuredHeatmap]:
    for stored in heatmaps:
        heat = stored.heat
        placement = None if heat is None else measure_placement(heat)
        shares = None if heat is None else share_heat(heat)
        if placement is not None and shares is not None:
            yield MeasuredHeatmap(stored, placement, shares)


def _bring_together(maps: Sequence[Array]) -> Array:
    """Brings maps to one grid: their own where all have the same, else one of 16x16.  [n h w]"""
    is_same = len({shares.shape for shares in maps}) == 1
    return np.stack(maps if is_same else [resample_heat(shares) for shares in maps])


def average_placements(placements: Sequence[HeatPlacement]) -> HeatPlacement:
    """Returns the means of what was measured of some maps."""
    names = ("border", "centre", "spread", "above_half")
    means = {name: float(np.mean([getattr(one, name) for one in placements])) for name in names}
    places = {
        place: float(np.mean([one.places[place] for one in placements]))
        for place in (*PLACES, FRAME)
    }
    return HeatPlacement(**means, places=places)


def _cluster(members: Sequence[MeasuredHeatmap], maps: Array) -> Iterator[Cluster]:
    """Yields the clusters of a class's maps, the largest first; none where they are all alike."""
    numbers = cluster_maps(maps)
    if not numbers.any():
        return
    for number in range(int(numbers.max()) + 1):
        own = [member for member, n in zip(members, numbers, strict=True) if n == number]
        mean = maps[numbers == number].mean(0)
        typical = sorted(own, key=lambda member: measure_difference(member.shares, mean))
        placement = average_placements([member.placement for member in own])
        yield Cluster(len(own), mean, placement, tuple(typical[:SHOWN]))


def _collect_places(summary: ClassSummary) -> Mapping[str, Array]:
    """Returns each place's share of the heat, a number a source: frames of a video are one."""
    by_source: dict[str, list[HeatPlacement]] = defaultdict(list)
    for member in summary.members:
        by_source[member.stored.id].append(member.placement)
    return {
        place: np.array([np.mean([one.places[place] for one in own]) for own in by_source.values()])
        for place in (*PLACES, FRAME)
    }
