"""A class's summary: means over its pictures, who differs, what is compared with what."""

from __future__ import annotations

import numpy as np
import pytest

from camcli.report.summary import share_heat, summarise_classes
from tests.report.made_runs import made, spot, stored


def test_the_mean_map_is_the_mean_of_shares() -> None:
    # a map a hundred times as large counts as much as the other one
    maps = [spot(1, 1), 100 * spot(5, 5)]
    (summary,) = summarise_classes(stored(made(f"{n}.png", m)) for n, m in enumerate(maps))
    shares = [share_heat(m) for m in maps]
    assert shares[0] is not None and shares[1] is not None
    assert np.allclose(summary.mean_map, (shares[0] + shares[1]) / 2)
    assert summary.pictures == 2 and summary.empty == 0 and summary.probability == 0.75
    assert summary.difference == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 4)


def test_the_picture_that_differs_most_comes_first() -> None:
    maps = [spot(3, 3), spot(3, 3), spot(3, 2), spot(0, 6)]
    (summary,) = summarise_classes(stored(made(f"{n}.png", m)) for n, m in enumerate(maps))
    assert [m.stored.record.source for m in summary.differing][:2] == ["3.png", "2.png"]


def test_maps_of_other_grids_are_compared() -> None:
    maps = [spot(1, 1, 7), spot(2, 2, 14)]
    (summary,) = summarise_classes(stored(made(f"{n}.png", m)) for n, m in enumerate(maps))
    assert summary.mean_map.shape == (16, 16) and summary.mean_map.sum() == pytest.approx(1)


def test_methods_layers_and_models_are_apart() -> None:
    ways = [{}, {"method": "layercam"}, {"layers": ("layer3",)}, {"model": "vit"}, {"category": 2}]
    summaries = summarise_classes(stored(made("a.png", spot(1, 1), **way)) for way in ways)
    assert len(summaries) == len(ways) and {s.pictures for s in summaries} == {1}


def test_a_picture_that_was_explained_twice_counts_once() -> None:
    items = [made("a.png", spot(1, 1)), made("a.png", spot(5, 5)), made("b.png", spot(5, 5))]
    (summary,) = summarise_classes(map(stored, items))
    assert summary.pictures == 2 and summary.difference == pytest.approx(0)


def test_empty_maps_are_counted_apart() -> None:
    flat = np.zeros((7, 7), np.float32)
    (summary,) = summarise_classes(map(stored, [made("a.png", spot(1, 1)), made("b.png", flat)]))
    assert (summary.pictures, summary.empty) == (1, 1)
    assert summarise_classes([stored(made("b.png", flat))]) == []


def test_the_difference_of_two_models_is_no_heat_of_a_class() -> None:
    items = [made("a.png", spot(1, 1)), made("a.png", spot(5, 5), compared_with="other")]
    (summary,) = summarise_classes(map(stored, items))
    assert [m.stored.record.compared_with for m in summary.members] == [""]


def test_frames_of_a_video_are_one_picture_of_a_pattern() -> None:
    corner, centre = spot(0, 0), spot(3, 3)
    frames = [made("a.mp4", corner, frame=n, label="a", category=0) for n in range(50)]
    others = [made(f"{n}.png", centre, label="b", category=1) for n in range(50)]
    assert not any(s.fixed_places for s in summarise_classes(map(stored, [*frames, *others])))


def test_signed_maps_are_summarised_by_the_size_of_their_values() -> None:
    one = made("a.png", -spot(0, 0), value=2.5, target="value", probability=None, rank=None)
    (summary,) = summarise_classes([stored(one)])
    assert summary.placement.places["upper left corner"] > 0.5 and summary.probability is None


def test_the_most_striking_class_comes_first_and_then_the_larger_one() -> None:
    items = [made(f"a{n}.png", spot(3, 3), label="a", category=0) for n in range(30)]
    items += [made(f"b{n}.png", spot(6, 6), label="b", category=1) for n in range(12)]
    items += [made(f"c{n}.png", spot(3, 2), label="c", category=2) for n in range(20)]
    summaries = summarise_classes(map(stored, items))
    assert [s.label for s in summaries] == ["b", "a", "c"]
    assert summaries[0].fixed_places[0].place == "lower right corner"


def test_clusters_are_left_out_where_nobody_asks() -> None:
    items = [made(f"{n}.png", spot(0, 0) if n % 2 else spot(6, 6)) for n in range(24)]
    (without,) = summarise_classes(map(stored, items), with_clusters=False)
    assert without.clusters == ()
    pytest.importorskip("sklearn")
    (summary,) = summarise_classes(map(stored, items))
    assert [c.size for c in summary.clusters] == [12, 12]
    assert all(len(c.examples) == 5 for c in summary.clusters)
