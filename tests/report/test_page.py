"""The page is one file without a network, or has its pictures beside it; names stay text."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from camcli.errors import OutputError
from camcli.report.page import PICTURES_A_FILE, render_page, to_inline_json, write_page
from camcli.report.page_data import PageContent
from camcli.report.summary import summarise_classes
from camcli.report.thumbnails import Thumbnails
from tests.report.made_runs import made, spot, stored

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- <script>",
    "]]>{{ 7 * 7 }}{% raw %}",
    "\u2028\u2029\x00\x1b[31m",
    "\udcff.png",
    "'\"&amp;`${1}",
)


class Parts(HTMLParser):
    """Collects a page's elements with their attributes, and what stands in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._open = dict(attributes).get("id") or tag

    def handle_endtag(self, _: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data


def content(count: int = 1, title: str = "out", **fields: Any) -> PageContent:
    heatmaps = [stored(made(f"{n}.png", spot(1, 1), **fields)) for n in range(count)]
    thumbnails = Thumbnails([bytes([n % 256]) * 30 for n in range(count)])
    thumbnails.by_picture.update({s.picture: n for n, s in enumerate(heatmaps)})
    return PageContent(
        title, heatmaps, summarise_classes(heatmaps, with_clusters=False), thumbnails
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(tmp_path: Path, text: str) -> None:
    page = content(title=text, label=text, model=text, source=text, warnings=(text,))
    written = write_page(page, tmp_path / "a.html")
    parts = Parts(written.path.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in parts.elements]
    assert tags.count("script") == 3 and tags.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in parts.elements for name in attributes)
    data = json.loads(parts.texts["data"])
    assert data["names"]["label"] == [text] and data["heatmaps"]["warnings"] == [[text]]


@pytest.mark.parametrize("text", HOSTILE)
def test_inline_json_ends_no_script_and_comes_back(text: str) -> None:
    written = to_inline_json({"a": text})
    assert written.isascii() and not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"a": text}


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    text = write_page(content(), tmp_path / "a.html").path.read_text()
    parts = Parts(text)
    for tag, attributes in parts.elements:
        assert not {"src", "srcset", "action", "data"} & set(attributes), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    (policy,) = [a["content"] for t, a in parts.elements if a.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    nonces = {a["nonce"] for t, a in parts.elements if t in ("script", "style") and "nonce" in a}
    assert len(nonces) == 1 and f"'nonce-{nonces.pop()}'" in policy
    assert not re.search(r"\b(?:fetch|XMLHttpRequest|innerHTML|eval|document\.write)\b", text)
    assert " style=" not in text and "https://" not in text


def test_thumbnails_stand_in_the_page_one_behind_the_other(tmp_path: Path) -> None:
    page = content(3)
    written = write_page(page, tmp_path / "a.html")
    assert written.folder is None and list(tmp_path.iterdir()) == [written.path]
    assert written.size == written.path.stat().st_size
    parts = Parts(written.path.read_text())
    lengths = json.loads(parts.texts["data"])["thumbnails"]["lengths"]
    text, at = parts.texts["thumbnails"], 0
    for length, expected in zip(lengths, page.thumbnails.contents, strict=True):
        assert base64.b64decode(text[at : at + length]) == expected
        at += length
    assert at == len(text)


def test_a_large_pages_thumbnails_stand_beside_it(tmp_path: Path) -> None:
    page = content(PICTURES_A_FILE + 5)
    whole = write_page(page, tmp_path / "a.html").size
    written = write_page(page, tmp_path / "a.html", largest=whole - 1)
    assert written.folder == tmp_path / "a_files" and written.size < whole
    scripts = sorted(written.folder.glob("*.js"))
    assert [path.name for path in scripts] == ["pictures-0.js", "pictures-1.js"]
    call = re.fullmatch(r"camvizPictures\(1,(\[.*\])\);\n", scripts[1].read_text())
    assert call is not None
    decoded = [base64.b64decode(text) for text in json.loads(call[1])]
    assert decoded == page.thumbnails.contents[PICTURES_A_FILE:]
    assert json.loads(Parts(written.path.read_text()).texts["data"])["thumbnails"]["folder"]
    # a smaller page needs the folder no more
    assert write_page(page, tmp_path / "a.html").folder is None
    assert not (tmp_path / "a_files").exists()


def test_somebody_elses_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "a_files").mkdir()
    (tmp_path / "a_files" / "mine.txt").touch()
    write_page(content(), tmp_path / "a.html")
    assert (tmp_path / "a_files" / "mine.txt").exists()


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        write_page(content(), tmp_path / "file" / "a.html")


def test_a_page_of_nothing_but_failures_is_made() -> None:
    data = {"title": "x", "heatmaps": {}, "pictures": [], "names": {}, "colormaps": {}}
    assert b"<title>x \xc2\xb7 camviz</title>" in render_page(data, [])
