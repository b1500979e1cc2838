"""What nobody with good intentions sends, and what then happens: nothing, and a clear line."""

from __future__ import annotations

import socket
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from camcli.registry import METHODS
from camcli.serve.guard import PICTURE_TYPE
from camcli.serve.limits import Limits
from camcli.serve.offered_models import OfferedModel
from camcli.serve.uploads import MOST_SCANS, clean_name
from tests.serve.visitors import Visitor, encode, make_pixels, serving

PNG = encode(make_pixels())
JPEG = encode(make_pixels(), "JPEG")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def announce(width: int, height: int) -> bytes:
    """A PNG that says that it has so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    whole = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + whole + PNG[33:]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 422, "That file is empty"),
        (b"no picture", 415, "That is no picture"),
        (SVG, 415, "That is no picture"),
        (b"<!doctype html><script>alert(1)</script>", 415, "That is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run", 415, "no picture"),
        (b"%PDF-1.7\n", 415, "That is no picture"),
        (b"PK\x03\x04" + bytes(64), 415, "That is no picture"),
        (PNG[:60], 422, "Cannot read that picture: it is truncated or damaged"),
        (JPEG[: len(JPEG) // 2], 422, "Cannot read that picture: it is truncated or damaged"),
        (b"\xff\xd8\xff" + bytes(100), 422, "Cannot read that picture: it is no image"),
        (b"RIFF\x00\x00\x00\x00WEBP" + bytes(50), 422, "Cannot read that picture"),
        (b"\0\0\0\x20ftypavif" + bytes(50), 422, "Cannot read that picture"),
        (announce(10_000, 10_000), 422, "100000000 pixels are too many|are too many: 50,000,000"),
        (announce(40_000, 1), 422, "an edge of 40,000 pixels: 30,000 is the most"),
        (announce(2**31 - 1, 2**31 - 1), 422, "Cannot read that picture"),
        (JPEG + b"\xff\xda" * (MOST_SCANS + 1), 422, "more than 64 scans"),
        (b"GIF89a" + b"\x21\xf9\x04" * 99, 422, "Cannot read that picture"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(
    visitor: Visitor, content: bytes, status: int, said: str
) -> None:
    answer = visitor.post(content, name="upload.png")
    assert answer.status == status and answer.headers["Content-Type"] == "application/json"
    assert any(words in answer.error for words in said.split("|")), answer.error
    assert visitor.post(PNG).status == 200  # and the next visitor is answered


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"method": "nonsense"}, "Unknown method 'nonsense'"),
        ({"method": "rollout"}, "rollout does not fit"),
        ({"method": "all"}, "Unknown method 'all'"),
        ({"layer": "nowhere"}, "Unknown layer"),
        ({"layer": "__class__.__init__"}, "Unknown layer"),
        ({"category": "unicorn"}, "Unknown category 'unicorn'"),
        ({"category": "99"}, "There is no category 99"),
        ({"category": "bir"}, "could be"),
        ({"alpha": "nan"}, "a number from 0 to 1"),
        ({"alpha": "7"}, "a number from 0 to 1"),
        ({"model": "../net.py"}, "Unknown model"),
        ({"category": "x" * 2000}, "The address is too long"),
        ({"method": ["gradcam"] * 100}, "too many parts"),
    ],
)
def test_what_is_not_offered_is_refused(visitor: Visitor, query: Any, said: str) -> None:
    answer = visitor.post(PNG, **query)
    assert answer.status == 400 and said in answer.error


@pytest.mark.parametrize("path", [
    "/../../../etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "/page.html",
    "/assets/page.js", "/%2e%2e/server.py", "/page.js/../server.py", "/look.css%00.png",
    "/\\..\\server.py", "/explain", "http://127.0.0.1/etc/passwd", "/[", "//[::1]:x/",
    "/?../../etc/passwd#", "*",
])  # fmt: skip
def test_no_file_of_the_server_is_read(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    # the page itself where only a question mark was added
    assert answer.status == (200 if path.startswith("/?") else 404)
    assert b"root:" not in answer.content and b"import" not in answer.content


@pytest.mark.parametrize("name", [
    "../../../../etc/passwd", "..\\..\\boot.ini", "/dev/zero", "C:\\x.png", "a\0b.png",
    "\x1b[2J.png", "<script>alert(1)</script>.png", "$(rm -rf ~).png", "x" * 900 + ".png",
    "\u202egnp.exe", "con", "", "https://example.com/a.png", "-rf",
])  # fmt: skip
def test_a_name_is_text_and_no_place(visitor: Visitor, name: str, tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    said = visitor.post(PNG, name=name).json
    # a name on the visitor's disc, below whatever folder it is saved into
    assert Path(said["file"]).name == said["file"] and "\0" not in said["file"]
    assert not {"/", "\\"} & set(clean_name(name)) and len(clean_name(name)) <= 120
    assert list(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "localhost@evil.example"}, 421),
        ({"Host": "192.168.1.7"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "127.0.0.1:abc"}, 421),
        ({"Host": "LOCALHOST:{port}"}, 200),
        ({"Host": "[::1]:{port}"}, 200),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": None}, 415),
    ],
)
def test_another_site_is_not_answered(
    visitor: Visitor, headers: dict[str, str | None], status: int
) -> None:
    sent = {name: v and v.replace("{port}", str(visitor.port)) for name, v in headers.items()}
    assert visitor.post(PNG, sent).status == status
    if status == 421:  # nor does it read the page
        assert visitor.get("/choices", Host=sent["Host"]).status == 421


def test_other_methods_and_what_is_no_http_are_refused(visitor: Visitor) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
        answer = visitor.ask(method, "/explain")
        assert answer.status == 501 and "Access-Control-Allow-Origin" not in answer.headers
    for sent in (
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        answer_bytes = visitor.send_raw(sent, ends=True)
        assert b"<html" not in answer_bytes.lower() and b" 200 " not in answer_bytes[:20]
    long = visitor.send_raw(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")
    assert b" 414 " in long[:20]
    many = b"".join(b"X-%d: 1\r\n" % n for n in range(200))
    assert b" 431 " in visitor.send_raw(b"GET / HTTP/1.1\r\n" + many + b"\r\n")[:20]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Content-Length: 999999999999999999999", 413),
        ("Content-Length: 32000001", 413),
        ("Content-Length: -1", 411),
        ("Content-Length: 1e3", 411),
        ("Content-Length: 5\r\nContent-Length: 6", 411),
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 411),
        ("", 411),
    ],
)
def test_a_body_says_how_long_it_is_before_it_is_read(
    visitor: Visitor, lines: str, status: int
) -> None:
    head = f"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PICTURE_TYPE}\r\n{lines}"
    answer = visitor.send_raw(head.encode().rstrip() + b"\r\n\r\n", ends=True)
    assert f" {status} ".encode() in answer[:20]


def test_a_huge_body_is_not_read_and_its_sender_hears_why(offered: OfferedModel) -> None:
    with serving(offered, limits=Limits(max_bytes=1000)) as visitor:
        answer = visitor.post(bytes(3_000_000))
        assert answer.status == 413 and "larger than 0.001 MB" in answer.error


def test_who_sends_slowly_is_ended(offered: OfferedModel) -> None:
    limits = Limits(request_seconds=0.3, upload_seconds=0.3, max_bytes=len(PNG), waiting_bytes=1)
    with serving(offered, limits=limits) as visitor:
        # headers byte by byte: each would be in time by itself
        for head in (
            b"GET / HTTP/1.1\r\nX-Slow: ",
            b"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n"
            b"Content-Type: application/octet-stream\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", visitor.port), 5) as connection:
                connection.sendall(head)
                began, answer = time.monotonic(), b""
                connection.settimeout(0.05)
                while time.monotonic() - began < 5:
                    try:
                        connection.sendall(b"a")
                        answer = connection.recv(2**16)
                        break
                    except TimeoutError:
                        continue
                    except OSError:
                        break
                assert time.monotonic() - began < 3
                assert b" 408 " in answer[:20] or not answer
        # and their place is free again
        assert visitor.post(PNG).status == 200


def test_more_visitors_than_there_is_room_for_are_turned_away(offered: OfferedModel) -> None:
    head = (
        b"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9900\r\n"
        b"Content-Type: application/octet-stream\r\nExpect: 100-continue\r\n\r\n"
    )
    with (
        serving(offered, limits=Limits(max_bytes=10_000, waiting_bytes=1)) as visitor,
        socket.create_connection(("127.0.0.1", visitor.port), 5) as slow,
    ):
        slow.sendall(head)
        assert slow.recv(100).startswith(b"HTTP/1.1 100 ")  # it has the only place
        answer = visitor.post(PNG)
        assert answer.status == 503 and "try again in a moment" in answer.error
        assert visitor.get("/").status == 200


def test_a_method_that_takes_too_long_is_ended(
    offered: OfferedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS["rise"].function.__kwdefaults__, "masks", 20_000)
    with serving(offered, limits=Limits(explain_seconds=0.05)) as visitor:
        before = {
            name: value.clone() for name, value in offered.classifier.module.state_dict().items()
        }
        answer = visitor.post(PNG, method="rise")
        assert answer.status == 504 and "rise takes longer than the 0.05 seconds" in answer.error
        module = offered.classifier.module
        assert all((module.state_dict()[name] == value).all() for name, value in before.items())
        assert not module.training and not module._forward_hooks


def test_nothing_of_an_upload_is_kept(
    offered: OfferedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    with serving(offered) as visitor:
        for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
            assert visitor.post(encode(make_pixels(), kind), name=f"a.{kind}").status == 200
        assert visitor.post(PNG[:70]).status == 422
        names = visitor.server.__dict__, visitor.server.desk.__dict__
        assert PNG not in repr(names).encode()
    assert [str(p) for p in tmp_path.rglob("*")] == [str(tmp_path / "tmp")]


def test_a_message_has_no_folder_of_the_server(visitor: Visitor) -> None:
    for query in (
        {"category": "/srv/anna/cat"},
        {"layer": "/srv/models/net.py"},
        {"model": "/a/b"},
    ):
        assert not any(part in visitor.post(PNG, **query).error for part in ("/anna", "/srv", "/a"))
