"""What the page is made of: columns of heatmaps, pictures, colours, summaries."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camcli.records import PackedMap
from camcli.render.colormap import find_colormap
from camcli.report.known_classes import read_known_classes
from camcli.report.page_data import Look, PageContent, choose_colormap, make_page_data
from camcli.report.summary import summarise_classes
from camcli.report.thumbnails import Thumbnails
from camcli.runs import unpack_map
from tests.report.made_runs import Made, failed, made, spot, stored


def page_data(*items: Made, **content: Any) -> dict[str, Any]:
    heatmaps = [stored(item) for item in items]
    summaries = summarise_classes(heatmaps, with_clusters=False)
    defaults: dict[str, Any] = {"title": "out", "thumbnails": Thumbnails()}
    whole = PageContent(heatmaps=heatmaps, summaries=summaries, **(defaults | content))
    return make_page_data(whole, Path("page.html"))


def test_every_column_has_a_value_a_heatmap() -> None:
    data = page_data(made("a.png", spot(1, 1)), failed("b.png"), made("a.png", spot(2, 2)))
    columns = data["heatmaps"]
    assert {len(column) for column in columns.values()} == {3}
    assert columns["picture"] == [0, 1, 0] and len(data["pictures"]) == 2
    assert columns["error"] == ["", "it is no image", ""]
    assert columns["map"][1] is None and columns["border"][1] is None


def test_maps_are_the_raw_ones() -> None:
    (packed,) = page_data(made("a.png", spot(1, 1)))["heatmaps"]["map"]
    height, width, low, high, levels = packed
    assert np.allclose(
        unpack_map(PackedMap((height, width), low, high, levels)), spot(1, 1), atol=1e-4
    )


def test_names_stand_once() -> None:
    data = page_data(*(made(f"{n}.png", spot(1, 1), method=f"m{n % 2}") for n in range(4)))
    assert data["names"]["method"] == ["m0", "m1"]
    assert data["heatmaps"]["method"] == [0, 1, 0, 1]
    assert data["names"]["label"] == ["tabby, tabby cat"]


def test_the_view_is_in_shares_of_the_picture() -> None:
    (view,) = page_data(made("a.png", spot(1, 1)))["heatmaps"]["view"]
    assert view == [0.125, 0.0, 0.75, 1.0]


@pytest.mark.parametrize("name", ["jet", "magma"])
def test_colours_are_those_of_the_overlays(name: str) -> None:
    data = page_data(made("a.png", spot(1, 1)), look=Look(name, 0.4))
    assert data["colormap"] == name and data["alpha"] == 0.4
    table = np.frombuffer(base64.b64decode(data["colormaps"][name]), np.uint8).reshape(256, 3)
    assert np.array_equal(table, find_colormap(name)[:, 0])
    assert next(iter(data["colormaps"])) == name and "viridis" in data["colormaps"]


def test_an_unknown_colour_map_is_the_defaults() -> None:
    assert choose_colormap("virids") == choose_colormap(None) == "jet"
    assert choose_colormap("Turbo") == "turbo"


def test_verdicts_agreement_and_differences_are_told() -> None:
    items = [
        made("tabby/a.png", spot(1, 1)),
        made("dog/b.png", spot(1, 1)),
        made("dog/b.png", spot(5, 5), method="layercam"),
    ]
    known = read_known_classes("folders", [stored(item) for item in items])
    columns = page_data(*items, known=known)["heatmaps"]
    assert columns["verdict"] == [True, False, False]
    assert columns["agreement"][0] is None and columns["agreement"][1] < 0
    assert columns["difference"] == pytest.approx([0, 0, 0])


def test_summaries_name_heatmaps_by_their_place() -> None:
    items = [made(f"{n}.png", spot(3, 3)) for n in range(3)] + [made("x.png", spot(0, 0))]
    (summary,) = page_data(*items)["summaries"]
    assert summary["differing"][0] == 3 and summary["pictures"] == 4
    assert len(summary["map"]) == 7


def test_a_class_without_a_name_has_its_number() -> None:
    assert page_data(made("a.png", spot(1, 1), label=""))["names"]["label"] == ["class 1"]
