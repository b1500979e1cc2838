"""The command `camviz`: its sub-commands, the default one, and what an error looks like."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import typer
import typer.core
import typer.main

from camcli.cli.advice import keep_model
from camcli.cli.commands import (
    completion,
    evaluate,
    explain,
    help,  # noqa: A004
    merge,
    methods,
    metrics,
    models,
    report,
    sanity,
    serve,
    summary,
    tune,
    verify,
)
from camcli.cli.completion.shells import VARIABLE, answer
from camcli.cli.foreign_options import find_own_option
from camcli.cli.help_format import WHOLE, WIDEST, Command, DefaultCommand, Group
from camcli.cli.printer import convert_print_errors, drop_output, print_error, print_text
from camcli.errors import (
    EXIT_FAILED_IMAGES,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    CamvizError,
    PrintError,
    first_line,
)
from camcli.models.own_code.user_code import find_own_line
from camcli.utils.runtime_tuning import put_off_collecting

DEFAULT = "explain"
KINDS_OF_SHEETS = ("png", "svg", "pdf", "none")
WHICH_BOXES = ("largest", "all", "none")
EXIT_BUG = EXIT_BROKEN_PIPE = 1


class DefaultGroup(Group):
    """Takes what does not begin with a command's name as arguments of `explain`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Puts `explain` in front where no command is named."""
        if args[:1] in (["--help"], ["-h"], ["--help-all"]):
            ctx.meta[WHOLE] = args[0] == "--help-all"
            print_text(ctx.get_help())
            raise typer.Exit
        named = bool(args) and args[0] in self.commands
        whole = args if named else [DEFAULT, *args]
        return super().parse_args(ctx, complete_values(whole) if whole[0] == DEFAULT else whole)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Shows the default command's options, then the commands."""
        page = Group(
            name=self.name,
            commands=dict(self.commands),
            params=self.commands[DEFAULT].params,
            help=self.help,
            rich_markup_mode=None,
            subcommand_metavar="",
        )
        page.format_help(ctx, formatter)


def complete_values(args: Sequence[str]) -> list[str]:
    """Gives `--boxes` and `--sheet` alone a value, so that they take no picture for one."""
    return complete_sheet(complete_boxes(args))


def complete_sheet(args: Sequence[str]) -> list[str]:
    """Says which kind of sheet where `--sheet` alone was typed."""
    end = args.index("--") if "--" in args else len(args)
    completed = list(args)
    for place in range(end):
        following = "".join(args[place + 1 : min(place + 2, end)])
        if args[place] == "--sheet" and _names_pictures(following):
            completed[place] = "--sheet=png"
    return completed


def _names_pictures(word: str) -> bool:
    """Tells whether a word behind `--sheet` is none of its own: an option, or pictures."""
    if word.lower().endswith(KINDS_OF_SHEETS):
        return False
    is_pattern = word.startswith(("-", "@")) or "*" in word or "://" in word
    return not word or is_pattern or os.path.exists(word)  # noqa: PTH110  (a URL is no path)


def complete_boxes(args: Sequence[str]) -> list[str]:
    """Says which boxes where `--boxes` alone was typed, so that it takes no picture for a value."""
    end = args.index("--") if "--" in args else len(args)
    completed = list(args)
    for place in range(end):
        following = "".join(args[place + 1 : min(place + 2, end)])
        if args[place] == "--boxes" and following.lower() not in WHICH_BOXES:
            completed[place] = "--boxes=largest"
    return completed


