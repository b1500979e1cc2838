"""The page in a real Chromium: what a person moves, types and reads there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camcli.media.pictures.read import make_picture
from camcli.records import Box
from camcli.render.overlay import overlay
from camcli.report import build, page
from camcli.report.build import write_report
from tests.browser import find_axe, find_chromium, note_faults, open_browser, run_axe
from tests.report.made_runs import Made, failed, made, spot, write_run

pytest.importorskip("playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium"),
]

HOSTILE = "</script><img src=x onerror=alert(1)>{{7*7}}"
CARDS = ".grid .card:not([hidden])"


def items() -> list[Made]:
    """Three right pictures and one wrong one by two methods, one second class, one failure."""
    run = []
    for number, (folder, share) in enumerate(
        [("tabby", 0.95), ("tabby", 0.4), ("dog", 0.6), ("tabby", 0.7)]
    ):
        name = f"{folder}/{number}.png"
        run.append(made(name, spot(1 + number, 2), probability=share))
        column = 2 if number else 6
        run.append(made(name, spot(1 + number, column), probability=share, method="layercam"))
    second = {"label": HOSTILE, "category": 2, "rank": 2, "probability": 0.05}
    run.append(made("tabby/0.png", spot(6, 6), **second))
    run.append(failed("tabby/broken.png", "it is <b>damaged</b>"))
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return write_report(write_run(folder, items()), labels="folders").page.path


class Shown:
    """A page that was opened, with what went wrong in it."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        settings = {"viewport": {"width": 1280, "height": 800}} | options
        self.page = browser.new_page(**settings)
        self.wrong, self.requests = note_faults(self.page)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(CARDS)

    def count(self) -> int:
        """The number of heatmaps that the page says it shows, when what was typed shows."""
        self.page.wait_for_timeout(200)
        return int(self.page.inner_text("#count").split(" ")[0].replace(",", ""))

    def files(self) -> list[str]:
        """The files of the cards, in the order in which they stand."""
        cards = self.page.query_selector_all(CARDS)
        cards.sort(key=lambda card: int(card.get_attribute("aria-posinset")))
        return [card.query_selector(".file").inner_text() for card in cards]

    def pixels(self, selector: str) -> NDArray[np.uint8]:
        self.page.wait_for_timeout(100)
        content = self.page.locator(selector).first.screenshot()
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    def set_range(self, name: str, value: float) -> None:
        self.page.locator(f"#{name}").fill(str(value))

    def choose(self, name: str, value: str) -> int:
        self.page.locator(f"#{name} label", has_text=value).first.click()
        return self.count()


@pytest.fixture
def shown(browser: Any, report: Path) -> Iterator[Shown]:
    opened = Shown(browser, report)
    yield opened
    assert opened.wrong == []
    # nothing but the page itself, and what stands in it
    assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in opened.requests) == 1
    opened.page.close()


def test_the_slider_lays_more_or_less_heat_on_the_picture(shown: Shown) -> None:
    seen = []
    for alpha in (0, 0.5, 1):
        shown.set_range("alpha", alpha)
        seen.append(shown.pixels(f"{CARDS} .frame").astype(int))
    picture = make_picture(np.full((48, 64, 3), (90, 120, 60), np.uint8))
    for alpha, actual in zip((0, 0.5, 1), seen, strict=True):
        expected = overlay(picture, spot(1, 2), alpha, "jet", box=Box(8, 0, 56, 48))
        if alpha == 0:
            expected = picture.pixels  # what the network did not see is dim only under heat
        height, width = actual.shape[:2]
        for y, x in ((0.2, 0.35), (0.5, 0.5), (0.9, 0.8), (0.5, 0.02)):
            at = expected[int(y * 48), int(x * 64)].astype(int)
            # WebP, and colours between two pixels of another grid
            assert np.abs(actual[int(y * height), int(x * width)] - at).max() < 16, (alpha, y, x)


def test_opacity_can_follow_the_heat(shown: Shown) -> None:
    shown.page.check("#follows")
    shown.set_range("alpha", 0.75)
    actual = shown.pixels(f"{CARDS} .frame").astype(int)
    picture = make_picture(np.full((48, 64, 3), (90, 120, 60), np.uint8))
    expected = overlay(picture, spot(1, 2), "auto", "jet", box=Box(8, 0, 56, 48)).astype(int)
    height, width = actual.shape[:2]
    for y, x in ((0.2, 0.4), (0.3, 0.5), (0.9, 0.8)):
        at = expected[int(y * 48), int(x * 64)]
        assert np.abs(actual[int(y * height), int(x * width)] - at).max() < 24, (y, x)


def test_other_colours_are_shown(shown: Shown) -> None:
    before = shown.pixels(f"{CARDS} .frame").astype(int)
    shown.page.select_option("#colormap", "viridis")
    assert np.abs(shown.pixels(f"{CARDS} .frame").astype(int) - before).mean() > 5


