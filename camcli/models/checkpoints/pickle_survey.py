"""Checks what the pickles in a checkpoint would create, before any of it is created.

torch.load with weights_only runs no code, but a few bytes can still ask it for much memory, and
before torch 2.10 for memory beyond what the file holds.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

from camcli.errors import CheckpointError
from camcli.utils.warning_filters import ignore_warnings

# how many times an archive's own size its contents may take: torch.save does not compress
LARGEST_UNPACKED = 10
# how many numbers all tensors together may show beyond what is stored of them, by strides of zero
MOST_REPEATED = 2**26
# shorter arguments are shared by many calls, as names of encodings are
SHORT = 64
# these calls allocate as much memory as their argument says, without any content
ALLOCATING = re.compile(r"torch\.([\w.]+\.)?\w*(Tensor|Storage)")
BYTEARRAY = re.compile(r"(builtins|__builtin__)\.bytearray")
# a registry of code that others may have filled
EXTENSIONS = frozenset(pickle.EXT1 + pickle.EXT2 + pickle.EXT4)
# the pickle of an archive
CONTENT = "data.pkl"
SAFETENSORS = ".safetensors"
# what NumPy reads, which refuses pickles by itself
NUMPYS = (".npy", ".npz")
# before the weights, files of old stand a magic number, a version and facts of the machine
PICKLES_IN_OLD_FILES = 4


class AsksForTooMuch(ValueError):
    """A pickle that asks for more than the file holds."""


def check_memory(path: Path) -> None:
    """Raises CheckpointError for a file that would take much more memory than it has bytes.

    Raises UnpicklingError for a damaged one; runs none of its code.
    """
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        else:
            _check_old_file(path)
    except AsksForTooMuch as error:
        raise CheckpointError(
            f"Checkpoint {str(path)!r} has {path.stat().st_size:,} bytes, and {error}: it is "
            "damaged, or made to fill the memory. Save the weights anew with "
            "torch.save({name: w.clone() for name, w in model.state_dict().items()}, FILE)."
        ) from error


def check_published(path: Path) -> None:
    """Checks a file of published weights, also for code in it, before a library reads it.

    torchvision runs the code, and so did timm before 1.0.26, whatever the file's name.
    """
    suffix = path.suffix.lower()
    if suffix == SAFETENSORS:
        from safetensors import safe_open

        with safe_open(path, "pt"):
            return
    if suffix not in NUMPYS:
        with ignore_warnings():
            check_memory(path)
            torch.load(path, map_location="cpu", weights_only=True)


def _check_archive(path: Path) -> None:
    """Checks what torch.save has written since 1.6."""
    with zipfile.ZipFile(path) as archive:
        members, size = archive.infolist(), path.stat().st_size
        unpacked = sum(member.file_size for member in members)
        if unpacked > LARGEST_UNPACKED * size:
            raise CheckpointError(
                f"Checkpoint {str(path)!r} has {size:,} bytes and unpacks to {unpacked:,}: torch."
                "save does not compress, so that it is none of its files."
            )
        records: dict[str, int] = {}
        for member in members:
            # torch does not tell upper from lower case, and may take either of two
            name = member.filename.lower()
            records[name] = min(member.file_size, records.get(name, member.file_size))
        for member in members:
            name = member.filename.lower()
            if name.endswith(CONTENT):
                content = archive.read(member)
                folder = f"{name.removesuffix(CONTENT)}data/"
                _read(_Survey(io.BytesIO(content), len(content), records, folder))


def _check_old_file(path: Path) -> None:
    """Checks what torch.save wrote before: pickles, and the numbers behind them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(PICKLES_IN_OLD_FILES):
            _read(_Survey(file, size))


def _read(survey: _Survey) -> None:
    try:
        survey.load()
    except AsksForTooMuch:
        raise
    except Exception as error:  # a damaged or hostile pickle can raise anything
        raise pickle.UnpicklingError from error


