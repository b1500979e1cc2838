"""Reads weights out of a file or folder, whatever a training script left around them."""

from __future__ import annotations

import json
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from camcli.errors import CheckpointError, first_line
from camcli.models.checkpoints.pickle_survey import check_memory
from camcli.models.checkpoints.stored_names import find_class_names
from camcli.models.checkpoints.training_args import (
    TrainingArgs,
    find_architecture,
    look_up,
    read_training_args,
)
from camcli.models.model_spec import Weights
from camcli.utils.text_files import read_text
from camcli.utils.warning_filters import ignore_warnings

# where training scripts put the weights; an average of them is what they evaluate, so it comes
# first, but mmengine's ema_state_dict comes after, since it swaps the two when it saves
NESTS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "ema_state_dict",
    "ema",
    "teacher",
    "student",
    "encoder",
    "weights",
    "params",
)
DEEPEST_NEST = 4
# tensors that stand beside weights and are none: the count of an AveragedModel
NOT_WEIGHTS = frozenset({"n_averaged"})

# what folders hold, by timm, transformers, accelerate and timm's training script
IN_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model_best.pth.tar",
)
INDEX = ".index.json"

PICKLE = (
    "a Python pickle, which may hold code and is never run: "
    "save the weights with torch.save(model.state_dict(), FILE)"
)
OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"<", "a web page or XML: download the file itself"),
    (b"\x89HDF", "an HDF5 file, which is Keras's format"),
    (b"\x93NUMPY", "a NumPy array"),
    # torch.save writes the older protocol 2
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
)


@dataclass(frozen=True)
class Checkpoint:
    """A file's weights by the names they have there.

    `arch` is the architecture that the file names; `note` says where in the file they stood;
    `settings` are what the architecture was trained with, `class_names` what may name its classes.
    """

    path: Path
    weights: Weights
    arch: str | None = None
    note: str = ""
    settings: TrainingArgs = field(default_factory=TrainingArgs)
    class_names: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path}{f' ({self.note})' if self.note else ''}"

    def settings_for(self, name: str) -> TrainingArgs:
        """Returns the settings if they are for the model of this name, else none."""
        return (
            self.settings
            if self.arch and _strip_name(self.arch) == _strip_name(name)
            else TrainingArgs()
        )


def _strip_name(name: str) -> str:
    """Removes the library before a name, and the tag of pretrained weights behind it."""
    return name.rpartition("/")[2].partition(".")[0]


class InertObject:
    """Replaces any object that a training script saved beside the weights; it runs nothing."""

    def __new__(cls, *_: object, **__: object) -> InertObject:  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in dict.items(state)})


def _empty_list(*_: object) -> list[object]:
    return []


def _empty_dict(*_: object) -> OrderedDict[object, object]:
    return OrderedDict()


