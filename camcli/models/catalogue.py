"""What can be named after `-m`, and what is known of it before it is built."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import timm
import torch
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs, get_pretrained_cfg
from torchvision.models import get_model_weights

from camcli.errors import UnknownName
from camcli.models import embedded, from_timm, from_torchvision
from camcli.models.embedded import EfficientNetLite0, is_installed
from camcli.models.hugging_face.repository import HUB, list_cached
from camcli.models.inspection.quirks import can_classify
from camcli.models.known_names import PARAMETERS
from camcli.models.weight_download import find_cached_url_file

Library = Literal["embedded", "timm", "torchvision", "transformers"]
Availability = Literal["here", "to download", "none"]
WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class CatalogueEntry:
    """A model with its pretrained weights, by the name to type; `input_size` is (height, width).

    That is (0, 0) where nothing says it.  `classes` is 0 where the weights come without a
    classifier; `parameters` is None where nobody has counted them.
    """

    name: str
    library: Library
    input_size: tuple[int, int]
    classes: int
    parameters: int | None
    weights: Availability

    @property
    def qualified_name(self) -> str:
        """Its name with the library in front: `timm/resnet50.a1_in1k`."""
        return _qualify(self.library, self.name)


def find_models(pattern: str = "") -> list[CatalogueEntry]:
    """Returns what a piece of a name or a shell pattern finds, without regard to case.

    A pattern without a tag finds an architecture with all its tags; `hf` finds the models of
    transformers in the local cache.  Raises UnknownName.
    """
    if pattern.lower() == HUB.rstrip(":") or pattern.lower().startswith(HUB):
        return _list_cached_entries(pattern)
    matches = list(list_entries(pattern.lower()))
    if not matches:
        known = [embedded.NAME, *from_timm.list_names(), *from_torchvision.list_names()]
        hint = "Give a piece of a name, or a pattern in quotes: camviz models '*vit*'"
        raise UnknownName("model", pattern, known, hint)
    return [
        entry if entry.parameters else replace(entry, parameters=count_parameters(entry.name))
        for entry in matches
    ]


def list_entries(pattern: str = "") -> Iterator[CatalogueEntry]:
    """Yields what a pattern in small letters matches, all without one.

    Parameters are None for what `parameters.csv` does not know.
    """
    if _matches("embedded", embedded.NAME, pattern):
        yield _make_embedded_entry()
    yield from _list_timm_entries(pattern)
    yield from _list_torchvision_entries(pattern)


def count_parameters(name: str) -> int | None:
    """Counts what a timm model learns by building it without memory; None where that fails."""
    try:
        with torch.device("meta"):
            module = timm.create_model(name, pretrained=False)
    except Exception:  # constructors that compute with their weights each raise their own kind
        return None
    return sum(parameter.numel() for parameter in module.parameters())


def _qualify(library: Library, name: str) -> str:
    return f"{library}/{name.removeprefix(f'{library}/')}"


def _matches(library: Library, name: str, pattern: str) -> bool:
    qualified = _qualify(library, name).lower()
    plain = qualified.partition("/")[2]
    if WILDCARDS.isdisjoint(pattern):
        return pattern in plain or qualified.startswith(pattern)
    names = (plain, qualified, plain.partition(".")[0], qualified.partition(".")[0])
    return any(fnmatchcase(name, pattern) for name in names)


def _make_embedded_entry() -> CatalogueEntry:
    labels = embedded.load_labels()
    with torch.device("meta"):
        network = EfficientNetLite0(len(labels))
    return CatalogueEntry(
        name=embedded.NAME,
        library="embedded",
        input_size=(embedded.SIZE, embedded.SIZE),
        classes=len(labels),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights="here" if is_installed() else "none",
    )


def _list_timm_entries(pattern: str) -> Iterator[CatalogueEntry]:
    with PARAMETERS.open(encoding="utf-8", newline="") as file:
        parameters = {row["name"]: int(row["parameters"]) for row in csv.DictReader(file)}
    for architecture in filter(can_classify, from_timm.list_names()):
        for name, config in _list_weights(architecture).items():
            if not _matches("timm", name, pattern):
                continue
            yield CatalogueEntry(
                name=name,
                library="timm",
                input_size=config.input_size[1:],
                classes=config.num_classes,
                parameters=parameters.get(name),
                weights=_find_availability(config),
            )


def _list_weights(architecture: str) -> dict[str, PretrainedCfg]:
    """Returns the tags that have weights, the default one first; else the architecture alone."""
    tags = get_arch_pretrained_cfgs(architecture)
    having = {name: config for name, config in tags.items() if config.has_weights}
    return having or {architecture: get_pretrained_cfg(architecture) or PretrainedCfg()}


def _list_cached_entries(pattern: str) -> list[CatalogueEntry]:
    """Lists the models of transformers that are on this machine; raises UnknownName for none."""
    every = list_cached()
    beginning = pattern.lower() if pattern.lower().startswith(HUB) else HUB
    entries = [
        CatalogueEntry(
            name=model.name,
            library="transformers",
            input_size=model.image_size or (0, 0),
            classes=model.classes,
            parameters=None,
            weights="here" if model.has_weights else "to download",
        )
        for model in every
        if model.name.lower().startswith(beginning)
    ]
    if not entries:
        hint = (
            "The Hub's cache on this machine has no model of transformers of that name: "
            "-m hf:ORG/NAME fetches one, and HF_HOME says where the cache lies."
        )
        raise UnknownName("model", pattern, [model.name for model in every], hint)
    return entries


def _find_availability(config: PretrainedCfg) -> Availability:
    if not config.has_weights:
        return "none"
    return "here" if from_timm.find_cached_weights(vars(config)) else "to download"


def _list_torchvision_entries(pattern: str) -> Iterator[CatalogueEntry]:
    for architecture in from_torchvision.list_names():
        for weights in get_model_weights(architecture):
            plain = f"{architecture}.{weights.name}"
            name = f"torchvision/{plain}" if from_timm.knows(plain) else plain
            if not _matches("torchvision", name, pattern):
                continue
            (edge,) = weights.transforms().crop_size
            yield CatalogueEntry(
                name=name,
                library="torchvision",
                input_size=(edge, edge),
                classes=len(weights.meta["categories"] or ()),
                parameters=weights.meta["num_params"],
                weights="here" if find_cached_url_file(weights.url) else "to download",
            )
