"""Files and URLs, opened alike."""

from __future__ import annotations

import io
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from camcli.errors import ImageError, SourceError
from camcli.media.sources import byte_stream as opening
from camcli.media.sources.byte_stream import check_protocol, find_filesystem, open_source
from camcli.records import Source
from tests.checkout import ROOT


class Streams(MemoryFileSystem):
    """Sends files as some servers do: once, from the start, without their size."""

    protocol = "streams"

    def _open(self, *_: Any, **__: Any) -> Any:
        return Stream(b"0123456789" * 100)


class Stream(io.RawIOBase):
    size = None

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, number: int = -1) -> bytes:
        # a network gives less than what was asked for
        some, self.content = self.content[: min(7, number)], self.content[min(7, number) :]
        return some


@pytest.fixture(autouse=True)
def remote() -> Iterator[None]:
    fsspec.register_implementation("streams", Streams, clobber=True)
    files = fsspec.filesystem("memory")
    files.pipe("/here/a b.jpg", b"bytes")
    yield
    files.rm("/here", recursive=True)


def test_a_file_is_read_and_closed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"local")
    with open_source(Source(tmp_path / "a.jpg")) as file:
        assert (file.read(2), file.seek(0), file.read()) == (b"lo", 0, b"local")
    assert file.closed


def test_what_lies_behind_a_url_is_read() -> None:
    with open_source(Source(Path("here/a b.jpg"), url="memory://here/a b.jpg")) as file:
        assert (file.read(2), file.seek(0), file.read()) == (b"by", 0, b"bytes")


def test_signs_of_a_glob_are_part_of_a_urls_name() -> None:
    fsspec.filesystem("memory").pipe("/here/[a]*.jpg", b"signs")
    with open_source(Source(Path("x"), url="memory://here/[a]*.jpg")) as file:
        assert file.read() == b"signs"


def test_what_is_not_there_is_reported_as_of_files(tmp_path: Path) -> None:
    for source in (Source(tmp_path / "no.jpg"), Source(Path("no"), url="memory://here/no.jpg")):
        with pytest.raises(FileNotFoundError), open_source(source):
            pass


def test_a_stream_can_be_read_back_and_forth(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(Path("a.jpg"), url="streams://a.jpg")
    with open_source(source) as file:
        assert len(file.read()) == 1000
        assert (file.seek(5), file.read(3)) == (5, b"567")
    monkeypatch.setattr(opening, "LARGEST_STREAM", 900)
    with pytest.raises(ImageError, match="the server does not say how much"), open_source(source):
        pass


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = (("s3", "s3", "s3fs"), ("gs", "gs", "gcsfs"), ("https", "http", "aiohttp"))
    for protocol, extra, package in needed:
        monkeypatch.delitem(_registry, protocol, raising=False)
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
        with pytest.raises(
            SourceError, match=rf"'{protocol}://a/b' needs.*pip install 'camviz\[{extra}\]'"
        ):
            check_protocol(f"{protocol}://a/b")
        file = ROOT / "pyproject.toml"
        extras = tomllib.loads(file.read_text())["project"]["optional-dependencies"]
        assert any(line.startswith(package) for line in extras[extra])
    monkeypatch.setitem(sys.modules, "paramiko", None)
    with pytest.raises(SourceError, match=r'sftp://a/b.*"paramiko" to be installed'):
        check_protocol("sftp://a/b")


def test_urls_that_nobody_reads() -> None:
    with pytest.raises(SourceError, match=r"'nope://a' has a protocol that nobody knows.*s3, gs"):
        find_filesystem("nope://a")
    with pytest.raises(SourceError, match="several URLs in one"):
        find_filesystem("zip://a.jpg::memory://here/a.zip")
