"""Speaks with the shells: their scripts, where these are installed, and the answer to a Tab."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.cli.completion.candidates import SHELLS, Candidates, find_candidates
from camcli.errors import UnknownName, UsageError
from camcli.media.atomic_files import unwritable_error

VARIABLE = "_CAMVIZ_COMPLETE"
# the first line of an answer says whether files are offered, too
FILES, WORDS = "files", "words"


def read_script(shell: str) -> str:
    """Returns the script that a shell reads; raises UnknownName for another shell."""
    if shell not in SHELLS:
        raise UnknownName("shell", shell, SHELLS, f"There are scripts for {', '.join(SHELLS)}.")
    return (Path(__file__).parent / "scripts" / f"camviz.{shell}").read_text(encoding="utf-8")


def answer(group: Any, default: str, shell: str, typed: Sequence[str]) -> str:
    """Answers a Tab: whether files are offered, and what could stand there, a line each.

    bash gives the line and the word as it splits it, which goes on behind `=`, `:` and `@`; the
    others give the words.
    """
    if shell != "bash":
        return _format(find_candidates(group, list(typed), default), shell, "")
    line, piece = typed[0], typed[1] if len(typed) > 1 else ""
    words = _split(line)[1:]
    current = words[-1] if words else ""
    cut = current[: len(current) - len(piece)] if piece and current.endswith(piece) else ""
    if not piece and current:
        cut = current
    return _format(find_candidates(group, words, default), shell, cut)


def _format(found: Candidates, shell: str, cut: str) -> str:
    lines = [FILES if found.files else WORDS]
    for word, said in found.words.items():
        lines.append(word.removeprefix(cut) if shell == "bash" else f"{word}\t{said}")
    if found.message and shell == "zsh":
        lines.append(f"\t{found.message}")
    return "\n".join(lines)


def _split(line: str) -> list[str]:
    """Splits a line that may end within quotes, or behind a space."""
    for end in ("", "'", '"'):
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return [*words, ""] if line[-1:].isspace() and not end else words
    return line.split()


def find_shell(environ: Mapping[str, str]) -> str:
    """Returns the person's shell; raises UsageError for one that there is no script for."""
    name = Path(environ.get("SHELL", "")).name
    if name in SHELLS:
        return name
    raise UsageError(
        f"SHELL={environ.get('SHELL', '')} is none of {', '.join(SHELLS)}: say which one it is, "
        "as in camviz completion bash --install."
    )


def install(shell: str, home: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Writes a shell's script, and into its start file what reads it; returns what was written.

    Raises UnknownName or OutputError.
    """
    script = read_script(shell)
    if shell == "fish":
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        return _write(config / "fish" / "completions" / "camviz.fish", script)
    if shell == "bash":
        file = home / ".bash_completions" / "camviz.sh"
        line = f"[ -f {shlex.quote(str(file))} ] && . {shlex.quote(str(file))}"
        return _write(file, script) + _append(home / ".bashrc", (line,))
    folder = home / ".zfunc"
    start = Path(environ.get("ZDOTDIR") or home) / ".zshrc"
    lines = (f"fpath+=({shlex.quote(str(folder))})", "autoload -Uz compinit && compinit")
    return _write(folder / "_camviz", script) + _append(start, lines)


def _write(file: Path, text: str) -> tuple[Path, ...]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable_error(file, error) from error
    return (file,)


def _append(file: Path, lines: Sequence[str]) -> tuple[Path, ...]:
    """Appends the lines that a file does not have; what stands in it stays as it is."""
    try:
        text = os.fsdecode(file.read_bytes()) if file.exists() else ""
        missing = [line for line in lines if line not in text.splitlines()]
        if not missing:
            return ()
        with file.open("a", encoding="utf-8") as end:
            end.write("".join(f"{line}\n" for line in ("", "# camviz", *missing)))
    except OSError as error:
        raise unwritable_error(file, error) from error
    return (file,)


__all__ = ["VARIABLE", "answer", "find_shell", "install", "read_script"]
