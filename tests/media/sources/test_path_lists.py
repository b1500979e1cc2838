"""Lists of paths, as people, tools and spreadsheets write them."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest

from camcli.errors import SourceError
from camcli.media.sources import path_lists


def names(content: bytes) -> list[str]:
    return [name for name, _ in path_lists.read_paths(content, "it")]


def test_lines_of_any_system_and_blank_ones() -> None:
    assert names(b"a.jpg\nb c.jpg\r\n\n  \n\r\n#d.jpg\n e.jpg ") == [
        "a.jpg",
        "b c.jpg",
        "#d.jpg",
        " e.jpg ",
    ]
    assert names(b"") == names(b"\n \n") == []


def test_names_between_nuls_keep_every_sign() -> None:
    assert names(b"a\nb.jpg\0 \0c\r\0\0") == ["a\nb.jpg", " ", "c\r"]


def test_many_nuls_on_end_are_no_names() -> None:
    assert names(bytes(10_000_000)) == []
    assert names(b"a" + bytes(10_000_000) + b"b") == ["a", "b"]


def test_a_list_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_lists, "LARGEST", 2**20)
    assert path_lists.read_list(BytesIO(bytes(2**20)), "it") == bytes(2**20)
    message = "it is larger than 1 MiB: is there an end to it"
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(SourceError, match=message):
        path_lists.read_list(zeros, "it")


def test_names_are_bytes() -> None:
    (name,) = names(b"n\xf6\xff \xe2\x82\xac.jpg\n")
    assert os.fsencode(name) == b"n\xf6\xff \xe2\x82\xac.jpg"


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert names(b"\xef\xbb\xbfa.jpg\n") == ["a.jpg"]
    with pytest.raises(SourceError, match="it is UTF-16 text: save it as UTF-8"):
        names("a.jpg\n".encode("utf-16"))


def test_comments_stand_in_texts_only() -> None:
    content = b"# list\na.jpg\n#b.jpg\n./#c.jpg\n"
    assert [name for name, _ in path_lists.read_text_list(content, "it")] == ["a.jpg", "./#c.jpg"]


def test_a_table_has_columns_by_name() -> None:
    content = (
        b'\xef\xbb\xbfCategory, id,Path\r\n tabby ,1,a.jpg\r\n\r\n"x, y",2,"b,c.jpg"\r\n,3,\xff\r\n'
    )
    assert list(path_lists.read_table(content, "it")) == [
        ("a.jpg", "tabby"),
        ("b,c.jpg", "x, y"),
        ("\udcff", ""),
    ]
    assert list(path_lists.read_table(b"path\na.jpg\n", "it")) == [("a.jpg", "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no column 'path'.*path,category"),
        (b"a.jpg,tabby\n", "no column 'path'.*is 'a.jpg,tabby'"),
        (b"paths\n", "no column 'path'.*Closest: 'paths'"),
        (b"path,category\na.jpg\n", "it, line 2 has 1 values.*2 names.*double quotes"),
        (b"path\na.jpg\nb, c.jpg\n", "it, line 3 has 2 values"),
        (b"path,category\n ,tabby\n", "it, line 2 has no path"),
        (b'path\n"a.jpg\n', "it, line 2 is no CSV"),
        (b"path\n" + b"x" * 200_000, "it, line 2 is no CSV"),
    ],
)
def test_what_is_wrong_in_a_table(content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        list(path_lists.read_table(content, "it"))
