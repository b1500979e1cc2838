"""A model and a pipeline that only remember what they were asked, and a way to run the command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from camcli.cli.app import main
from camcli.config import Options
from camcli.errors import ModelError, UnknownName
from camcli.models.outputs.interpretation import OutputReading
from camcli.pipeline import RunCallbacks, StopRequest, handle_interrupts
from camcli.pipeline.distributed import sharding
from camcli.records import Outcome, Preprocessing, Record, Source


@dataclass
class Asked:
    """What the fakes were asked for, and what they answer."""

    model: dict[str, Any] = field(default_factory=dict)
    options: Options | None = None
    sources: tuple[Source, ...] = ()
    records: list[Record] = field(default_factory=list)
    problem: BaseException | None = None


PREPROCESSING = Preprocessing((32, 32), (32, 32))


@dataclass
class FakeClassifier:
    name: str
    module: nn.Module = field(default_factory=lambda: Structure())
    preprocessing: Preprocessing = PREPROCESSING
    in_chans: int = 3
    labels: tuple[str, ...] = ("tabby, tabby cat", "espresso")
    warnings: tuple[str, ...] = ("the weights are fake",)
    reading: OutputReading = field(default_factory=OutputReading)


class Structure(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer3 = nn.Conv2d(3, 8, 3)
        self.layer4 = nn.Conv2d(8, 8, 3)


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class FakeRequest:
    methods: tuple[str, ...] = ("gradcam",)


@dataclass(frozen=True)
class FakePlan:
    left_out: Mapping[str, str] = field(default_factory=dict)
    request: FakeRequest = FakeRequest()
    warnings: tuple[str, ...] = ()
    batch_size: int = 1


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def runner(*arguments: str) -> Result:
        code = main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return runner


NET = """
from tests.networks import Staged

def net():
    return Staged()

def other():
    return Staged(seed=1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture, and code of two small models, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    ramp = np.linspace(0, 255, 40 * 48 * 3).reshape(40, 48, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "flower.jpg")
    return tmp_path


@pytest.fixture
def camviz(folder: Path, run: Run) -> Run:
    """Runs the command with a small model, without fakes."""
    assert (folder / "net.py").exists()

    def runner(*words: str, model: str = "net", code: int = 0) -> Result:
        asked = ("-m", f"net.py:{model}", "--img-size", "32", "--device", "cpu")
        result = run(*words, *asked)
        assert result.code == code, result.err
        return result

    return runner


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Puts fakes in the place of model and pipeline."""
    memory = Asked()

    def load_model(name: str, **options: Any) -> FakeClassifier:
        memory.model = {"name": name, **options}
        if name == "missing":
            raise ModelError("There is no such model.")
        return FakeClassifier(name, Structure())

    def make_plan(classifier: FakeClassifier, _: Options) -> FakePlan:
        assert classifier.name == memory.model["name"]
        return FakePlan()

    def carry_out_plan(
        _: FakePlan, sources: Sequence[Source], options: Options, *__: Any
    ) -> Iterator[Outcome]:
        memory.options, memory.sources = options, tuple(sources)
        for record in memory.records:
            yield Outcome(Source(Path(record.source)), (record,), last=record.frame is None)
        if memory.records and memory.records[-1].frame is not None:
            yield Outcome(Source(Path(memory.records[-1].source)), ())
        if memory.problem:
            raise memory.problem

    def find_model(name: str) -> None:
        raise UnknownName("model", name, ())

    def replace_classes(classifier: FakeClassifier, *_: Any) -> FakeClassifier:
        return classifier

    for name, functions in {
        "models.load": {"load_model": load_model, "find_model": find_model},
        "models.words.prompts": {"prompt": replace_classes},
        "pipeline": {
            "make_plan": make_plan,
            "carry_out_plan": carry_out_plan,
            "compare_with": replace_classes,
            "StopRequest": StopRequest,
            "RunCallbacks": RunCallbacks,
            "handle_interrupts": handle_interrupts,
            "sharding": sharding,
        },
        "pipeline.comparison.model_comparison": {
            "compare_plans": lambda plan, *_, **__: plan,
        },
    }.items():
        module = ModuleType(f"camcli.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, f"camcli.{name}", module)
    return memory


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "cat.jpg"
    path.touch()
    return str(path)