app = typer.Typer(
    cls=DefaultGroup,
    help="See where an image classifier looks: camviz IMAGE... [--method gradcam++] [-m resnet50]",
    add_completion=False,
    # typer would import pydantic to look at the group's own option before any other
    add_help_option=False,
    rich_markup_mode=None,
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["--help", "-h"],
        "max_content_width": WIDEST,
    },
)
app.command("explain", cls=DefaultCommand)(explain.command)
app.command("evaluate", cls=Command)(evaluate.command)
app.command("tune", cls=Command)(tune.command)
app.command("sanity", cls=Command)(sanity.command)
app.command("report", cls=Command)(report.command)
app.command("summary", cls=Command)(summary.command)
app.command("serve", cls=Command)(serve.command)
app.command("methods", cls=Command)(methods.command)
app.command("metrics", cls=Command)(metrics.command)
app.command("models", cls=Command)(models.command)
app.command("merge", cls=Command)(merge.command)
app.command("verify", cls=Command)(verify.command)
app.command("help", cls=Command)(help.command)
app.command("completion", cls=Command)(completion.command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    if arguments is None:
        put_off_collecting()
    typed = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    if shell := os.environ.get(VARIABLE):
        return _complete(shell, typed)
    # file names need not be UTF-8: they are printed as the bytes that they are
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        code = _run(typed)
        with convert_print_errors():
            pass  # what is still in Python's hands
    except BrokenPipeError:
        drop_output()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as problem:
        code = _report_error(problem, typed)
    if not _is_printed():
        drop_output()
        code = code or EXIT_FAILED_IMAGES
    if code == EXIT_INTERRUPTED:
        if arguments is None:
            # the process is at its end, and Python would complain of one more Ctrl-C
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print_error("interrupted")
    return code


def _complete(shell: str, typed: Sequence[str]) -> int:
    """Answers a shell that completes a line; what goes wrong there completes nothing."""
    try:
        print_text(answer(typer.main.get_command(app), DEFAULT, shell, typed))
    except Exception:
        return EXIT_BUG
    return 0


def _open_closed_streams() -> None:
    """Gives standard streams that the caller closed (`>&-`) an end, as cron jobs have.

    The next file would take their numbers, and what libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _is_printed() -> bool:
    try:
        with convert_print_errors():
            return True
    except (BrokenPipeError, PrintError):
        return False


@cache
def _build_command() -> Any:
    return typer.main.get_command(app)


def _run(arguments: list[str]) -> int:
    command = _build_command()
    if not arguments:
        with contextlib.redirect_stdout(sys.stderr):
            command.main(["--help"], prog_name="camviz", standalone_mode=False)
        return EXIT_USAGE
    code = command.main(arguments, prog_name="camviz", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _report_error(problem: Exception, typed: Sequence[str]) -> int:
    if _wants_traceback(typed, os.environ):
        traceback.print_exception(problem)
    if isinstance(problem, CamvizError):
        print_error(keep_model(str(problem), typed))
        return problem.exit_code
    if isinstance(problem, typer.TyperException):
        print_error(f"{_describe_error(problem)}\nAll options: {_name_help(problem)}")
        return problem.exit_code
    if _is_out_of_memory(problem):
        print_error(
            f"Out of memory: {first_line(problem)}. Try --batch-size 1, or a smaller --img-size."
        )
        return EXIT_FAILED_IMAGES
    if isinstance(problem, OSError) and problem.strerror:
        # what the system says is wrong, and nobody foresaw there
        of = f": {os.fsdecode(problem.filename)!r}" if problem.filename is not None else ""
        print_error(f"{problem.strerror}{of}. --debug shows where it happened.")
        return EXIT_FAILED_IMAGES
    if line := find_own_line(problem):
        print_error(
            f"{line}: {type(problem).__name__}: {first_line(problem)}. The model's own code failed "
            "there as it was run; --debug shows how it was reached."
        )
        return EXIT_USAGE
    print_error(
        f"{type(problem).__name__}: {problem}\n"
        "This is a bug in camviz. --debug shows where it happened: please report that."
    )
    return EXIT_BUG


def _is_out_of_memory(problem: Exception) -> bool:
    if isinstance(problem, MemoryError) or "torch" not in sys.modules:
        return isinstance(problem, MemoryError)
    from camcli.engine.device.oom_chunks import is_out_of_memory

    return is_out_of_memory(problem)


def _name_help(problem: typer.TyperException) -> str:
    """Names the page with all options of the command that was typed."""
    context = getattr(problem, "ctx", None)
    command = context.command.name if context is not None else None
    is_other = command in context.command_path.split() if context and command != DEFAULT else False
    return f"camviz {command} --help" if is_other else "camviz --help-all"


def _describe_error(problem: typer.TyperException) -> str:
    context, option = getattr(problem, "ctx", None), getattr(problem, "option_name", None) or ""
    explains = context is not None and context.command.name == DEFAULT
    if explains and (here := find_own_option(option)):
        return f"No such option: {option}. Here it is {here}"
    return problem.format_message()


def _wants_traceback(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--debug" in options or environ.get("CAMVIZ_DEBUG", "").lower() in ("1", "true", "yes")
