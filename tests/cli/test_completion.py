"""What is typed is completed: by what is known without torch, in bash, zsh and fish."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import typer.main

from camcli.cli.app import DEFAULT, app, main
from camcli.cli.completion.candidates import SHELLS, Candidates, find_candidates
from camcli.cli.completion.shells import VARIABLE, answer, find_shell, install, read_script
from camcli.cli.misplaced_words import COMMANDS
from camcli.config import list_presets
from camcli.errors import UnknownName, UsageError
from camcli.method_info import METHOD_INFO
from camcli.models import from_torchvision, known_names
from camcli.models.embedded.build import build
from camcli.models.model_spec import ModelSpec
from tests.checkout import ROOT
from tests.cli.conftest import Run

GROUP = typer.main.get_command(app)


def complete(*words: str) -> Candidates:
    return find_candidates(GROUP, words, DEFAULT)


def test_the_first_word_is_a_command_an_option_or_a_file() -> None:
    assert set(complete("").words) == set(COMMANDS)
    assert complete("").files
    assert set(complete("m").words) == {"methods", "metrics", "models", "merge"}
    options = complete("--").words
    assert {"--model", "--no-pretrained", "--target-layers", "--colormap"} <= set(options)
    assert options["--top-k"] == "Explain the K best classes."
    assert set(complete("photos", "--target_l").words) == {"--target-layers"}
    assert {"--metrics", "--boxes"} <= set(complete("evaluate", "--").words)
    assert "--metrics" not in options


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--method grad", ["gradcam", "gradcam++", "gradcamelementwise", "gradattention"]),
        ("--method gradcam,lay", ["gradcam,layercam"]),
        ("--method layercam,lay", []),
        ("--method=cam,hires", ["--method=cam,hirescam"]),
        ("--method hirescam@_conv_s", ["hirescam@_conv_stem"]),
        ("--combine product --method cam,hirescam@_conv_s", ["cam,hirescam@_conv_stem"]),
        ("--target-layers _blocks.1.", None),
        ("--target-layers _blocks.15,_blocks.15._bn", None),
        ("-m swin_tiny", ["swin_tiny_patch4_window7_224"]),
        ("-m resnet50.a1_", ["resnet50.a1_in1k"]),
        ("--model mnasnet1", ["mnasnet1_0", "mnasnet1_3"]),
        ("-m emb", ["embedded"]),
        ("--colormap p", ["plasma", "parula", "pink"]),
        ("--layer-fusion m", ["mean", "max"]),
        ("--layer_fusion=m", ["--layer_fusion=mean", "--layer_fusion=max"]),
        ("--fit ''", None),
        ("--target log-", ["log-probability"]),
        ("--device c", ["cpu", "cuda"]),
        ("--method smoothgradcam++ --set sa", ["samples=8"]),
        ("methods hires", ["hirescam"]),
        ("models swin_tiny", ["swin_tiny_patch4_window7_224"]),
        ("help sp", ["speed"]),
        ("completion z", ["zsh"]),
        ("--seed 1", []),
    ],
)
def test_values(typed: str, expected: Sequence[str] | None) -> None:
    found = complete(*("" if word == "''" else word for word in typed.split()))
    if expected is not None:
        assert sorted(found.words) == sorted(expected)
    elif "--fit" in typed:
        assert set(found.words) == {"crop", "squash", "pad"}
    else:
        begins = typed.split()[-1]
        assert found.words and all(word.startswith(begins) for word in found.words)


def test_presets_topics_and_methods_are_complete() -> None:
    presets = complete("--config", "")
    assert set(presets.words) == set(list_presets()) and presets.files
    assert {"start", "methods", "runs"} <= set(complete("help", "").words)
    assert set(complete("--method", "").words) == {*METHOD_INFO, "best", "all"}


@pytest.mark.parametrize(
    "typed",
    [
        "photos ",
        "--checkpoint w",
        "--class-map c",
        "merge o",
        "-- -o",
        "-q ",
        "-m ./my",
        "--boxes ",
        "--sheet ",
    ],
)
def test_files_are_the_shells_work(typed: str) -> None:
    words = typed.split(" ")
    assert complete(*words).files


def test_layers_are_those_of_the_model_that_was_typed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_names, "find_notes_folder", lambda: tmp_path / "layers")
    words = ("-m", "test_resnet", "--target-layers")
    unknown = complete(*words, "")
    assert unknown.words == {} and "--preview-model -m test_resnet" in unknown.message
    assert run("--preview-model", "-m", "test_resnet").code == 0
    top_level = set(complete(*words, "").words)
    assert {"layer1", "layer4", "conv1", "fc"} <= top_level
    assert not any("." in name for name in top_level)
    assert set(complete(*words, "layer1,layer4.").words) == {"layer1,layer4.0"}
    # a tag names weights, and no other layers
    assert set(complete("--model=test_resnet.r160_in1k", *words[2:], "conv").words) == {"conv1"}


def test_layers_that_cannot_be_noted_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(known_names, "find_notes_folder", lambda: tmp_path / "file")
    known_names.note_layers("net", ["a"])
    assert known_names.read_layers("net") == ()


def test_the_shipped_names_are_the_libraries() -> None:
    network = build(ModelSpec("embedded", pretrained=False)).module
    layers = [name for name, _ in network.named_modules() if name]
    assert list(known_names.read_layers("embedded")) == layers
    # an older torchvision has fewer
    assert set(from_torchvision.list_names()) <= set(known_names.list_architectures())


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("camviz --colormap vi", "vi", "words\nviridis"),
        ("camviz --colormap=vi", "vi", "words\nviridis"),
        ("camviz --method cam,hires", "cam,hires", "words\ncam,hirescam"),
        ("camviz --method cam@_conv_s", "_conv_s", "words\n_conv_stem"),
        ("camviz --method cam@", "", None),
        ("camviz 'my cat.jpg' --layer-fusion m", "m", "words\nmean\nmax"),
        ("camviz 'my ca", "'my ca", "files"),
        ("camviz help ", "", None),
    ],
)
def test_bash_is_given_what_goes_on_behind_its_word(
    line: str, word: str, expected: str | None
) -> None:
    said = answer(GROUP, DEFAULT, "bash", [line, word])
    if expected is not None:
        assert said == expected
    else:
        assert ("\n_conv_stem" in said) == ("cam@" in line) and ("\nspeed" in said) == (
            "help" in line
        )


def test_a_tab_imports_no_torch_and_no_error_is_shown() -> None:
    code = (
        "import sys; from camcli.cli.app import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)), file=sys.stderr)"
    )
    for words in (["--method", "grad"], ["-m", "resn"], ["--colormap", ""], ["--config", ""]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, VARIABLE: "zsh"},
        )
        assert done.stderr == "[]\n" and len(done.stdout.splitlines()) > 3


def test_what_goes_wrong_completes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "bash")
    assert main([]) == 1
    assert capsys.readouterr() == ("", "")


def test_the_command_prints_a_script(run: Run) -> None:
    for shell in SHELLS:
        assert run("completion", shell).out == read_script(shell)
    result = run("completion", "tcsh")
    assert result.code == 2 and "Unknown shell 'tcsh'" in result.err


@pytest.mark.parametrize("shell", SHELLS)
def test_installing_twice_writes_no_line_twice(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    for name in ("XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    start = tmp_path / {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".none"}[shell]
    start.write_text("alias ll='ls -l'\n")
    first = run("--install-completion")
    assert first.code == 0 and f"{shell} completes camviz from its next start on" in first.err
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert read_script(shell) in before.values()
    assert start.read_text().startswith("alias ll='ls -l'\n")
    assert [Path(line) in before for line in first.out.splitlines()]
    assert run("completion", shell, "--install").code == 0
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_unknown_shell_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="completion bash --install"):
        find_shell({"SHELL": "/bin/tcsh"})
    with pytest.raises(UnknownName, match="Unknown shell 'tcsh'"):
        install("tcsh", tmp_path, {})


# as people type it

FIRST = {
    "bash": 'eval "$(camviz completion bash)"',
    "zsh": "autoload -Uz compinit && compinit -u -D; source <(camviz completion zsh)",
    "fish": "camviz completion fish | source",
}
# what is typed before Tab, and what the command is called with
TYPED = {
    "camviz --colormap virid": "--colormap viridis",
    "camviz --method gradcam,hires": "--method gradcam,hirescam",
    "camviz --no-pretr": "--no-pretrained",
    "camviz -m swin_tiny_patch": "-m swin_tiny_patch4_window7_224",
    "camviz --config swin_ti": "--config swin_tiny_patch4_window7_224",
    "camviz --target-layers _conv_s": "--target-layers _conv_stem",
    "camviz help spee": "help speed",
    "camviz pictu": "picture.jpg",
}


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], list(command), dict(environ))
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def wait_for(self, pattern: str) -> str:
        """Waits until the terminal shows it, which takes long where others are at work."""
        deadline = time.monotonic() + 60
        while not (match := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, self.text
            if select.select([self.file], [], [], 1)[0]:
                self.text += os.read(self.file, 4096).decode(errors="replace")
        self.text = self.text[match.end() :]
        return match[0]

    def close(self) -> None:
        os.close(self.file)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(
    shell: str, installs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "camviz"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\n"
        f'if [ "$1" = completion ] || [ -n "${VARIABLE}" ]; then\n'
        f'    exec "{sys.executable}" -m camcli "$@"\nfi\n'
        'echo "RAN<$*>"\n'
    )
    program.chmod(0o755)
    (tmp_path / "picture.jpg").touch()
    environ = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "PS1": "> ",
        "LANG": "C.UTF-8",
    }
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.MonkeyPatch.context() as patch:
        if installs:
            patch.setenv("SHELL", shell)
            assert main(["--install-completion"]) == 0
    one = Terminal((shell, "-i"), tmp_path, environ)
    yield one
    one.close()


def check_completes(terminal: Terminal, typed: str, called: str) -> None:
    terminal.type(f"{typed}\t")
    terminal.wait_for(re.escape(called.split()[-1][len(typed.split()[-1]) :]))
    terminal.type("\n")
    assert terminal.wait_for(r"RAN<[^>]*>").strip() in (f"RAN<{called}>", f"RAN<{called} >")


@pytest.mark.parametrize("shell", FIRST)
@pytest.mark.parametrize("installs", [False])
def test_in_the_shell(terminal: Terminal, shell: str) -> None:
    terminal.type(f"{FIRST[shell]}; echo rea''dy\n")
    terminal.wait_for("ready")
    for typed, called in TYPED.items():
        check_completes(terminal, typed, called)


@pytest.mark.parametrize("shell", FIRST)
@pytest.mark.parametrize("installs", [True])
def test_in_a_shell_that_starts_with_it(terminal: Terminal) -> None:
    terminal.type("echo rea''dy\n")
    terminal.wait_for("ready")
    check_completes(terminal, "camviz --colormap virid", "--colormap viridis")