def test_outlines_and_boxes_are_drawn(shown: Shown) -> None:
    before = shown.pixels(f"{CARDS} .frame").astype(int)
    shown.page.check("#contour")
    outlined = shown.pixels(f"{CARDS} .frame").astype(int)
    assert np.abs(outlined - before).max() > 100
    shown.page.uncheck("#contour")
    shown.page.select_option("#boxes", "largest")
    boxed = shown.pixels(f"{CARDS} .frame").astype(int)
    assert np.abs(boxed - before).max() > 100 and (boxed != outlined).any()
    shown.page.select_option("#boxes", "")
    assert np.abs(shown.pixels(f"{CARDS} .frame").astype(int) - before).max() < 3


def test_switches_and_filters_leave_what_fits(shown: Shown) -> None:
    assert shown.count() == 10
    assert shown.choose("method", "layercam") == 5  # the failure is of no method
    assert shown.choose("state", "made") == 4
    shown.page.click("#reset")
    assert shown.count() == 10
    assert shown.choose("rank", "2nd") == 2
    shown.page.click("#reset")
    assert shown.choose("state", "failed") == 1
    assert shown.page.inner_text(f"{CARDS} .why") == "it is <b>damaged</b>"
    shown.page.click("#reset")
    assert shown.choose("verdict", "right") == 7
    assert shown.choose("verdict", "wrong") == 2 and shown.files() == ["2.png", "2.png"]
    shown.page.click("#reset")
    shown.page.fill("#least", "65")
    assert shown.count() == 4
    shown.page.fill("#most", "80")
    assert shown.count() == 2 and shown.files() == ["3.png", "3.png"]
    shown.page.click("#reset")
    shown.page.select_option("#label", label=f"{HOSTILE} (1)")
    assert shown.count() == 1
    shown.page.click("#reset")
    shown.page.fill("#search", "TABBY/1 layer")
    assert shown.count() == 1
    shown.page.fill("#search", "nothing of the kind")
    assert shown.count() == 0 and shown.page.is_visible("#empty")
    shown.page.click("#reset-filters")
    shown.set_range("agreement", 0.5)
    assert shown.count() == 2 and set(shown.files()) == {"0.png"}


def test_sorting_sorts_both_ways(shown: Shown) -> None:
    shown.choose("method", "gradcam")
    shown.choose("rank", "predicted")
    shown.choose("state", "made")
    shown.page.select_option("#sort", "probability")
    shown.count()
    assert shown.files() == ["0.png", "3.png", "2.png", "1.png"]
    shown.page.click("#direction")
    shown.count()
    assert shown.files() == ["1.png", "2.png", "3.png", "0.png"]


def test_a_hostile_label_stays_text(shown: Shown) -> None:
    shown.choose("rank", "2nd")
    card = shown.page.locator(CARDS).first
    assert card.locator(".class").inner_text() == HOSTILE
    card.locator("button").click()
    assert HOSTILE in shown.page.inner_text("#detail-facts")
    assert shown.page.locator("img[src=x]").count() == 0
    shown.page.keyboard.press("Escape")
    shown.page.click("#tab-summary")
    assert HOSTILE in shown.page.text_content("#classes")


def test_raw_values_are_read_under_the_cursor(shown: Shown) -> None:
    box = shown.page.locator(f"{CARDS} .view").first.bounding_box()
    cell = box["width"] / 7
    shown.page.mouse.move(box["x"] + 2.5 * cell, box["y"] + 1.5 * cell)
    assert "1 \N{MIDDLE DOT} row 2, column 3 of 7" in shown.page.inner_text("#readout")
    shown.page.mouse.move(box["x"] + 3.5 * cell, box["y"] + 1.5 * cell)
    value = float(shown.page.inner_text("#readout").split()[0])
    assert value == pytest.approx(float(spot(1, 2)[1, 3]), abs=1e-4)
    shown.page.mouse.move(2, 2)
    assert shown.page.is_hidden("#readout")


def test_the_keyboard_is_enough(shown: Shown) -> None:
    page = shown.page
    page.locator(f"{CARDS} button").first.focus()
    page.keyboard.press("ArrowRight")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused).startswith("0.png, tabby, tabby cat, 95%, layercam")
    page.keyboard.press("Enter")
    assert page.is_visible("#detail") and page.inner_text("#detail-place") == "2 of 10"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#detail-place") == "3 of 10"
    page.keyboard.press("Shift+ArrowRight")
    assert "row 4, column 4 of 7" in page.inner_text("#detail-value")
    page.keyboard.press("Shift+ArrowUp")
    assert "row 3, column 4" in page.inner_text("#detail-value")
    page.keyboard.press("Escape")
    assert page.is_hidden("#detail") and page.evaluate(focused).startswith("0.png")
    page.keyboard.press("End")
    assert page.evaluate(focused) == "broken.png, failed, it is <b>damaged</b>"
    page.keyboard.press("0")
    assert page.input_value("#alpha") == "0"
    page.keyboard.press("0")
    page.keyboard.press("+")
    assert page.input_value("#alpha") == "0.6"
    page.keyboard.press("m")
    assert shown.count() == 6
    page.keyboard.press("/")
    page.keyboard.type("dog")
    assert shown.count() == 1


