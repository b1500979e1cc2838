"""A headless Chromium for what people look at, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
# faults of accessibility that count, as axe-core ranks them
IMPACTS = ("serious", "critical")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The program, `CHROMIUM` first."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)


def find_axe() -> Path | None:
    """axe-core's script: `AXE_CORE`, or what `npm install --global axe-core` installed."""
    if named := os.environ.get("AXE_CORE"):
        return Path(named)
    if not (npm := shutil.which("npm")):
        return None
    root = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=False)
    script = Path(root.stdout.strip()) / "axe-core" / "axe.min.js"
    return script if script.is_file() else None


@contextmanager
def open_browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        yield browser
        browser.close()


def run_axe(page: Any) -> list[str]:
    """The grave faults that axe-core, which was loaded into the page, finds in it."""
    result = page.evaluate("axe.run()")
    assert len(result["passes"]) > 10
    return [
        f"{one['id']}: {node['html']}"
        for one in result["violations"]
        if one["impact"] in IMPACTS
        for node in one["nodes"]
    ]


def note_faults(page: Any) -> tuple[list[str], list[str]]:
    """Notes what goes wrong in a page from now on, and the addresses that it asks for."""
    wrong: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    return wrong, requests
