"""`camviz serve`: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
import webbrowser
from pathlib import Path

import pytest

from camcli.serve.server import Server
from tests.checkout import ROOT
from tests.cli.conftest import Run
from tests.serve.visitors import encode, make_pixels

MODEL = ("-m", "net.py:net", "--img-size", "32", "--device", "cpu", "--mean", "0.5", "--std", "0.5")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that were started, which answer nobody."""
    servers: list[Server] = []

    def serve_until(self: Server, _: object) -> None:
        servers.append(self)
        self.server_close()

    monkeypatch.setattr(Server, "serve_until", serve_until)
    return servers


@pytest.mark.usefixtures("folder")
def test_the_address_is_printed_and_who_can_reach_it(run: Run, served: list[Server]) -> None:
    result = run("serve", "--port", "0", *MODEL)
    assert result.code == 0, result.err
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/  \(Ctrl-C ends it\)\n", result.out)
    assert "open to others" not in result.err
    opened = run("serve", "--host", "0.0.0.0", "--port", "0", *MODEL)
    assert "open to others: whoever reaches port" in opened.err
    assert [server.guard.is_open for server in served] == [False, True]


@pytest.mark.usefixtures("folder")
def test_several_models_can_be_chosen(run: Run, served: list[Server]) -> None:
    result = run(
        "serve", "--port", "0", *MODEL, "-m", "net.py:other", "--method", "layercam", "--alpha",
        "0.3", "--max-pixels", "1M", "--max-upload", "2", "--time-limit", "7",
    )  # fmt: skip
    assert result.code == 0, result.err
    (server,) = served
    choices = server.show.describe()
    names = [model["name"] for model in choices["models"]]
    assert len(set(names)) == 2, names
    assert not any("/" in name for name in names)
    assert (choices["methods"], choices["alpha"]) == (("layercam",), 0.3)
    limits = server.show.limits
    assert (limits.max_bytes, limits.max_pixels) == (2_000_000, 1_000_000)
    assert limits.explain_seconds == 7
    assert server.show.models[1].words[:2] == ("--model", "net.py:other")


@pytest.mark.usefixtures("folder", "served")
def test_the_browser_is_opened_where_that_is_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert run("serve", "--port", "0", *MODEL).code == 0 and opened == []
    out = run("serve", "--port", "0", "--open", *MODEL).out
    assert opened == [out.split()[0]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "70000"], "--port 70000: takes a whole number from 0 to 65535."),
        (["--port", "http"], "--port http: takes a whole number from 0 to 65535."),
        (["--max-upload", "0"], "--max-upload 0: takes a whole number from 1 to 10000."),
        (["--time-limit", "-1"], "--time-limit -1: takes a whole number from 1"),
        (["--host", "192.0.2.1"], "'192.0.2.1' is no address of this machine"),
        (["-m", "resnet18", "-m", "resnet34", "--checkpoint", "w.pth"], "--checkpoint is for one"),
        (["-m", "resnet18", "-m", "resnet18"], "--model names 'resnet18' twice"),
        (["--config", "tuned.toml"], "The page explains by single methods, and gradcam@layer4"),
        (["--method", "all"], "The page explains by single methods, and all is more"),
        (["cat.jpg"], "cat.jpg"),
        (["--nope"], "No such option: --nope"),
    ],
)
@pytest.mark.usefixtures("folder", "served")
def test_wrong_input_ends_in_a_line(run: Run, words: list[str], said: str) -> None:
    Path("w.pth").touch()
    Path("tuned.toml").write_text('method = ["gradcam@layer4", "layercam"]\ncombine = "mean"\n')
    result = run("serve", *(["--port", "0"] if "--port" not in words else []), *words)
    assert result.code == 2 and said in result.err and result.out == ""
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("folder")
def test_a_port_in_use_is_told_before_a_model_is_loaded(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("serve", "--port", str(port), "-m", "no_such_model")
    assert result.code == 2
    assert f"Port {port} of 127.0.0.1 is in use: choose another with --port N" in result.err


def test_it_answers_until_ctrl_c_and_ends_in_good_order(folder: Path) -> None:
    words = [sys.executable, "-m", "camcli", "serve", "--port", "0", *MODEL]
    environ = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environ
    ) as started:
        assert started.stdout is not None
        url = started.stdout.readline().split()[0]
        request = urllib.request.Request(
            f"{url}explain?name=a.png",
            data=encode(make_pixels()),
            headers={"Content-Type": "application/octet-stream"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=20)
    assert (started.returncode, out) == (0, "")
    assert err.endswith("camviz: stopping\n") and "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir() if path.suffix) == ["flower.jpg", "net.py"]