def test_the_other_maps_of_a_picture_are_a_click_away(shown: Shown) -> None:
    shown.page.locator(f"{CARDS} button").first.click()
    others = shown.page.locator("#detail-others button")
    assert others.count() == 3
    before = shown.pixels("#stage")
    others.nth(1).click()
    assert shown.page.inner_text("#detail-facts").count("layercam") == 1
    assert (shown.pixels("#stage") != before).any()


def test_the_chosen_theme_is_shown(browser: Any, report: Path) -> None:
    for scheme, is_light in (("light", True), ("dark", False)):
        opened = Shown(browser, report, color_scheme=scheme)
        assert (opened.pixels("#count").mean() > 128) == is_light
        opened.page.click("#theme-button")
        assert (opened.pixels("#count").mean() > 128) != is_light
        opened.page.close()


def test_the_summary_names_and_shows_each_class(shown: Shown) -> None:
    shown.page.click("#tab-summary")
    assert shown.page.locator(".class-card").count() == 3
    assert "No class's heat hangs on one corner" in shown.page.inner_text("#hints")
    mean = shown.pixels(".class-card .mean").astype(int)
    assert mean.std() > 20
    shown.page.select_option("#summary-sort", "border")
    assert shown.page.locator(".class-card h3").first.text_content() == HOSTILE
    shown.page.locator(".mini").first.click()
    assert shown.page.is_visible("#detail")


def test_what_is_chosen_is_printed(shown: Shown) -> None:
    shown.choose("verdict", "wrong")
    shown.page.emulate_media(media="print")
    shown.page.wait_for_timeout(200)
    assert shown.page.locator("#print .card").count() == 2
    assert shown.page.is_hidden("#controls") and shown.page.is_visible("#print .card")
    shown.page.emulate_media(media="screen")
    content = shown.page.pdf()
    assert content.startswith(b"%PDF") and len(content) > 5_000


@pytest.mark.skipif(find_axe() is None, reason="there is no axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, report: Path, scheme: str) -> None:
    script = find_axe()
    assert script is not None
    opened = Shown(browser, report, color_scheme=scheme)
    opened.page.evaluate(script.read_text(encoding="utf-8") + ";0")
    found = run_axe(opened.page)
    opened.page.locator(f"{CARDS} button").first.click()
    found += run_axe(opened.page)
    opened.page.keyboard.press("Escape")
    opened.page.keyboard.press("?")
    found += run_axe(opened.page)
    opened.page.keyboard.press("Escape")
    opened.page.click("#tab-summary")
    opened.page.wait_for_timeout(300)
    found += run_axe(opened.page)
    assert found == []
    opened.page.close()


def test_thousands_of_rows_are_made_as_they_come_into_view(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "can_cluster", lambda: False)
    maps = [made(f"{n // 25}.png", spot(n % 7, n // 7 % 7), category=n % 9) for n in range(5000)]
    written = write_report(write_run(tmp_path, maps))
    opened = Shown(browser, written.page.path)
    assert opened.count() == 5000
    cards = "document.querySelectorAll('.card').length"
    assert opened.page.evaluate(cards) < 100
    for _ in range(30):
        opened.page.evaluate("document.getElementById('gallery').scrollBy(0, 2500)")
        opened.page.wait_for_timeout(20)
    opened.page.locator(f"{CARDS} button").first.focus()
    opened.page.keyboard.press("End")
    last = opened.page.locator(".card[aria-posinset='5000'] .file")
    assert last.inner_text() == "199.png" and last.is_visible()
    assert opened.page.evaluate(cards) < 150
    assert opened.wrong == []
    opened.page.close()


def test_pictures_beside_the_page_are_loaded_from_disk(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PICTURES_A_FILE", 2)
    out = write_run(tmp_path, items())
    monkeypatch.setattr(build.write_page, "__defaults__", (1000,))
    written = write_report(out)
    assert written.page.folder is not None
    opened = Shown(browser, written.page.path)
    opened.page.wait_for_function(
        "[...document.querySelectorAll('.card:not([hidden]) .frame:not([hidden]) img')]"
        ".every((image) => image.naturalWidth === 64)"
    )
    assert opened.wrong == []
    scripts = [url for url in opened.requests if url.endswith(".js")]
    assert sorted(url.rpartition("/")[2] for url in scripts) == ["pictures-0.js", "pictures-1.js"]
    opened.page.close()
