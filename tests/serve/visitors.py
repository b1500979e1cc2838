"""A server of a small network, and visitors who ask it as browsers do, or as they never would."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

import camcli
from camcli.config import from_keywords
from camcli.models.load import Classifier
from camcli.pipeline import StopRequest
from camcli.serve.guard import PICTURE_TYPE
from camcli.serve.limits import Limits
from camcli.serve.offered_models import OfferedModel, offer_model
from camcli.serve.server import Server, Show
from tests.networks import Staged

EDGE = 32
LABELS = ("cat, house cat", "dog", "<img src=x onerror=alert(1)>", "bird", "bird, songbird")
LIMITS = Limits()
WORDS = ("--model", "net.py:net")


def load_small(seed: int = 0) -> Classifier:
    return camcli.load_model(
        Staged(seed=seed).eval(), labels=list(LABELS), preprocessing={"mean": 0.5, "std": 0.5},
        img_size=EDGE, device="cpu",
    )  # fmt: skip


def offer_small(seed: int = 0, **options: Any) -> OfferedModel:
    return offer_model(load_small(seed), from_keywords(**options), WORDS)


def make_pixels(seed: int = 0, size: tuple[int, int] = (40, 48)) -> np.ndarray[Any, Any]:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def encode(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass
class Visitor:
    """Asks the server at a port."""

    port: int
    server: Server
    told: list[str]

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> Answer:
        """Sends a request; a header None is left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {name.replace("_", "-"): v for name, v in headers.items() if v is not None}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, content: bytes, headers: Mapping[str, str | None] = {}, **query: Any) -> Answer:
        sent = {"Content_Type": PICTURE_TYPE, **headers}
        return self.ask("POST", f"/explain?{urlencode(query, doseq=True)}", content, **sent)

    def send_raw(self, sent: bytes, *, ends: bool = False) -> bytes:
        """Sends bytes, and reads until the server ends the connection."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall(sent)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(2**16), b""))


@contextmanager
def serving(*models: OfferedModel, limits: Limits = LIMITS, **options: Any) -> Iterator[Visitor]:
    """Serves in a thread; yields a visitor."""
    told: list[str] = []
    server, stop = Server(Show(models, limits, **options), told.append), StopRequest()
    thread = threading.Thread(target=server.serve_until, args=(stop,))
    thread.start()
    try:
        yield Visitor(server.server_address[1], server, told)
    finally:
        stop.ask(KeyboardInterrupt())
        thread.join(20)
        assert not thread.is_alive()
