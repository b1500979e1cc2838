"""The page of `camviz serve` in a real Chromium: real uploads, friendly and hostile."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import camcli
from camcli.serve.offered_models import OfferedModel
from tests.browser import find_axe, find_chromium, note_faults, open_browser, run_axe
from tests.serve.visitors import LABELS, Visitor, encode, make_pixels

pytest.importorskip("playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium"),
]

HOSTILE = '<img src=x onerror="alert(1)">$(id)\u202e.png'
READ_PIXELS = """(image) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [canvas.height, canvas.width, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""  # noqa: E501
GIVE_FILE = """([kind, name, text]) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  document.body.dispatchEvent(event);
}"""  # noqa: E501


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Playwright's loop stands in this thread, and other tests' servers have their own
    with open_browser() as opened:
        yield opened


class Opened:
    """The page as one visitor has it, with what went wrong in it."""

    def __init__(self, browser: Any, visitor: Visitor, hash_: str = "", **options: Any) -> None:
        self.url = f"http://127.0.0.1:{visitor.port}/"
        settings = {"viewport": {"width": 1280, "height": 800}} | options
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.wrong, self.requests = note_faults(self.page)
        self.page.goto(self.url + hash_)
        self.page.wait_for_selector("body[data-ready]")

    def choose_file(self, content: bytes, name: str = "a.png", kind: str = "image/png") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})
        self.wait()

    def wait(self) -> None:
        """Waits until all that was asked for is shown, or refused."""
        self.page.wait_for_timeout(100)
        self.page.wait_for_selector(".tile.waiting", state="detached")

    def choose_methods(self, *names: str) -> None:
        for name in names:
            self.page.locator("#methods label").get_by_text(name, exact=True).click()
            self.wait()

    def titles(self) -> list[str]:
        return self.page.locator(".tile .heading span").all_inner_texts()

    def overlay(self, place: int = 0) -> NDArray[np.uint8]:
        """The pixels of a tile's overlay as the browser decoded them."""
        image = self.page.locator(".tile .overlay").nth(place)
        height, width, values = image.evaluate(READ_PIXELS)
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    def look(self, selector: str) -> NDArray[np.int64]:
        self.page.wait_for_timeout(100)
        content = self.page.locator(selector).first.screenshot()
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    def status(self) -> str:
        return str(self.page.inner_text("#status"))


@pytest.fixture
def opened(browser: Any, visitor: Visitor) -> Iterator[Opened]:
    one = Opened(browser, visitor)
    yield one
    assert one.wrong == []
    foreign = [url for url in one.requests if not url.startswith((one.url, f"blob:{one.url}"))]
    assert foreign == []
    one.context.close()


def draw(offered: OfferedModel, pixels: Any, alpha: float = 0.5, **options: Any) -> Any:
    return next(iter(camcli.explain(offered.classifier, pixels, **options))).overlay(alpha)


def test_a_picture_that_is_chosen_is_shown_with_the_commands_own_pixels(
    opened: Opened, offered: OfferedModel
) -> None:
    pixels = make_pixels()
    opened.choose_file(encode(pixels), "my cat.png")
    assert opened.titles() == ["Original", "gradcam"]
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels))
    assert opened.status().startswith("my cat.png, 48 \N{MULTIPLICATION SIGN} 40 pixels: ")
    opened.choose_methods("layercam", "eigencam")
    assert opened.titles() == ["Original", "gradcam", "layercam", "eigencam"]
    np.testing.assert_array_equal(opened.overlay(1), draw(offered, pixels, method="layercam"))
    assert "the same for every class" in opened.page.inner_text(".tile:nth-child(4) .facts")
    opened.page.select_option("#layer", "middle")
    opened.wait()
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels, target_layers="middle"))
    opened.choose_methods("gradcam")
    assert opened.titles() == ["Original", "layercam", "eigencam"]


def test_a_class_is_a_click_or_a_word_away(opened: Opened, offered: OfferedModel) -> None:
    pixels = make_pixels(4)
    opened.choose_file(encode(pixels))
    likeliest = opened.page.locator("#likeliest button")
    # a hostile label is text
    shown = likeliest.locator(".label").all_text_contents()
    assert sorted(shown) == sorted(label.split(",")[0] for label in LABELS)
    assert opened.page.locator("img[src=x]").count() == 0
    likeliest.filter(has_text=LABELS[2]).click()
    opened.wait()
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels, target_category=2))
    assert LABELS[2] in opened.page.inner_text(".facts")
    assert likeliest.filter(has_text=LABELS[2]).get_attribute("aria-pressed") == "true"
    opened.page.fill("#category", "dog")
    opened.page.keyboard.press("Enter")
    opened.wait()
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels, target_category=1))
    opened.page.fill("#category", "")
    opened.page.keyboard.press("Enter")
    opened.wait()
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels))


