"""Options of other tools are answered with ours."""

from __future__ import annotations

import pytest
import typer.main

from camcli.cli.app import app, main
from camcli.cli.foreign_options import OWN_OPTIONS, PICTURES

COMMAND = typer.main.get_command(app).commands["explain"]  # type: ignore[attr-defined]
OURS = {name for parameter in COMMAND.params for name in parameter.opts + parameter.secondary_opts}


def test_no_option_of_ours_is_called_anothers() -> None:
    assert len(OURS) > 50 and not OURS & OWN_OPTIONS.keys()


def test_what_is_named_instead_is_there() -> None:
    for here in OWN_OPTIONS.values():
        assert here == PICTURES or here.split()[0] in OURS


def test_another_command_has_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in ((["a.jpg"], "Here it is --model NAME"), (["models"], "")):
        assert main([*arguments, "--arch", "resnet50"]) == 2
        message = capsys.readouterr().err
        assert message.startswith("camviz: No such option: --arch")
        assert said in message and ("Here it is" in message) == bool(said)