class _Survey(pickle._Unpickler):
    """Reads a pickle without calling anything: whatever it names is replaced by a stub.

    Python's own in Python, since the one in C keeps a list as long as a pickle says.
    """

    dispatch = {  # noqa: RUF012
        key: load for key, load in pickle._Unpickler.dispatch.items() if key not in EXTENSIONS
    }

    def __init__(
        self,
        file: IO[bytes],
        size: int,
        records: Mapping[str, int] | None = None,
        folder: str = "",
    ) -> None:
        super().__init__(file, encoding="latin-1")
        self.size, self.records, self.folder = size, records, folder
        self.copied = self.repeated = 0

    def find_class(self, module: str, name: str) -> Any:
        """Returns a stub for whatever is named."""
        return _Stub(self, f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Checks that a storage is no larger than what the file has of it."""
        _, kind, key, _, count, *_ = pid
        dtype = _dtype(kind)
        place = f"{self.folder}{key}".lower()
        held = self.size if self.records is None else self.records.get(place, 0)
        claimed = count * dtype.itemsize
        if not 0 <= claimed <= held:
            raise AsksForTooMuch(
                f"says that storage {str(key)!r} takes {claimed:,}, of which it has {held:,}"
            )
        return _Stub(self, "storage", numbers=count)

    def check_call(self, name: str, arguments: Sequence[Any]) -> None:
        """Checks how much memory the result of a call would take."""
        counts = bool(arguments) and isinstance(arguments[0], int)
        if (ALLOCATING.fullmatch(name) and arguments) or (BYTEARRAY.fullmatch(name) and counts):
            raise AsksForTooMuch(f"calls {name}, which takes memory without content")
        # a collection that is made once and copied in many calls
        lengths = [len(v) for v in arguments if isinstance(v, str | bytes | tuple | list | dict)]
        self.copied += sum(length for length in lengths if length > SHORT)
        if self.copied > self.size:
            raise AsksForTooMuch("copies the same content again and again")
        self.check_tensor(arguments)
        # torch's own functions call what they are given, too
        if arguments and isinstance(arguments[0], _Stub):
            for inner in filter(lambda value: isinstance(value, tuple), arguments[1:]):
                self.check_call(arguments[0].name, inner)

    def check_tensor(self, arguments: Sequence[Any]) -> None:
        """Checks a tensor that is made of (storage, offset, shape, ...)."""
        if len(arguments) < 3 or not isinstance(arguments[0], _Stub):
            return
        storage, _, shape, *_ = arguments
        if isinstance(shape, _Stub):  # a torch.Size
            shape = next(iter(shape.arguments), ())
        if storage.numbers is None or not isinstance(shape, Iterable):
            return
        shown = prod(shape)
        # what is shown more than once may be copied by others
        if shown > storage.numbers:
            self.repeated += shown
        if self.repeated > MOST_REPEATED:
            raise AsksForTooMuch(
                f"says that a tensor of shape {list(shape)} is made of {storage.numbers:,} "
                "stored numbers"
            )


class _Stub:
    """Stands for a class, a function, and their results."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        # a pickle may call `__new__` of the stub of a class
        return cls(*arguments, **keywords) if isinstance(cls, _Stub) else super().__new__(cls)

    def __init__(
        self, survey: _Survey, name: str, arguments: Sequence[Any] = (), numbers: int | None = None
    ) -> None:
        self.survey, self.name = survey, name
        self.arguments, self.numbers = arguments, numbers

    def __call__(self, *arguments: Any, **_: Any) -> _Stub:
        self.survey.check_call(self.name, arguments)
        return _Stub(self.survey, "", arguments)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):
            self.survey.check_tensor(state)

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """Does nothing, where a list would take items."""

    extend = add = append


def _dtype(kind: Any) -> torch.dtype:
    """Returns the type of the numbers in a kind of storage, such as torch.FloatStorage."""
    module, _, name = kind.name.rpartition(".")
    if module not in ("torch", "torch.storage") or not name.endswith("Storage"):
        raise pickle.UnpicklingError
    if name == "UntypedStorage":
        return torch.uint8
    dtype: torch.dtype = getattr(torch, name).dtype
    return dtype
