"""`camviz serve`: a page in the browser on which a visitor's picture is explained."""

from __future__ import annotations

import gc
import os
import re
import sys
import webbrowser
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePath
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camcli.cli.commands.explain import EMBEDDED_NOTE, resolve_options
from camcli.cli.model_loading import load
from camcli.cli.options import Flags, with_some_flags
from camcli.cli.printer import Printer, print_error, print_text
from camcli.errors import EXIT_INTERRUPTED, UsageError
from camcli.method_terms import AT
from camcli.registry import ALL
from camcli.utils.profiling import stage
from camcli.utils.runtime_tuning import (
    give_back_freed_memory,
    leave_cores_free,
    resume_collecting,
)
from camcli.utils.text_files import escape_text

if TYPE_CHECKING:
    from camcli.config import Options
    from camcli.serve.limits import Limits
    from camcli.serve.offered_models import OfferedModel

SERVER = "Server"
HOST, PORT = "127.0.0.1", 2268  # the digits of CAMV on a telephone
LARGEST_PORT = 2**16 - 1
# what loads the models, and how they are explained where the page does not choose
SERVED_FLAGS = (
    "checkpoint", "pretrained", "strict", "num_classes", "img_size", "model_kwargs", "class_map",
    "output_key", "outputs", "text", "template", "target_layers", "eigen_smooth", "seed",
    "mean", "std", "fit", "device", "precision", "colormap", "alpha",
    "outside", "config", "cfg_options", "debug",
)  # fmt: skip
# what says which weights and classes one model has
OF_ONE_MODEL = ("checkpoint", "class_map", "num_classes", "output_key", "model_kwargs")
# what the page chooses, or what is the server's own
CHOSEN_THERE = ("method", "target_layers", "alpha", "device", "max_pixels", "precision")
# what lies on the server's disc: the command has its last part, and not where it lies
PATHS = ("checkpoint", "class_map", "config", "model")

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A model to choose on the page; repeat for more; default embedded. No other can be "
        "chosen there.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Host = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Where to listen; default this machine alone, 0.0.0.0 for everybody who reaches it.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Port = Annotated[
    str | None,
    typer.Option(
        "--port",
        metavar="N",
        help=f"The port; default {PORT}, 0 for one that is free.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Open = Annotated[
    bool,
    typer.Option(
        "--open",
        metavar="",
        help="Open the page in this machine's browser.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--server-name",
        metavar="NAME",
        help="Another name by which browsers may ask for the page, as of a proxy; repeat for more.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Upload = Annotated[
    str | None,
    typer.Option(
        "--max-upload",
        metavar="MB",
        help="The largest file of a picture; default 32.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Pixels = Annotated[
    str | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        help="Refuse pictures of more pixels before they are decoded (50M, 1G); default 50M.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAMES",
        help="Methods that are chosen at first, see camviz methods; default gradcam. By commas or "
        "repeated.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Seconds = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="SECONDS",
        help="How long an explanation may take; default 60.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]


@with_some_flags(*SERVED_FLAGS, takes_images=False)
def command(
    images: list[str],
    flags: Flags,
    model: Models = None,
    method: Methods = None,
    host: Host = HOST,
    port: Port = None,
    opens: Open = False,
    server_name: Names = None,
    max_upload: Upload = None,
    max_pixels: Pixels = None,
    time_limit: Seconds = None,
) -> None:
    """Explain pictures in the browser: drop one, choose, and see.

    The page needs no network. Ctrl-C ends it.
    """
    del images
    leave_cores_free(os.environ)
    flags = replace(flags, method=method, max_pixels=max_pixels)
    number = _read_number(str(PORT) if port is None else port, "--port", 0, LARGEST_PORT)
    if twice := next((name for name, count in Counter(model or ()).items() if count > 1), None):
        raise UsageError(f"--model names {twice!r} twice: name it once.")
    named: list[str | None] = [*model] if model else [None]
    resolved = [(name, resolve_options(_name_model(flags, name))) for name in named]
    if len(resolved) > 1 and (given := [name for name in OF_ONE_MODEL if getattr(flags, name)]):
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option} is for one model, and --model names {len(resolved)}.")
    _check_methods(resolved[0][1])
    limits = _read_limits(resolved[0][1], max_upload, time_limit)
    printer = Printer()
    with stage("import"):
        from camcli.serve.server import Server, Show

    # before models are loaded, which takes long
    show = Show((), limits, host, number, tuple(server_name or ()))
    with Server(show, print_error) as server:
        server.show = replace(show, models=_offer_models(resolved, flags, printer))
        # it stays for days, and what finding out about the models left behind is wanted no more
        gc.collect()
        resume_collecting()
        give_back_freed_memory()
        _run(server, printer, opens=opens)


def _run(server: Any, printer: Printer, *, opens: bool) -> None:
    from camcli.pipeline import StopRequest, handle_interrupts

    if server.guard.is_open:
        printer.note(
            "open to others: whoever reaches port "
            f"{server.server_address[1]} of this machine can use the page, and nothing that is "
            "sent is encrypted; without --host it is this machine's alone"
        )
    print_text(f"{server.url}  (Ctrl-C ends it)")
    sys.stdout.flush()
    if opens:
        # a browser in the terminal would hold the server up
        Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    stop = StopRequest()
    with handle_interrupts(stop, _announce_stop, _exit_at_once):
        server.serve_until(stop)


def _name_model(flags: Flags, name: str | None) -> Flags:
    return flags if name is None else replace(flags, model=name)


def _check_methods(options: Options) -> None:
    """Raises UsageError for what is no single method, as presets of camviz tune have it."""
    combined = [method for method in options.method if AT in method or method == ALL]
    if options.combine or combined:
        raise UsageError(
            f"The page explains by single methods, and {', '.join(combined or options.method)} "
            "is more than that: name some with --method, and leave --combine out."
        )


def _offer_models(
    resolved: Sequence[tuple[str | None, Options]], flags: Flags, printer: Printer
) -> tuple[OfferedModel, ...]:
    """Loads all models, so that no visitor waits for one, or has one fetched."""
    from camcli.serve.offered_models import offer_model

    models: list[OfferedModel] = []
    for name, options in resolved:
        if "model" not in options.model_fields_set and options.checkpoint is None:
            printer.note(EMBEDDED_NOTE)
        classifier = load(options, pretrained=options.pretrained)
        printer.warn(classifier.warnings)
        # a model that is a file or a folder has a name, and not a place
        own = PurePath(classifier.name).name or classifier.name
        count = sum(model.name.rpartition("#")[0] == own or model.name == own for model in models)
        shown = replace(classifier, name=f"{own}#{count + 1}" if count else own)
        words = spell_options({**({"model": name} if name else {}), **flags.given})
        models.append(offer_model(shown, options, tuple(words)))
    return tuple(models)


def spell_options(given: Mapping[str, Any]) -> Iterator[str]:
    """Yields the words that give these options again, without the folders of files."""
    for name, value in given.items():
        if name in CHOSEN_THERE:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield flag if value else f"--no-{name.replace('_', '-')}"
            continue
        for one in value if isinstance(value, list) else [value]:
            text = re.split(r"[/\\](?=[^/\\])", str(one))[-1] if name in PATHS else str(one)
            yield from (flag, text)


def _read_limits(options: Options, max_upload: str | None, time_limit: str | None) -> Limits:
    from camcli.serve.limits import MAX_PIXELS, MAX_UPLOAD, TIME_LIMIT, Limits

    upload = _read_number(max_upload or str(MAX_UPLOAD), "--max-upload", 1, 10_000)
    seconds = _read_number(time_limit or f"{TIME_LIMIT:.0f}", "--time-limit", 1, 10**6)
    told = "max_pixels" in options.model_fields_set
    pixels = options.max_pixels if told else MAX_PIXELS
    return Limits(upload * 10**6, pixels, explain_seconds=seconds)


def _read_number(text: str, flag: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or not least <= int(text) <= most:
        raise UsageError(
            f"{flag} {escape_text(text)}: takes a whole number from {least} to {most}."
        )
    return int(text)


def _announce_stop() -> None:
    # as in a run: Python's streams take no second print in the middle of one
    with suppress(OSError):
        os.write(2, b"\ncamviz: stopping\n")


def _exit_at_once() -> None:
    os._exit(EXIT_INTERRUPTED)