def test_the_slider_lays_more_or_less_heat_on_the_picture(
    opened: Opened, offered: OfferedModel
) -> None:
    pixels = make_pixels()
    opened.choose_file(encode(pixels))
    for alpha in (0.0, 0.3, 0.9):
        opened.page.locator("#alpha").fill(str(alpha))
        seen, expected = opened.look(".tile .overlay"), draw(offered, pixels, alpha).astype(int)
        height, width = seen.shape[:2]
        for y, x in ((10, 12), (20, 24), (30, 30), (20, 40)):
            at = seen[int((y + 0.5) / 40 * height), int((x + 0.5) / 48 * width)]
            # JPEG, and colours between two pixels of the picture's own
            assert np.abs(at - expected[y, x]).max() < 24, (alpha, y, x)
    with opened.page.expect_download() as download:
        opened.page.click(".save")
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"))
    np.testing.assert_array_equal(saved, draw(offered, pixels, 0.9))
    assert download.value.suggested_filename.startswith("a_gradcam_")


def test_the_same_command_and_a_link_can_be_copied(browser: Any, visitor: Visitor) -> None:
    opened = Opened(browser, visitor, permissions=["clipboard-read", "clipboard-write"])
    opened.choose_file(encode(make_pixels()), HOSTILE)
    opened.choose_methods("layercam")
    opened.page.fill("#category", "dog")
    opened.page.keyboard.press("Enter")
    opened.page.locator("#alpha").fill("0.7")
    opened.page.wait_for_timeout(400)
    opened.page.click("#copy")
    copied = opened.page.evaluate("navigator.clipboard.readText()")
    assert copied == opened.page.inner_text("#command") and copied.isprintable()
    assert copied.startswith("camviz $'./<img src=x onerror=\"alert(1)\">$(id)\\U0000202e.png' ")
    assert shlex.split(copied)[-6:] == [
        "--method", "gradcam,layercam", "--target-category", "dog", "--alpha", "0.7",
    ]  # fmt: skip
    assert opened.page.inner_text("#name") == HOSTILE
    opened.page.click("#link")
    link = opened.page.evaluate("navigator.clipboard.readText()")
    opened.context.close()
    again = Opened(browser, visitor, f"#{link.partition('#')[2]}")
    pixels = make_pixels(2)
    again.choose_file(encode(pixels))
    assert again.titles() == ["Original", "gradcam", "layercam"]
    assert again.page.inner_text("#alpha-value") == "70%"
    assert (opened.wrong, again.wrong) == ([], [])
    again.context.close()


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_can_be_dropped_or_pasted(
    opened: Opened, offered: OfferedModel, kind: str
) -> None:
    pixels = make_pixels(5)
    text = base64.b64encode(encode(pixels)).decode()
    opened.page.evaluate(GIVE_FILE, [kind, "b.png", text])
    opened.wait()
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels))


def test_what_a_browser_does_not_show_is_shown_all_the_same(
    opened: Opened, offered: OfferedModel
) -> None:
    pixels = make_pixels()
    opened.choose_file(encode(pixels, "TIFF"), "scan.tif", "image/tiff")
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels))
    original = opened.page.locator("#original img")
    original.evaluate("(image) => image.decode()")
    assert original.evaluate("(image) => image.naturalWidth") == 48


def test_what_is_no_picture_is_told_and_runs_nothing(browser: Any, visitor: Visitor) -> None:
    opened = Opened(browser, visitor)
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(2)</script></svg>'
    )
    for content, name, kind, said in (
        (svg, "a.svg", "image/svg+xml", "That is no picture"),
        (b"<script>alert(1)</script>", "a.html", "text/html", "That is no picture"),
        (encode(make_pixels())[:90], "torn.png", "image/png", "truncated or damaged"),
        (b"", "none.png", "image/png", "That file is empty"),
    ):
        opened.choose_file(content, name, kind)
        assert said in opened.status() and said in opened.page.inner_text(".tile.failed")
    opened.page.fill("#category", "unicorn")
    opened.choose_file(encode(make_pixels()))
    opened.page.fill("#category", "<b>unicorn</b>")
    opened.page.keyboard.press("Enter")
    opened.wait()
    assert "Unknown category '<b>unicorn</b>'" in opened.status()
    # once, and not for each method
    opened.choose_methods("layercam")
    assert opened.page.locator(".tile.failed:visible").count() == 1
    opened.page.fill("#category", "dog")
    opened.page.keyboard.press("Enter")
    opened.wait()
    assert "dog" in opened.status()
    # what the browser itself says of a refused request, and nothing else
    assert all("Failed to load resource" in text for text in opened.wrong)
    opened.context.close()


