"""Small random networks in the place of those that libraries build, under the same names.

The handbook's commands are run with them: layers, attention, embeddings and checkpoints are there,
and nothing is fetched.  The functions are those of a builder, as camcli/models/from_timm.py has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from camcli.models import build as camcli_build
from camcli.models import embedded
from camcli.models.model_spec import BuiltModel, ModelSpec
from camcli.models.outputs.interpretation import OutputReading
from camcli.models.words.prompts import TextEmbeddings
from camcli.records import Preprocessing

# edges of what the small networks see, and of what the embedded one is given for speed
EDGE, EMBEDDED_EDGE = 16, 64
CLASSES, WIDTH = 1000, 16
# whose names say that they attend, that they have no classifier, or that they read words
ATTENDING = ("vit", "ViT-", "dino", "clip", "siglip", "FOLDER", "checkpoint-")
HEADLESS = ("dinov2", "ViT-", "clip", "siglip")


class SmallResNet(nn.Sequential):
    """It has the four stages of a ResNet, of which the last has three blocks."""

    def __init__(self, classes: int = CLASSES) -> None:
        stages = [("layer1", _stage(3, 8, 2)), ("layer2", _stage(8, 8, 2))]
        stages += [("layer3", _stage(8, 8, 2)), ("layer4", _blocks(8))]
        head = [("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())]
        super().__init__(OrderedDict([*stages, *head, ("head", nn.Linear(8, classes))]))


def _stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, stride, 1)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def _blocks(c: int) -> nn.Sequential:
    return nn.Sequential(*(_stage(c, c, 1) for _ in range(3)))


class SmallEmbedded(nn.Sequential):
    """It has the names of the embedded network's layers, and few channels for methods to ablate."""

    def __init__(self, classes: int = CLASSES) -> None:
        body = [("_blocks", _stage(3, 8, 4)), ("features", _stage(8, 8, 1))]
        head = [("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())]
        super().__init__(OrderedDict([*body, *head, ("_fc", nn.Linear(8, classes))]))


def make_vit(classes: int = CLASSES, depth: int = 2, img_size: int = EDGE) -> nn.Module:
    """Makes a vision transformer of timm with patches of a quarter of the picture."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=img_size,
        patch_size=img_size // 4,
        embed_dim=WIDTH,
        depth=depth,
        num_heads=2,
        num_classes=classes,
    )


def build_named(name: str, classes: int = CLASSES) -> nn.Module:
    """Builds the small network that stands for a name, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if any(part in name for part in ATTENDING):
            return make_vit(classes).eval()
        return (SmallEmbedded if name == embedded.NAME else SmallResNet)(classes).eval()


def build(request: ModelSpec) -> BuiltModel:
    """Builds the small network that stands for a library's."""
    is_headless = any(part in request.name for part in HEADLESS)
    classes = 0 if is_headless else request.num_classes or CLASSES
    size = request.img_size or (EDGE, EDGE)
    return BuiltModel(
        module=build_named(request.name, classes),
        preprocessing=Preprocessing(size, size),
        num_classes=classes,
        weights="random",
        classifiers=() if is_headless else ("head",),
        labels=embedded.load_labels() if classes == CLASSES else None,
        reading=OutputReading() if is_headless else None,
    )


@contextmanager
def small_in_place_of_embedded() -> Iterator[None]:
    """Has the embedded model built small, where what it sees is not what a test is about."""
    real = camcli_build._build

    def build_small(origin: str, request: ModelSpec) -> BuiltModel:
        return build(request) if origin == "embedded" else real(origin, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(camcli_build, "_build", build_small)
        yield


def encode_texts(_: nn.Module, __: str, texts: Sequence[str]) -> TextEmbeddings:
    """Gives each text an embedding of its own, as models of pictures and words do."""
    vectors: Tensor = torch.eye(len(texts), WIDTH) + 0.1
    return TextEmbeddings(vectors, scale=10.0, bias=0.0, link="softmax")


def knows(_: str) -> bool:
    """Knows every name, as a hub does."""
    return True


def list_names() -> tuple[str, ...]:
    """Lists no name."""
    return ()