# what stands for which globals; dictionaries and lists have to be real ones to be filled
INERT_CLASSES: Sequence[tuple[Callable[..., Any], str, str]] = (
    (InertObject, "argparse", "Namespace"),
    (InertObject, "types", "SimpleNamespace MappingProxyType"),
    # a reference to a bound method is pickled as getattr(Class, "name")
    (
        InertObject,
        "builtins",
        "getattr object type int float str bool bytes tuple frozenset slice range",
    ),
    (dict, "builtins", "dict"),
    (list, "builtins", "list"),
    (_empty_dict, "collections", "defaultdict"),
    (_empty_list, "collections", "deque"),
    (InertObject, "typing", "Any Union Optional List Dict Tuple"),
    (InertObject, "functools", "partial"),
    (InertObject, "datetime", "datetime date time timedelta timezone"),
    (InertObject, "uuid", "UUID"),
    (InertObject, "decimal", "Decimal"),
    (InertObject, "pathlib", "Path PurePath PosixPath PurePosixPath WindowsPath PureWindowsPath"),
    (InertObject, "pathlib._local", "Path PosixPath PurePosixPath WindowsPath PureWindowsPath"),
    (
        InertObject,
        "numpy",
        "ndarray dtype bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 "
        "float16 float32 float64",
    ),
    (InertObject, "numpy.core.multiarray", "_reconstruct scalar"),
    (InertObject, "numpy._core.multiarray", "_reconstruct scalar"),
    (InertObject, "numpy.core.numeric", "_frombuffer"),
    (InertObject, "numpy._core.numeric", "_frombuffer"),
    (InertObject, "torch.torch_version", "TorchVersion"),
    (InertObject, "torch", "Generator"),
    (InertObject, "mmengine.logging.history_buffer", "HistoryBuffer"),
    (OrderedDict, "mmengine.config.config", "ConfigDict"),
    (InertObject, "mmengine.config.config", "Config"),
    (OrderedDict, "mmcv.utils.config", "ConfigDict"),
    (InertObject, "mmcv.utils.config", "Config"),
    (OrderedDict, "addict.addict", "Dict"),
    (OrderedDict, "yacs.config", "CfgNode"),
    (OrderedDict, "fvcore.common.config", "CfgNode"),
    (OrderedDict, "easydict", "EasyDict"),
    (OrderedDict, "box.box", "Box"),
    (InertObject, "ml_collections.config_dict.config_dict", "ConfigDict FrozenConfigDict"),
    (InertObject, "omegaconf.dictconfig", "DictConfig"),
    (InertObject, "omegaconf.listconfig", "ListConfig"),
    (InertObject, "omegaconf.base", "ContainerMetadata Metadata"),
    (
        InertObject,
        "omegaconf.nodes",
        "AnyNode StringNode IntegerNode FloatNode BooleanNode PathNode EnumNode BytesNode",
    ),
    (OrderedDict, "pytorch_lightning.utilities.parsing", "AttributeDict"),
    (OrderedDict, "lightning.pytorch.utilities.parsing", "AttributeDict"),
    (OrderedDict, "lightning_fabric.utilities.data", "AttributeDict"),
    (OrderedDict, "lightning.fabric.utilities.data", "AttributeDict"),
)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads .safetensors, what torch.save writes, and folders of them; raises CheckpointError.

    Code in pickles never runs: what is no tensor, number or known stand-in is refused.
    """
    if _is_folder(path):
        return _read_folder(path)
    if path.name.endswith(INDEX) and path.is_file():
        return Checkpoint(path, _read_shards(path), _read_architecture(path.parent))
    content = _read_content(path)
    nest, note = _find_weights(content)
    if nest is None:
        keys = ", ".join(repr(str(key)) for key in list(content)[:5])
        raise CheckpointError(
            f"Checkpoint {str(path)!r} holds no weights{keys and f', only {keys}'}. "
            "Save them with torch.save(model.state_dict(), FILE)."
        )
    for name, why in _list_unusable(nest):
        raise CheckpointError(
            f"Checkpoint {str(path)!r} holds {name!r} as {why}, and weights are dense numbers. "
            "Save them with torch.save(model.state_dict(), FILE)."
        )
    named = find_architecture(content) or _read_architecture(path.parent)
    settings = read_training_args(content)
    return Checkpoint(path, nest, named, note, settings, find_class_names(content))


def _is_folder(path: Path) -> bool:
    with suppress(OSError):  # a name too long for the file system
        return path.is_dir()
    return False


def _read_folder(folder: Path) -> Checkpoint:
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
    raise CheckpointError(
        f"Checkpoint {str(folder)!r} is a folder with none of {', '.join(IN_FOLDERS)}: "
        "name a file in it."
    )


def _read_architecture(folder: Path) -> str | None:
    """Returns the name by which timm builds what a config.json beside the weights describes."""
    config = _read_config(folder)
    # timm cannot read what transformers writes about timm's models
    timms = {"architecture", "pretrained_cfg"} <= config.keys() and "model_type" not in config
    return f"local-dir:{folder}" if timms else find_architecture(config)


def is_transformers_folder(folder: Path) -> bool:
    """Tells whether the folder's config.json is one of transformers'."""
    return "model_type" in _read_config(folder)


def _read_config(folder: Path) -> Mapping[Any, Any]:
    try:
        config = _read_json(folder / "config.json")
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, Mapping) else {}


def _read_json(path: Path) -> Any:
    if not path.is_file():  # a pipe would wait for whoever writes to it
        raise FileNotFoundError
    return json.loads(read_text(path))


def _read_shards(index: Path) -> Weights:
    try:
        placed = _read_json(index)["weight_map"]
        files = sorted({index.parent / Path(name).name for name in placed.values()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{str(index)!r} is no index of a sharded checkpoint.") from error
    weights: Weights = {}
    for file in files:
        # an index could name itself, or the folder above
        if _is_folder(file) or file.name.endswith(INDEX):
            raise CheckpointError(
                f"{str(index)!r} names {file.name!r}, which is no file of weights."
            )
        weights |= read_checkpoint(file).weights
    return weights


def _read_content(path: Path) -> Mapping[Any, Any]:
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for whoever writes to it
            raise OSError("it is no ordinary file")
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {str(path)!r}.") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise CheckpointError(f"Checkpoint {str(path)!r} cannot be read: {why}.") from error
    if not start:
        raise CheckpointError(f"Checkpoint {str(path)!r} is empty.")
    # known by its content, since people rename these files; first, since it begins with a length,
    # which may look like anything
    if start[8:9] == b"{":
        return _read_safetensors(path)
    for magic, words in OTHER_FILES:
        if start.lstrip().startswith(magic):
            raise CheckpointError(f"{str(path)!r} is no checkpoint but {words}.")
    return _read_pickle(path)


def _read_safetensors(path: Path) -> Weights:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # a damaged or hostile file can raise anything in the reader
        raise _damaged_error(path, error) from error


def _read_pickle(path: Path) -> Mapping[Any, Any]:
    stand_ins = [
        (stand_in, f"{module}.{name}")
        for stand_in, module, names in INERT_CLASSES
        for name in names.split()
    ]
    try:
        _check_is_no_program(path)
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals(stand_ins),  # type: ignore[arg-type]
            ignore_warnings(),
        ):
            check_memory(path)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or hostile file can raise anything in the reader
        raise _refused_error(path, error) or _damaged_error(path, error) from error
    if isinstance(content, Tensor) or not isinstance(content, Mapping):
        kind = type(content).__name__.lower()
        raise CheckpointError(f"Checkpoint {str(path)!r} holds a {kind}, not named weights.")
    return content


def _check_is_no_program(path: Path) -> None:
    """Raises CheckpointError for TorchScript."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{str(path)!r} is a TorchScript program, not weights: save those with "
            "torch.save(model.state_dict(), FILE)."
        )


