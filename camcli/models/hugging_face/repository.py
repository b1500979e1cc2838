"""Where models of transformers lie: folders, and repositories of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.errors import ModelError, WeightsError
from camcli.models.weight_download import (
    fetch_hub_file,
    find_cached_hub_file,
    list_cached_repositories,
)
from camcli.utils.paths import expand_home, is_file
from camcli.utils.text_files import read_text

HUB, FOLDER = "hf:", "local-dir:"
CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
INDEX = ".index.json"
# what transformers and peft write, the safe format first
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# the second is where newer versions write it, among others
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
# the files that make tokens of words, any row of them, and what may stand beside those
TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
)
TOKENIZER_CONFIG = "tokenizer_config.json"
BESIDE_VOCABULARIES = ("special_tokens_map.json", "added_tokens.json")
# how classes that classify pictures are called
CLASSIFIES = ("ForImageClassification", "ForImageClassificationWithTeacher")
# what transformers calls a timm model of its own, which timm builds from the same folder
OF_TIMM = "timm_wrapper"


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model in a folder: its configuration, and its weights where they were asked.

    `origin` says in words where they are from; `adapter` is the configuration of a peft adapter.
    """

    name: str
    folder: Path
    origin: str
    config: Mapping[str, Any]
    weights: tuple[Path, ...] = ()
    adapter: Mapping[str, Any] | None = None

    @property
    def model_type(self) -> str:
        """What transformers calls the architecture."""
        return str(self.config.get("model_type", ""))

    @property
    def architecture(self) -> str:
        """The class that was saved, empty where nothing says it."""
        named = self.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""


def is_model_folder(name: str) -> bool:
    """Tells whether a name is a folder that transformers or peft saved, and none of timm's."""
    folder = expand_home(name.removeprefix(FOLDER))
    config = _read_json(folder / CONFIG)
    is_own = "model_type" in config and config["model_type"] != OF_TIMM
    return is_own or "base_model_name_or_path" in _read_json(folder / ADAPTER_CONFIG)


def find_model_folder(file: Path) -> str:
    """Names the folder of transformers that a file of weights lies in; "" for any other file."""
    is_weights = file.name in WEIGHTS and "model_type" in _read_json(file.parent / CONFIG)
    return str(file.parent) if is_weights and is_model_folder(str(file.parent)) else ""


def find_files(name: str, *, weights: bool) -> ModelFiles:
    """Finds a model's files in its folder or repository, fetched if need be.

    Raises ModelError for a folder without a model, WeightsError for what cannot be fetched.
    """
    return _find_in_repository(name, weights) if name.startswith(HUB) else _find(name, weights)


def _find(name: str, weights: bool) -> ModelFiles:
    folder = expand_home(name.removeprefix(FOLDER))
    adapter = _read_json(folder / ADAPTER_CONFIG) or None
    config = _read_json(folder / CONFIG)
    if not adapter and "model_type" not in config:
        raise ModelError(
            f"{name!r} holds no model of transformers: {CONFIG} has to be there and name its "
            "model_type, or adapter_config.json its base model."
        )
    wanted = ADAPTER_WEIGHTS if adapter else WEIGHTS
    first = next((folder / file for file in wanted if is_file(folder / file)), None)
    if weights and first is None:
        raise ModelError(
            f"{name!r} has a configuration and no weights: none of {', '.join(wanted)} is there. "
            "Save the model with save_pretrained, or give --checkpoint FILE."
        )
    files = tuple(_list_shards(first, lambda file: folder / file)) if first and weights else ()
    for file in files:
        if not is_file(file):
            raise ModelError(f"{name!r} lacks {file.name!r}, which its index names.")
    return ModelFiles(name, folder, name, config, files, adapter)


def _find_in_repository(name: str, weights: bool) -> ModelFiles:
    repository = name.removeprefix(HUB)
    file = fetch_hub_file(name, repository, (CONFIG, ADAPTER_CONFIG))
    config = _read_json(file)
    adapter = config if file.name == ADAPTER_CONFIG else None
    if not adapter and "model_type" not in config:
        way_on = (
            f"it is timm's: -m hf-hub:{repository}"
            if "architecture" in config
            else ("its config.json names no model_type")
        )
        raise ModelError(f"{name!r} holds no model of transformers: {way_on}.")
    files: tuple[Path, ...] = ()
    if weights:
        wanted = ADAPTER_WEIGHTS if adapter else WEIGHTS
        first = fetch_hub_file(name, repository, wanted)
        files = tuple(_list_shards(first, lambda shard: fetch_hub_file(name, repository, (shard,))))
    return ModelFiles(name, file.parent, repository, config, files, adapter)


