"""Thumbnails are of the originals, upright and in their colours, else of the overlays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.media.videos import FORMATS
from camcli.report.stored_heatmaps import read_heatmaps
from camcli.report.thumbnails import EDGES, choose_edge, count_missing, make_thumbnails
from tests.report.made_runs import SIZE, failed, made, spot, write_run


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_a_picture_has_one_for_all_its_heatmaps(tmp_path: Path) -> None:
    items = [made("a.png", spot(1, 1)), made("a.png", spot(2, 2), method="layercam")]
    out = write_run(tmp_path, [*items, failed("b.png")])
    heatmaps = read_heatmaps(out)
    thumbnails = make_thumbnails(heatmaps, out)
    assert len(thumbnails.contents) == 1 and not thumbnails.by_overlay
    small = opened(thumbnails.contents[0])
    assert small.format == "WEBP" and small.size == SIZE[::-1]
    assert np.abs(np.asarray(small).mean((0, 1)) - (90, 120, 60)).max() < 6
    assert count_missing(thumbnails, heatmaps) == {"overlays": 0, "absent": 0}


def test_a_photo_is_turned_upright_and_reduced(tmp_path: Path) -> None:
    out = write_run(tmp_path, [made("a.jpg", spot(1, 1), picture_size=(900, 600))])
    # the camera was held on its side: the file's rows are the picture's columns, the top is right
    pixels = np.zeros((600, 900, 3), np.uint8)
    pixels[:, :450] = (250, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "in" / "a.jpg", exif=exif)
    thumbnails = make_thumbnails(read_heatmaps(out), out)
    small = np.asarray(opened(thumbnails.contents[0]).convert("RGB"))
    assert small.shape == (640, 427, 3)
    assert small[:300, :, 0].min() > 200 and small[340:, :, 0].max() < 60


def test_a_picture_that_is_gone_is_shown_as_it_was_drawn(tmp_path: Path) -> None:
    out = write_run(tmp_path, [made("a.png", spot(1, 1)), made("b.png", spot(1, 1))], overlays=True)
    (tmp_path / "in" / "a.png").unlink()
    heatmaps = read_heatmaps(out)
    thumbnails = make_thumbnails(heatmaps, out)
    assert list(thumbnails.by_overlay) == [0] and len(thumbnails.by_picture) == 1
    drawn = opened(thumbnails.contents[thumbnails.by_overlay[0]]).convert("RGB")
    assert np.abs(np.asarray(drawn).mean((0, 1)) - (200, 0, 0)).max() < 6
    assert count_missing(thumbnails, heatmaps) == {"overlays": 1, "absent": 0}


@pytest.mark.parametrize("how", ["other size", "damaged", "absent"])
def test_what_is_no_more_the_picture_is_not_shown(tmp_path: Path, how: str) -> None:
    out = write_run(tmp_path, [made("a.jpg", spot(1, 1))])
    picture = tmp_path / "in" / "a.jpg"
    if how == "other size":
        Image.new("RGB", (20, 10)).save(picture)
    elif how == "damaged":
        picture.write_bytes(picture.read_bytes()[:200])
    else:
        picture.unlink()
    heatmaps = read_heatmaps(out)
    thumbnails = make_thumbnails(heatmaps, out)
    assert thumbnails.contents == []
    assert count_missing(thumbnails, heatmaps) == {"overlays": 0, "absent": 1}


def test_a_moved_folder_finds_pictures_that_moved_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path(), [made("a.png", spot(1, 1))])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("in", "out"):
        (tmp_path / name).rename(moved / name)
    monkeypatch.chdir("/")
    thumbnails = make_thumbnails(read_heatmaps(moved / "out"), moved / "out")
    assert len(thumbnails.by_picture) == 1


def test_the_folder_that_a_run_was_started_in_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    monkeypatch.chdir(start)
    out = write_run(Path(), [made("a.png", spot(1, 1))]).absolute()
    far = tmp_path / "x" / "y"
    far.mkdir(parents=True)
    out.rename(far / "out")
    run = far / "out" / "run.json"
    run.write_text(
        run.read_text().replace('"ran_on": {}', '"ran_on": {"working_folder": "../../../start"}')
    )
    monkeypatch.chdir("/")
    thumbnails = make_thumbnails(read_heatmaps(far / "out"), far / "out")
    assert len(thumbnails.by_picture) == 1


def test_frames_of_a_video_are_read(tmp_path: Path) -> None:
    items = [made("a.gif", spot(1, 1), frame=n) for n in (0, 2)]
    out = write_run(tmp_path, items)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    first, *rest = [Image.new("RGB", SIZE[::-1], colour) for colour in colours]
    first.save(tmp_path / "in" / "a.gif", save_all=True, append_images=rest, duration=100)
    heatmaps = read_heatmaps(out)
    thumbnails = make_thumbnails(heatmaps, out)
    means = [
        np.asarray(opened(thumbnails.contents[thumbnails.by_picture[s.picture]]).convert("RGB"))
        for s in heatmaps
    ]
    assert means[0][..., 0].mean() > 200 and means[1][..., 2].mean() > 200
    assert FORMATS


def test_many_pictures_have_small_thumbnails() -> None:
    assert choose_edge(1) == EDGES[0] and choose_edge(10**6) == EDGES[-1]
    edges = [choose_edge(n) for n in (1, 100, 500, 2000, 5000)]
    assert edges == sorted(edges, reverse=True)
