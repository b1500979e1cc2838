"""Answers the page itself alone: other sites in a visitor's browser may not use the server.

A site can have its own name point to this machine (DNS rebinding), so the name that was asked for
must be one of the server's; and it can post to it from its pages, so an `Origin` must be its own.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from urllib.parse import urlsplit

from camcli.serve.refusals import Refusal

LOCALHOST = "localhost"
# what a browser sends for a page's own requests, and for an address that was typed
OWN_FETCHES = ("same-origin", "none")
PICTURE_TYPE = "application/octet-stream"


def is_loopback(host: str) -> bool:
    """Tells whether only this machine reaches an address or a name.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == LOCALHOST


@dataclass(frozen=True)
class Guard:
    """Knows the names under which the page may be asked for; all addresses where it is open."""

    names: Collection[str]
    is_open: bool

    @classmethod
    def of(cls, host: str, names: Collection[str] = ()) -> Guard:
        """Makes the guard of a server that listens at a host, and has further names."""
        own = {LOCALHOST, host.lower(), *(name.lower().rstrip(".") for name in names)}
        if is_loopback(host):
            return cls(own, is_open=False)
        machine = socket.gethostname().lower()
        return cls(own | {machine, f"{machine}.local"}, is_open=True)

    def check_host(self, headers: Message) -> None:
        """Raises Refusal where the request is for another name than the server's."""
        name = _read_name(headers.get("Host") or "")
        if name is None or not self._is_own(name):
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This server is not known by the name that was asked for. camviz serve "
                "--server-name NAME adds a name.",
            )

    def check_post(self, headers: Message) -> None:
        """Raises Refusal for a post that is another site's, or could be one."""
        origin, fetched = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        is_foreign = fetched is not None and fetched not in OWN_FETCHES
        if is_foreign or (origin is not None and not _is_origin_of(origin, headers["Host"] or "")):
            raise Refusal(HTTPStatus.FORBIDDEN, "Another site may not ask this server.")
        # a form of another site cannot send this type, and a script of one has to ask before
        if headers.get("Content-Type") != PICTURE_TYPE:
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"A picture is posted as it is, with Content-Type: {PICTURE_TYPE}.",
            )

    def _is_own(self, name: str) -> bool:
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # an address that was typed points to nobody else
        return self.is_open or address.is_loopback


def _read_name(host: str) -> str | None:
    """Reads a `Host` header's name in small letters, without its port; None where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  (raises for one that is no number)
    except ValueError:
        return None
    if parts.netloc != host or "@" in host or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


def _is_origin_of(origin: str, host: str) -> bool:
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and rest.lower() == host.lower()