def fetch_processor_file(files: ModelFiles) -> Path | None:
    """Returns the file that says what is done to pictures, fetched if need be, or None."""
    if not files.name.startswith(HUB):
        present = (files.folder / name for name in PROCESSORS)
        return next((path for path in present if is_file(path)), None)
    repository = files.name.removeprefix(HUB)
    cached = find_cached_hub_file(repository, PROCESSORS)
    if cached:
        return cached
    try:
        return fetch_hub_file(files.name, repository, PROCESSORS)
    except ModelError:  # many repositories have none, and a default is said
        return None


def fetch_tokenizer_folder(name: str) -> Path:
    """Returns the folder with a model's tokenizer, fetched if need be.

    Raises ModelError for a model without one, WeightsError for what cannot be fetched.
    """
    if name.startswith(HUB):
        return _fetch_tokenizer(name, name.removeprefix(HUB))
    if not has_tokenizer(name):
        raise ModelError(
            f"{name!r} has no tokenizer, and so reads no words: tokenizer.json has to be there. "
            "Save it beside the model: AutoProcessor.from_pretrained(BASE).save_pretrained(FOLDER)."
        )
    return expand_home(name.removeprefix(FOLDER))


def has_tokenizer(name: str) -> bool:
    """Tells whether a folder has what makes tokens of words."""
    folder = expand_home(name.removeprefix(FOLDER))
    return any(all(is_file(folder / file) for file in files) for files in TOKENIZERS)


def _fetch_tokenizer(name: str, repository: str) -> Path:
    what = "tokenizer's files"
    fetch_hub_file(name, repository, (TOKENIZER_CONFIG,), what)
    file = fetch_hub_file(name, repository, [files[0] for files in TOKENIZERS], what)
    beside = next(files[1:] for files in TOKENIZERS if files[0] == file.name)
    for other in beside:
        fetch_hub_file(name, repository, (other,), what)
    for other in BESIDE_VOCABULARIES if file.name != TOKENIZERS[0][0] else ():
        # which of them there are depends on the tokenizer
        with suppress(WeightsError):
            fetch_hub_file(name, repository, (other,), what)
    return file.parent


def _list_shards(first: Path, find: Any) -> Iterator[Path]:
    """Yields the files of weights, and those that an index names."""
    if not first.name.endswith(INDEX):
        yield first
        return
    placed = _read_json(first).get("weight_map")
    names = {Path(str(name)).name for name in placed.values()} if isinstance(placed, dict) else ()
    if not names:
        raise ModelError(f"{str(first)!r} is no index of sharded weights.")
    yield from (find(name) for name in sorted(names))


def _read_json(path: Path) -> Mapping[str, Any]:
    """Returns what a JSON file holds; nothing where there is none, or it holds something else."""
    try:
        content = json.loads(read_text(path)) if is_file(path) else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class CachedModel:
    """A repository in the local cache that holds a model of transformers, by the name to type.

    `classes` is 0 for a backbone.
    """

    name: str
    classes: int
    image_size: tuple[int, int] | None
    has_weights: bool


def list_cached() -> list[CachedModel]:
    """Lists the models of transformers in the local cache; asks no network."""
    models = []
    for repository in list_cached_repositories():
        file = find_cached_hub_file(repository, (CONFIG,))
        config = _read_json(file) if file else {}
        if "model_type" not in config:
            continue
        models.append(
            CachedModel(
                f"{HUB}{repository}",
                _count_classes(ModelFiles("", Path(), "", config)),
                parse_image_size(config),
                find_cached_hub_file(repository, WEIGHTS) is not None,
            )
        )
    return models


def _count_classes(files: ModelFiles) -> int:
    names = files.config.get("id2label")
    if not files.architecture.endswith(CLASSIFIES):
        return 0
    # two are not written down
    return len(names) if isinstance(names, dict) else 2


def parse_image_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns the size (height, width) in a configuration, its own or that of its image tower."""
    tower = config.get("vision_config")
    size = config.get("image_size")
    if size is None and isinstance(tower, Mapping):
        size = tower.get("image_size")
    pair = (size, size) if isinstance(size, int) else size
    if isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(e, int) for e in pair):
        return pair[0], pair[1]
    return None
