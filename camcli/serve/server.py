"""The server: a page, what can be chosen on it, and answers to the pictures that it sends.

Python's own server and nothing more: a picture is the whole body of a post, so there are no forms
to be parsed and no files to be put down, as the servers of frameworks do with larger uploads.  Each
connection is one request.
"""

from __future__ import annotations

import io
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib import resources
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any

from camcli.engine.device.oom_chunks import is_out_of_memory
from camcli.errors import CamvizError, UsageError, first_line
from camcli.report.page import read_look
from camcli.serve.answers import answer
from camcli.serve.desk import Desk
from camcli.serve.guard import Guard
from camcli.serve.limits import Limits
from camcli.serve.offered_models import OfferedModel
from camcli.serve.questions import read_question
from camcli.serve.refusals import Refusal, TooSlow, VisitorLeft, hide_folders
from camcli.utils.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from camcli.pipeline import StopRequest

JSON = "application/json"
# what there is besides the page's questions; no address is ever made into a path
ASSETS = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
LOOK_AGAIN = 0.25  # seconds after which the server looks whether it should end
# of a body that is refused, so that the visitor can read why before the connection ends
DRAINED, DRAIN_SECONDS = 64 * 2**20, 2.0


@dataclass(frozen=True)
class Show:
    """What is shown to visitors: models, the limits of their pictures, and under which names."""

    models: Sequence[OfferedModel]
    limits: Limits = field(default_factory=Limits)
    host: str = "127.0.0.1"
    port: int = 0
    names: Sequence[str] = ()

    def describe(self) -> dict[str, Any]:
        """Says what can be chosen, and within which limits."""
        first = self.models[0].options
        return {
            "models": [model.describe() for model in self.models],
            "methods": first.method,
            "alpha": first.alpha,
            "max_bytes": self.limits.max_bytes,
            "max_pixels": self.limits.max_pixels,
        }


class Server(ThreadingMixIn, TCPServer):
    """Answers visitors until it is asked to stop; a thread each, and one for the model."""

    daemon_threads = True
    # elsewhere, two programs could then listen at one port
    allow_reuse_address = os.name == "posix"
    timeout = LOOK_AGAIN
    request_queue_size = 128

    def __init__(self, show: Show, tell: Callable[[str], None]) -> None:
        """Listens at once; raises UsageError where that cannot be.

        `tell` prints a line where the server's owner reads it.
        """
        self.show, self.tell = show, tell
        self.guard = Guard.of(show.host, show.names)
        self.desk = Desk(show.limits.explain_seconds)
        self.connections = BoundedSemaphore(show.limits.connections)
        self.room = Room(max(show.limits.waiting_bytes, show.limits.max_bytes))
        try:
            found = socket.getaddrinfo(
                show.host, show.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            self.address_family, _, _, _, address = found[0]
            super().__init__(address, Visit)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            raise _explain_bind_error(error, show) from error

    @property
    def url(self) -> str:
        """The page's address on this machine."""
        host, port = self.server_address[0], self.server_address[1]
        name = str(host)
        if name in ("0.0.0.0", "::"):
            name = "127.0.0.1" if name == "0.0.0.0" else "::1"
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"

    @cached_property
    def files(self) -> dict[str, tuple[bytes, str]]:
        """What the page is made of, by address."""
        folder = resources.files("camcli.serve") / "assets"
        read = {
            at: (folder.joinpath(name).read_bytes(), kind) for at, (name, kind) in ASSETS.items()
        }
        look = read_look().encode()
        choices = to_json(self.show.describe())
        return {**read, "/look.css": (look, ASSETS["/page.css"][1]), "/choices": (choices, JSON)}

    def serve_until(self, stop: StopRequest) -> None:
        """Answers visitors until it is asked to stop, and then ends what is at work."""
        try:
            while not stop.reason:
                self.handle_request()
        finally:
            self.server_close()

    def server_close(self) -> None:
        """Listens no more, and ends what is at work."""
        super().server_close()
        self.desk.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives a connection a thread, or ends it where there are too many."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system gives no more threads
            self.connections.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says a failure in a line; a visitor who went away is none."""
        del request, client_address
        error = sys.exception()
        if not isinstance(error, OSError):
            self.tell(f"a request failed: {type(error).__name__}: {first_line(str(error))}")


class Room:
    """The memory that pictures take together, until they are explained."""

    def __init__(self, free: int) -> None:
        """Has so many bytes."""
        self._free, self._lock = free, Lock()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Takes bytes for its block; raises Refusal where there are not so many left."""
        with self._lock:
            if count > self._free:
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "Many pictures are waiting: try again in a moment.",
                )
            self._free -= count
        try:
            yield
        finally:
            with self._lock:
                self._free += count


