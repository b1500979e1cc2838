"""Lists the files behind a URL with fsspec's file systems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from camcli.media.sources.byte_stream import find_filesystem
from camcli.media.sources.walk import MAGIC, Pattern, matches

Kind = Literal["file", "folder", ""]
WEB = ("http://", "https://")


def find_kind(url: str) -> Kind:
    """Tells what a URL is, nothing where it is not there; a `/` at its end says that itself."""
    if url.endswith("/"):
        return "folder"
    files, path = find_filesystem(url)
    try:
        return "folder" if files.info(path)["type"] == "directory" else "file"
    except FileNotFoundError:
        return ""


def split_url(url: str) -> tuple[str, Pattern]:
    """Parts a URL at its first folder or name with `*`, `?` or `[`; `?` asks in a web address."""
    protocol, _, rest = url.partition("://")
    parts = (rest.partition("?")[0] if url.startswith(WEB) else rest).split("/")
    fixed = next((i for i, part in enumerate(parts) if MAGIC.search(part)), len(parts))
    return f"{protocol}://{'/'.join(parts[:fixed])}", tuple(parts[fixed:])


def walk_url(url: str, pattern: Pattern) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields the folders below a URL, and the URLs of files in them, that match."""
    files, root = find_filesystem(url)
    protocol, _, place = url.partition("://")
    depth = None if "**" in pattern else len(pattern)
    for path in files.find(root, maxdepth=depth):
        below = path.removeprefix(root.rstrip("/")).lstrip("/")
        names = tuple(below.split("/"))
        # a web page may link to where nobody asked to go
        if path.startswith(root) and matches(pattern, names):
            whole = "/".join(filter(None, (place.rstrip("/"), below)))
            yield names[:-1], f"{protocol}://{whole}"


def url_path(url: str) -> Path:
    """Returns host and path of a URL, without protocol, user and, of a web address, query."""
    host, slash, path = url.partition("://")[2].partition("/")
    bare = re.split("[?#]", path)[0] if url.startswith(WEB) else path
    return Path(host.rpartition("@")[2] + slash + bare)
