"""Opens the bytes of a source, a file or a URL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

from camcli.errors import ImageError, SourceError
from camcli.records import Source

# a local path stays one, so that pipes and devices are seen for what they are
URL = re.compile(r"(?!file:|local:)[a-z][a-z0-9+.-]*://")

# the extra of camviz that reads them; for other protocols, fsspec's own words
EXTRAS: Mapping[str, str] = {
    "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http",
}  # fmt: skip

LARGEST_STREAM = 2**28  # bytes
CHUNK = 2**20


@contextmanager
def open_source(source: Source) -> Iterator[BinaryIO]:
    """Opens a source to be read; raises what the file system or fsspec raises."""
    if not source.url:
        with source.path.open("rb") as file:
            yield file
        return
    files, path = find_filesystem(source.url)
    with files.open(path, "rb") as file:
        yield _read_whole(file) if getattr(file, "size", 0) is None else file


def find_filesystem(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system for a URL, and the URL's path there; raises SourceError."""
    check_protocol(url)
    if "::" in url:
        # fsspec would take what follows for another URL, and some of its layers run templates
        raise SourceError(f"{url!r} is several URLs in one: name the files themselves.")
    from fsspec.core import url_to_fs

    files, path = url_to_fs(url)
    return files, path


def check_protocol(url: str) -> None:
    """Raises SourceError where fsspec does not know a URL's protocol, or lacks a package for it."""
    import fsspec

    protocol = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        if extra:
            what = f"the extra {extra!r}, which is not installed: pip install 'camviz[{extra}]'"
            raise SourceError(f"{url!r} needs {what}") from error
        raise SourceError(f"{url!r} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise SourceError(
            f"{url!r} has a protocol that nobody knows: s3, gs, http, https and the others of "
            "fsspec are read."
        ) from error


def _read_whole(file: Any) -> BinaryIO:
    # a server that does not say a file's size sends it once and from the start, and Pillow goes
    # back and forth in it
    content = BytesIO()
    while chunk := file.read(CHUNK):
        content.write(chunk)
        if content.tell() > LARGEST_STREAM:
            raise ImageError(
                f"more than {LARGEST_STREAM >> 20} MiB came, and the server does not say how much"
            )
    content.seek(0)
    return content