class TimedReader(io.RawIOBase):
    """Reads a connection until a moment, however slowly its bytes come."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        """Has the first seconds for what comes before a body."""
        self.connection = connection
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Has so many seconds from now on."""
        self.deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        """Says that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads what has come; raises TimeoutError."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Visit(BaseHTTPRequestHandler):
    """One request of a visitor."""

    server: Server

    def setup(self) -> None:
        """Reads within a time."""
        super().setup()
        self.rfile.close()
        self.timed = TimedReader(self.connection, self.server.show.limits.request_seconds)
        self.rfile = io.BufferedReader(self.timed)
        self.unread = 0

    def finish(self) -> None:
        """Sends what is left, and takes what a visitor who was refused still sends."""
        super().finish()
        if self.unread:
            with suppress(OSError):
                self._drain()

    def do_GET(self) -> None:
        """Answers what the page loads."""
        with self._refuse():
            self.server.guard.check_host(self.headers)
            path, _, query = self.path.partition("?")
            if path == "/command":
                question = read_question(query, self.server.show.models)
                self._send(HTTPStatus.OK, JSON, to_json({"command": question.command}))
                return
            if path not in self.server.files:
                raise Refusal(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
            content, kind = self.server.files[path]
            self._send(HTTPStatus.OK, kind, content)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """Answers a picture."""
        with self._refuse():
            self.unread = DRAINED
            self.server.guard.check_host(self.headers)
            self.server.guard.check_post(self.headers)
            path, _, query = self.path.partition("?")
            if path != "/explain":
                raise Refusal(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
            question = read_question(query, self.server.show.models)
            length = self._read_length()
            with self.server.room.take(length):
                content = self._read_body(length)
                made = self._ask(question, content)
            self._send(HTTPStatus.OK, JSON, to_json(made))

    def _ask(self, question: Any, content: bytes) -> dict[str, Any]:
        limits = self.server.show.limits
        try:
            return self.server.desk.ask(
                lambda check: answer(question, content, limits, check), self._is_gone
            )
        except TooSlow as error:
            raise Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"{question.methods[0]} takes longer than the {limits.explain_seconds:g} seconds "
                "that a picture may take here: choose a method of fewer passes.",
            ) from error
        except Exception as error:
            if isinstance(error, CamvizError | Refusal | VisitorLeft):
                raise
            self.server.tell(f"a picture failed: {type(error).__name__}: {first_line(error)}")
            if is_out_of_memory(error):
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE, "That picture does not fit into memory."
                ) from error
            raise Refusal(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "camviz failed at that picture; the terminal that it runs in says how.",
            ) from error

    @contextmanager
    def _refuse(self) -> Iterator[None]:
        """Sends what a request was refused for."""
        try:
            yield
        except Refusal as refusal:
            self._send_problem(refusal.status, refusal.message)
        except CamvizError as error:
            self._send_problem(HTTPStatus.BAD_REQUEST, str(error))
        except TimeoutError:
            self._send_problem(HTTPStatus.REQUEST_TIMEOUT, "The picture came too slowly.")
        except VisitorLeft:
            self.unread = 0

    def _read_length(self) -> int:
        """Reads how long a body is before any of it is; raises Refusal."""
        given, most = self.headers.get("Content-Length", ""), self.server.show.limits.max_bytes
        lengths = self.headers.get_all("Content-Length") or []
        if "Transfer-Encoding" in self.headers or len(lengths) != 1 or not given.isdecimal():
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "A picture comes with its length.")
        if len(given) > 18 or int(given) > most:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"That file is larger than {most / 1e6:g} MB, which is the most here.",
            )
        if not int(given):
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "That file is empty.")
        return int(given)

    def _read_body(self, length: int) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.timed.allow(self.server.show.limits.upload_seconds)
        content = self.rfile.read(length)
        if len(content) != length:
            raise VisitorLeft
        self.unread = 0
        return content

    def _is_gone(self) -> bool:
        """Tells whether the visitor has ended the connection."""
        try:
            if not select.select([self.connection], [], [], 0)[0]:
                return False
            return not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _drain(self) -> None:
        self.connection.shutdown(socket.SHUT_WR)
        self.timed.allow(DRAIN_SECONDS)
        buffer, left = bytearray(2**16), self.unread
        while left > 0 and (count := self.timed.readinto(buffer)):
            left -= count

    def _send_problem(self, status: HTTPStatus, message: str) -> None:
        self._send(status, JSON, to_json({"error": hide_folders(message)}))

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.connection.settimeout(self.server.show.limits.send_seconds)
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses what is no request, in our own words."""
        del message, explain
        self.command = getattr(self, "command", None) or ""
        self.close_connection = True
        self._send_problem(HTTPStatus(code), f"{HTTPStatus(code).phrase}.")

    def version_string(self) -> str:
        """Names no version, of camviz or of Python."""
        return "camviz"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keeps no log: what visitors look at is their own business."""


def to_json(value: Any) -> bytes:
    """Writes JSON; what is no UTF-8, as a name that was sent so, is replaced."""
    return json.dumps(to_jsonable(value), allow_nan=False).encode("ascii")


def _explain_bind_error(error: OSError | UnicodeError, show: Show) -> UsageError:
    import errno

    where, number = f"{show.host}:{show.port}", getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return UsageError(
            f"Port {show.port} of {show.host} is in use: choose another with --port N, or --port 0 "
            "for one that is free."
        )
    if number in (errno.EACCES, errno.EPERM):
        return UsageError(f"Port {show.port} is the system's: choose one above 1023 with --port N.")
    if isinstance(error, socket.gaierror | UnicodeError) or number == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{show.host!r} is no address of this machine: leave --host out, or give one, such as "
            "--host 0.0.0.0 for all."
        )
    return UsageError(f"Cannot listen at {where}: {getattr(error, 'strerror', None) or error}.")
