"""Requests that are not answered, and what is said then."""

from __future__ import annotations

import re
from http import HTTPStatus

# a path of several folders, of which the last part alone is anybody's business
FOLDERS = re.compile(
    r"(?<![\w:/.<])(?:[A-Za-z]:)?(?:[/\\]+[^\s/\\'\",;:()]+)*[/\\]+(?=[^\s/\\'\",;:()])"
)


class Refusal(Exception):
    """An answer that is none: its status, and a sentence for the visitor."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class VisitorLeft(Exception):
    """The visitor waits no longer: nobody would read the answer."""


class TooSlow(Exception):
    """An explanation took longer than it may."""


def hide_folders(text: str) -> str:
    """Leaves of each path in a message its last part, since folders are the server's own.

    >>> hide_folders("Cannot read '/srv/anna/net.py': it is empty.")
    "Cannot read 'net.py': it is empty."
    """
    return FOLDERS.sub("", text)