def _refused_error(path: Path, error: Exception) -> CheckpointError | None:
    match = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", str(error))
    if not match:
        return None
    return CheckpointError(
        f"Checkpoint {str(path)!r} asks for {match[1]!r}, and code in checkpoints is never run. "
        "Save the weights alone: torch.save(model.state_dict(), FILE)."
    )


def _damaged_error(path: Path, error: Exception) -> CheckpointError:
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    first = re.split(r"\.\s|\n", said)[0].rstrip(".")
    # readers say why in a sentence; for what is no pickle at all, the message may be just `101`
    telling = first[:1].isupper() and not first.startswith("Unsupported operand")
    why = f": {first[:200]}" if telling else ""
    return CheckpointError(
        f"Checkpoint {str(path)!r} is damaged, or no checkpoint at all{why}. "
        "camviz reads .safetensors and what torch.save writes."
    )


def _find_weights(content: object, depth: int = 0) -> tuple[Weights | None, str]:
    if not isinstance(content, dict) or depth > DEEPEST_NEST:
        return None, ""
    for key in NESTS:
        weights, note = _find_weights(look_up(content, key), depth + 1)
        if weights:
            return weights, ".".join(filter(None, (key, note)))
    weights = {
        k: v
        for k, v in dict.items(content)
        if isinstance(k, str) and isinstance(v, Tensor) and k not in NOT_WEIGHTS
    }
    return weights or None, ""


def _list_unusable(weights: Weights) -> Iterator[tuple[str, str]]:
    """Yields the weights that cannot be copied into a model, and what they are."""
    for name, weight in weights.items():
        if weight.is_nested:
            yield name, "a nested tensor"
        elif weight.is_sparse or weight.layout != torch.strided:
            yield name, "a sparse tensor"
        elif weight.is_meta or (weight.numel() and not weight.data_ptr()):
            yield name, "a shape without numbers"
        elif weight.is_quantized or weight.is_complex():
            yield name, f"numbers of type {weight.dtype}"
