"""What all tests share."""

import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from camcli.utils.cpu import count_cores

if TYPE_CHECKING:
    from torch import Tensor

# what is imported and collected stays: nothing of it is garbage
gc.disable()

# tests run in several processes, which share the cores out; what they start inherits it
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = count_cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

# where a test names no number: the true ones take seconds a map
FEW = {
    "rise": {"masks": 40},
    "dff": {"concepts": 2},
    "smoothgradcam++": {"samples": 3},
    "sscam": {"samples": 3},
    "iscam": {"samples": 3},
}
FEW_STEPS, ALL_STEPS = 100, 1000
# of new objects, and of searches among younger ones: 28 times Python's own
RARE_SEARCHES = (20_000, 10, 10)
# passes of so many altered pictures are folded, as those of 128 are with all samples and masks
FEW_FOLDED = 32


# what takes long to compile and needs no torch
BESIDE_TORCH = ("sympy", "scipy.stats", "hypothesis", "matplotlib.pyplot")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Has every other process import from the end: each finds compiled what another has imported.

    In a new checkout all of them would compile the same files at the same time.
    """
    root, config = Path(__file__).parent, collector.config
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    is_all = config.args_source == config.ArgsSource.TESTPATHS
    if collector.path != root or not is_all or number % 2 == 0:
        return
    files = sorted(path.relative_to(root.parent) for path in root.rglob("test_*.py"))
    for name in (*BESIDE_TORCH, *(".".join(f.with_suffix("").parts) for f in reversed(files))):
        # what cannot be imported or is skipped says so where it is collected
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


def pytest_collection_finish() -> None:
    """Leaves what is imported out of the searches for garbage, and has few of them."""
    gc.freeze()
    gc.set_threshold(*RARE_SEARCHES)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _few_passes() -> Iterator[None]:
    import camcli.methods  # noqa: F401  (fills the registry)
    from camcli.engine.evidence import rescoring
    from camcli.methods import factorization
    from camcli.registry import METHODS

    with pytest.MonkeyPatch.context() as patch:
        # tests of the factorization itself have all (all_steps)
        assert factorization.STEPS == ALL_STEPS
        patch.setattr(factorization, "STEPS", FEW_STEPS)
        patch.setattr(rescoring, "FEWEST_FOLDED", FEW_FOLDED)
        for name, numbers in FEW.items():
            for option, number in numbers.items():
                patch.setitem(METHODS[name].function.__kwdefaults__, option, number)
        yield


@pytest.fixture(scope="session", autouse=True)
def _unfolded_passes() -> Iterator[None]:
    """Has no model folded while tests use it: a model's later passes are rounded otherwise then.

    Tests that count passes, or hold maps to the last bit, see each pass alike.  What folding does
    is tested in tests/models/acceleration/test_lasting_folding.py, and the laws with it.
    """
    from camcli.models.acceleration import lasting_folding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lasting_folding, "FEWEST_PICTURES", sys.maxsize)
        yield


@pytest.fixture(scope="session", autouse=True)
def _notes_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what is noted of models' layers out of the cache of whoever runs the tests."""
    from camcli.models import known_names

    folder = tmp_path_factory.mktemp("layers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_names, "find_notes_folder", lambda: folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def _weights_read_once() -> Iterator[None]:
    """Has the embedded model's file read and checked once for all tests that load the model."""
    import camcli.models.embedded as package

    read_once = cache(package.read_weights)

    def copy_weights() -> "dict[str, Tensor]":
        return {name: tensor.clone() for name, tensor in read_once().items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "read_weights", copy_weights)
        yield


@pytest.fixture
def small_embedded() -> Iterator[None]:
    """Has the embedded model built small, where what it sees is not what a test is about."""
    from tests.small_models import small_in_place_of_embedded

    with small_in_place_of_embedded():
        yield


@pytest.fixture
def all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has activations factorised to the end."""
    from camcli.methods import factorization

    monkeypatch.setattr(factorization, "STEPS", ALL_STEPS)


@pytest.fixture
def folds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has models folded from their first pass on, as if all calls stood in one block."""
    from camcli.models.acceleration import lasting_folding
    from camcli.models.acceleration.prepack_cache import PrepackCache

    cache = PrepackCache()
    monkeypatch.setattr(lasting_folding, "FEWEST_PICTURES", 0)
    monkeypatch.setattr(lasting_folding, "find_prepack_cache", lambda _: cache)


@pytest.fixture(scope="session", autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    # shells tell what they start in the background to ignore it, and so are its children told
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were explained together, batch by batch."""
    from camcli.pipeline import stages

    sizes: list[int] = []
    explain = stages.explain_batch

    def note_batch(batch: Sequence[Any], plan: Any) -> Iterator[Any]:
        sizes.append(len(batch))
        return explain(batch, plan)

    monkeypatch.setattr(stages, "explain_batch", note_batch)
    return sizes
