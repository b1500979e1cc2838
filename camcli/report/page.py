"""Writes the page: one file that asks the network for nothing, or with a folder of pictures."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from camcli.errors import OutputError
from camcli.report.page_data import PageContent, make_page_data
from camcli.utils.jsonable import to_jsonable

LARGEST_PAGE = 50 * 10**6  # bytes; of a larger one, thumbnails stand in a folder beside it
PICTURES_A_FILE = 100
SCRIPTS = ("maps.js", "state.js", "cards.js", "gallery.js", "detail.js", "summary.js", "page.js")
# how it looks (colours, buttons, fields), as other pages of camviz do, and what is its own
LOOK = "look.css"
STYLES = (LOOK, "page.css")
# what would end the script that the data stand in, or a line of it
ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


@dataclass(frozen=True)
class WrittenPage:
    """A page's file, its size in bytes, and the folder beside it, None where there is none."""

    path: Path
    size: int
    folder: Path | None


def write_page(content: PageContent, path: Path, largest: int = LARGEST_PAGE) -> WrittenPage:
    """Writes the page; raises OutputError.

    Its pictures stand in it up to a size, and else in a folder of the page's name beside it.
    """
    data = make_page_data(content, path)
    texts = [base64.b64encode(content).decode("ascii") for content in content.thumbnails.contents]
    folder = path.with_name(f"{path.stem}_files")
    whole = render_page(data, texts)
    is_split = len(whole) > largest
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_split:
            _write_folder(folder, texts)
            whole = render_page({**data, "folder": folder.name}, texts)
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(whole)
        part.replace(path)
        if not is_split and _is_ours(folder):
            # of the last time, when there were more
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(
            f"Cannot write {str(path)!r}: {error.strerror or error}. Name another file."
        ) from error
    return WrittenPage(path, len(whole), folder if is_split else None)


def render_page(data: Mapping[str, Any], thumbnails: Sequence[str]) -> bytes:
    """Renders the page of its data and thumbnails in base64, which may stand in a folder."""
    is_split = "folder" in data
    index = {
        "lengths": [] if is_split else list(map(len, thumbnails)),
        "folder": data.get("folder"),
        "per_file": PICTURES_A_FILE,
    }
    style, script = (_read_assets(names) for names in (STYLES, SCRIPTS))
    environment = Environment(
        loader=PackageLoader("camcli.report", "assets"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("page.html.jinja").render(
        title=data["title"],
        style=Markup(style),
        script=Markup(script),
        nonce=sha256(script.encode()).hexdigest()[:24],
        data=Markup(to_inline_json({**data, "thumbnails": index})),
        thumbnails=Markup("".join(() if is_split else thumbnails)),
    )
    # names that are no UTF-8 come as surrogates
    return text.encode("utf-8", "replace")


def to_inline_json(value: Any) -> str:
    """Writes JSON that can stand in a script of a page, whatever its texts hold.

    >>> to_inline_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(to_jsonable(value), allow_nan=False, separators=(",", ":"))
    return text.translate(ESCAPES)


def read_look() -> str:
    """Returns the style sheet of what pages of camviz share: colours, buttons and fields."""
    return _read_assets((LOOK,))


def _read_assets(names: Sequence[str]) -> str:
    assets = resources.files("camcli.report") / "assets"
    return "\n".join(assets.joinpath(name).read_text(encoding="utf-8") for name in names)


MARK = "made-by-camviz.txt"


def _write_folder(folder: Path, texts: Sequence[str]) -> None:
    """Writes thumbnails as scripts, which a page may load from a disk, too."""
    folder.mkdir(exist_ok=True)
    (folder / MARK).write_text(f"Pictures of {folder.name.removesuffix('_files')}.html\n")
    for name, script in _make_scripts(texts):
        (folder / name).write_text(script, encoding="ascii")


def _make_scripts(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for start in range(0, len(texts), PICTURES_A_FILE):
        number = start // PICTURES_A_FILE
        chunk = json.dumps(texts[start : start + PICTURES_A_FILE])
        yield f"pictures-{number}.js", f"camvizPictures({number},{chunk});\n"


def _is_ours(folder: Path) -> bool:
    return (folder / MARK).is_file()
