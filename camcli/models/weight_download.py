"""Pretrained weights on this machine: from the libraries' caches, or downloaded, or a quick no."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch

from camcli.errors import WeightsError, first_line

SECONDS_TO_ANSWER = 4.0
WEIGHTS = "pretrained weights"
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")


def fetch_hub_file(
    model: str, repository: str, alternatives: Sequence[str], what: str = WEIGHTS
) -> Path:
    """Returns the first of the files that a Hugging Face repository (`owner/name@revision`) has.

    A cached file is taken as it is, without asking the network.  Raises WeightsError, which says
    what of the model cannot be fetched.
    """
    import huggingface_hub as hub

    name, revision = _split_repository(repository)
    source, cache = f"{hub.constants.ENDPOINT}/{name}", hub.constants.HF_HUB_CACHE
    with _convert_errors(model, source, cache, what):
        cached = find_cached_hub_file(repository, alternatives)
        if cached:
            return cached
        if hub.constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set, and they are not in the cache")
        file = _find_in_repository(name, revision, alternatives)
        return Path(hub.hf_hub_download(name, file, revision=revision))


def find_cached_hub_file(repository: str, alternatives: Sequence[str]) -> Path | None:
    """Returns the first of a repository's files that is on this machine, or None."""
    import huggingface_hub as hub

    name, revision = _split_repository(repository)
    for file in alternatives:
        cached = hub.try_to_load_from_cache(name, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def list_cached_repositories() -> list[str]:
    """Lists the repositories of models that are on this machine; asks no network."""
    import huggingface_hub as hub

    folder = Path(hub.constants.HF_HUB_CACHE)
    kept = sorted(folder.glob("models--*")) if folder.is_dir() else []
    return [path.name.removeprefix("models--").replace("--", "/") for path in kept]


def _split_repository(repository: str) -> tuple[str, str | None]:
    name, _, revision = repository.partition("@")
    return name, revision or None


def _find_in_repository(name: str, revision: str | None, alternatives: Sequence[str]) -> str:
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError

    for file in alternatives:
        url = hub.hf_hub_url(name, file, revision=revision, endpoint=hub.constants.ENDPOINT)

        def ask(url: str = url) -> None:
            metadata = hub.get_hf_file_metadata(url, timeout=SECONDS_TO_ANSWER)
            # the bytes lie on another host, which a firewall may block on its own
            hub.get_session().head(metadata.location, timeout=SECONDS_TO_ANSWER)

        try:
            _ask_in_time(ask)
        except EntryNotFoundError:
            continue
        return file
    raise FileNotFoundError(f"{name} has none of {', '.join(alternatives)}")


def fetch_url_file(model: str, url: str) -> Path:
    """Returns a file of the web from torch.hub's cache, downloaded if need be.

    Raises WeightsError.
    """
    cached = find_cached_url_file(url)
    if cached:
        return cached
    target = _cache_path(url)

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        # any status is an answer: the download itself will say what is wrong
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER).close()

    with _convert_errors(model, url, str(target.parent)):
        _ask_in_time(ask)
        target.parent.mkdir(parents=True, exist_ok=True)
        digits = HASH_IN_NAME.search(target.name)
        torch.hub.download_url_to_file(
            url, str(target), digits and digits[1], progress=sys.stderr.isatty()
        )
    return target


def find_cached_url_file(url: str) -> Path | None:
    """Returns a file of the web that is in torch.hub's cache, or None."""
    target = _cache_path(url)
    return target if target.exists() else None


def _cache_path(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _ask_in_time(ask: Callable[[], None]) -> None:
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            ask()
            answers.put(None)
        except Exception as error:
            answers.put(error)

    # a daemon thread, since a socket's timeout does not cover a name server that never answers
    threading.Thread(target=run, daemon=True).start()
    try:
        error = answers.get(timeout=SECONDS_TO_ANSWER + 1)
    except queue.Empty:
        raise TimeoutError(f"no answer within {SECONDS_TO_ANSWER:g} seconds") from None
    if error is not None:
        raise error


@contextlib.contextmanager
def _convert_errors(model: str, source: str, cache: str, what: str = WEIGHTS) -> Iterator[None]:
    """Turns what libraries and transports raise, each its own kind, into one WeightsError."""
    try:
        yield
    except Exception as error:
        from_elsewhere = f"from a machine that has them: {_shorten_path(cache)}"
        ways_on = (
            "Three ways on:\n"
            f"  1. bring them into the cache {from_elsewhere}\n"
            "  2. give this model's weights from a file: --checkpoint FILE\n"
            "  3. leave out --model: the embedded classifier needs no download"
        )
        raise WeightsError(
            f"The {what} of {model!r} cannot be fetched from {source}: {_say_why(error)}.\n"
            f"{ways_on if what == WEIGHTS else f'Bring them into the cache {from_elsewhere}'}"
        ) from error


def _say_why(error: Exception) -> str:
    from huggingface_hub import errors

    log_in = "log in with `hf auth login`"
    if isinstance(error, errors.GatedRepoError):
        return f"it is gated: accept its terms on that page, and {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision (a branch, tag or commit stands behind the @)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is none of that name, or it is private: {log_in}"
    return first_line(error.reason if isinstance(error, urllib.error.URLError) else error)


def _shorten_path(folder: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 (a string in, a string out)
    return folder.replace(home, "~", 1) if folder.startswith(home + os.sep) else folder