def test_a_file_that_is_too_large_is_not_even_sent(opened: Opened) -> None:
    opened.page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(32000001)], "huge.png", { type: "image/png" }));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }"""
    )
    assert opened.status() == "huge.png has 32 MB: 32 MB is the most here."
    assert not any("explain" in url for url in opened.requests)


def test_two_visitors_at_once_see_their_own_pictures(
    browser: Any, visitor: Visitor, offered: OfferedModel
) -> None:
    both = [Opened(browser, visitor) for _ in range(2)]
    pictures = [make_pixels(seed) for seed in (6, 7)]
    for one, pixels in zip(both, pictures, strict=True):
        file = {"name": "a.png", "mimeType": "image/png", "buffer": encode(pixels)}
        one.page.set_input_files("#file", file)  # and no wait: the other asks meanwhile
    for one, pixels in zip(both, pictures, strict=True):
        one.wait()
        np.testing.assert_array_equal(one.overlay(), draw(offered, pixels))
        assert one.wrong == []
        one.context.close()


def test_the_last_choice_counts_where_many_are_made_quickly(
    opened: Opened, offered: OfferedModel
) -> None:
    pixels = make_pixels(8)
    opened.choose_file(encode(pixels))
    for _ in range(3):
        for layer in ("stem", "middle", "", "last", "middle"):
            opened.page.select_option("#layer", layer)
    opened.page.wait_for_timeout(300)
    opened.wait()
    np.testing.assert_array_equal(opened.overlay(), draw(offered, pixels, target_layers="middle"))


def test_the_keyboard_is_enough(opened: Opened) -> None:
    opened.choose_file(encode(make_pixels()))
    page = opened.page
    seen: list[str] = []
    page.locator("#theme-button").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
    for name in (
        "file",
        "category",
        "best",
        "gradcam",
        "layer",
        "alpha",
        "command",
        "copy",
        "link",
    ):
        assert name in seen, (name, seen)
    page.locator("#methods input[value=layercam]").focus()
    page.keyboard.press("Space")
    opened.wait()
    assert opened.titles() == ["Original", "gradcam", "layercam"]


@pytest.mark.skipif(find_axe() is None, reason="there is no axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(browser: Any, visitor: Visitor, scheme: str, width: int) -> None:
    script = find_axe()
    assert script is not None
    opened = Opened(browser, visitor, color_scheme=scheme, viewport={"width": width, "height": 800})
    opened.page.evaluate(script.read_text(encoding="utf-8") + ";0")
    found = run_axe(opened.page)
    opened.page.click("#more summary")
    opened.choose_file(encode(make_pixels()))
    opened.choose_methods("layercam")
    found += run_axe(opened.page)
    opened.choose_file(b"no picture", "a.png")
    found += run_axe(opened.page)
    assert found == []
    # nothing runs out of the window
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.context.close()


def test_another_site_can_neither_ask_nor_frame_the_page(
    browser: Any, visitor: Visitor, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = browser.new_page()
    foreign = tmp_path / "evil.html"
    foreign.write_text("<p>evil</p>")
    page.goto(foreign.as_uri())
    address = f"http://127.0.0.1:{visitor.port}/"
    asked = """async ([address, body, type]) => {
      try {
        const answer = await fetch(`${address}explain`, { method: "POST", body, mode: "no-cors", headers: { "Content-Type": type } });
        return answer.type;
      } catch (error) { return "refused"; }
    }"""  # noqa: E501
    at_the_desk: list[object] = []
    monkeypatch.setattr(visitor.server.desk, "ask", lambda *given: at_the_desk.append(given))
    picture = base64.b64encode(encode(make_pixels())).decode()
    for kind in ("text/plain", "application/octet-stream"):
        assert page.evaluate(asked, [address, picture, kind]) in ("opaque", "refused")
    assert at_the_desk == []
    read = "async (address) => { try { return await (await fetch(address)).text(); } catch { return 'refused'; } }"  # noqa: E501
    assert page.evaluate(read, f"{address}choices") == "refused"
    framed = page.evaluate(
        """(address) => new Promise((resolve) => {
          const frame = document.createElement("iframe");
          frame.onload = () => { try { resolve(frame.contentDocument ? "blank" : "other"); } catch { resolve("other"); } };
          frame.src = address;
          document.body.append(frame);
        })""",  # noqa: E501
        address,
    )
    assert framed == "other"
    texts = [frame.content() for frame in page.frames[1:]]
    assert not any("Drop a picture" in text for text in texts)
    page.close()
