"""Adapters of peft (LoRA and its kind): their base model, and their weights merged into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from camcli.errors import ModelError
from camcli.models.checkpoints import read_checkpoint
from camcli.models.hugging_face.repository import (
    HUB,
    ModelFiles,
    fetch_tokenizer_folder,
    find_files,
    has_tokenizer,
)
from camcli.utils.paths import is_folder
from camcli.utils.warning_filters import ignore_warnings

BASE = "base_model_name_or_path"


def find_base_name(files: ModelFiles) -> str:
    """Returns the name of an adapter's base model, to be found as any other."""
    given = str((files.adapter or {}).get(BASE) or "")
    if not given:
        raise ModelError(f"{files.name!r} is an adapter that names no base model.")
    for folder in (Path(given), files.folder / given, files.folder.parent / given):
        if is_folder(folder):
            return str(folder)
    revision = (files.adapter or {}).get("revision")
    return f"{HUB}{given}{f'@{revision}' if revision else ''}"


def find_tokenizer_folder(name: str) -> Path:
    """Returns the folder with a model's tokenizer, an adapter's own or its base model's.

    Raises ModelError for a model without one, WeightsError for what cannot be fetched.
    """
    is_adapter = not name.startswith(HUB) and not has_tokenizer(name)
    files = find_files(name, weights=False) if is_adapter else None
    if files and files.adapter is not None:
        return find_tokenizer_folder(find_base_name(files))
    return fetch_tokenizer_folder(name)


def count_adapter_classes(files: ModelFiles) -> int | None:
    """Counts the classes of a head that was saved beside the adapter; None where there is none."""
    saved = (files.adapter or {}).get("modules_to_save") or ()
    for file in files.weights:
        for key, weight in read_checkpoint(file).weights.items():
            if key.endswith(".weight") and any(f".{name}." in key for name in saved):
                return int(weight.shape[0])
    return None


def merge_adapter(module: nn.Module, files: ModelFiles) -> nn.Module:
    """Merges an adapter's weights into its base model in memory; raises ModelError without peft."""
    try:
        import peft
    except ImportError as error:
        raise ModelError(
            f"{files.name!r} is an adapter of peft ({_name_kind(files)}): pip install peft merges "
            "it, or merge it where it was trained: "
            "model.merge_and_unload().save_pretrained(FOLDER)."
        ) from error
    # it asks transformers for what that will drop
    with ignore_warnings():
        adapted: Any = peft.PeftModel.from_pretrained(module, str(files.folder))
        merged: nn.Module = adapted.merge_and_unload()
    return merged


def _name_kind(files: ModelFiles) -> str:
    return str((files.adapter or {}).get("peft_type") or "of no kind that is named")
