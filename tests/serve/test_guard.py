"""Which names and sites are the server's own."""

from __future__ import annotations

import socket
from email.message import Message

import pytest

from camcli.serve.guard import Guard, is_loopback
from camcli.serve.refusals import Refusal


def asked_for(host: str) -> Message:
    headers = Message()
    headers["Host"] = host
    return headers


def knows(guard: Guard, host: str) -> bool:
    try:
        guard.check_host(asked_for(host))
    except Refusal:
        return False
    return True


def test_a_server_of_this_machine_alone_knows_loopback_names() -> None:
    guard = Guard.of("127.0.0.1")
    assert not guard.is_open
    known = [
        h
        for h in (
            "localhost",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:8",
            "10.0.0.1",
            "me.lan",
            "::1",
            "2130706433",
        )
        if knows(guard, h)
    ]
    assert known == ["localhost", "127.0.0.1", "127.9.9.9:80", "[::1]:8"]


def test_an_open_server_knows_addresses_and_its_own_names() -> None:
    guard = Guard.of("0.0.0.0", ["Cams.Example."])
    assert guard.is_open
    own = socket.gethostname().lower()
    for host in ("10.0.0.1:2268", "[fe80::1]", own, f"{own}.local:80", "cams.example", "localhost"):
        assert knows(guard, host), host
    for host in ("evil.example", "cams.example.evil.org", "", "a b", "x@10.0.0.1", "10.0.0.1/x"):
        assert not knows(guard, host), host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "::ffff:1.2.3.4"]
)
def test_all_else_is_open_to_others(host: str) -> None:
    assert not is_loopback(host)
