"""Words of other libraries, typed as their users type them, get the argument that is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import camcli
from camcli import errors
from camcli.keywords import FOREIGN_WORDS, NOT_WANTED, check_keywords
from tests.networks import Staged

NET, X = Staged().eval(), torch.zeros(1, 3, 32, 32)
TRAINED = camcli.load_model(device="cpu")
PHOTO, MAP = "demo_images/chelsea.png", torch.zeros(4, 4).numpy()
MODEL_FIRST = "'model'. Here it is the first argument, `{}`."
SECOND = "Here it is the second argument, `inputs`."


@pytest.mark.parametrize(
    ("function", "args", "typed", "said"),
    [
        # what people guess of explain
        ("explain", (), {"model": NET}, f"{MODEL_FIRST.format('classifier')} Missing: `inputs`."),
        ("explain", (NET,), {"images": PHOTO}, f"Unknown argument of explain 'images'. {SECOND}"),
        ("explain", (NET,), {"pictures": PHOTO}, f"'pictures'. {SECOND}"),
        ("explain", (NET,), {"image": PHOTO}, f"'image'. {SECOND}"),
        ("explain", (NET, PHOTO), {"transforms": None}, "Here it is `preprocessing`."),
        # grad-cam
        (
            "heatmaps",
            (),
            {"model": NET, "input_tensor": X, "target_layers": ["last"], "targets": [1]},
            f"{MODEL_FIRST.format('module')} Unknown, too: 'input_tensor'. {SECOND}",
        ),
        ("heatmaps", (NET, X), {"reshape_transform": None}, "vit_like and num_extra_tokens."),
        (
            "overlay",
            (),
            {"img": PHOTO, "mask": MAP, "image_weight": 0.5},
            "'img'. Here it is the first argument, `picture`. Unknown, too: 'mask'. Here it is the "
            "second argument, `heatmap`. Unknown, too: 'image_weight'. Here it is alpha, which is "
            "1 - image_weight.",
        ),
        # torch-cam
        ("heatmaps", (NET, X), {"input_shape": (3, 32, 32)}, "the inputs have a shape."),
        (
            "heatmaps",
            (NET, X),
            {"class_idx": 3, "scores": X},
            "Here it is `target_category`. Unknown, too: 'scores'. Nothing is to be handed in",
        ),
        ("heatmaps", (NET, X), {"target_layer": "last"}, "Here it is `target_layers`."),
        # captum
        ("heatmaps", (), {"model": NET, "x": X}, f"Unknown, too: 'x'. {SECOND}"),
        # others
        ("activations", (), {"model": NET, "x": X}, MODEL_FIRST.format("module")),
        ("load_model", (), {"model": "resnet50"}, MODEL_FIRST.format("name")),
        ("load_model", (), {"arch": "resnet50", "weights": "a.pth"}, "Here it is `checkpoint`."),
        ("load_model", (), {"input_size": 64}, "Here it is `img_size`."),
        ("compare_with", (NET,), {"images": PHOTO}, "the second argument, `references`."),
        ("prompt", (NET,), {"text": "a cat"}, "the second argument, `texts`."),
        ("lock_model", (), {"model": NET}, MODEL_FIRST.format("module")),
        # nobody's words
        ("heatmaps", (NET,), {"methd": "cam"}, "Closest: 'method'. Missing: `inputs`."),
        ("heatmaps", (NET, X), {"zzz": 1}, "Unknown argument of heatmaps 'zzz'."),
        (
            "explain",
            (),
            {"model": NET, "inputs": PHOTO, "cmap": "jet"},
            "Unknown, too: 'cmap'. Options of loading (device, fit, ...) belong to load_model",
        ),
    ],
)
def test_a_word_of_another_library_gets_the_argument_that_is_meant(
    function: str, args: tuple[Any, ...], typed: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(errors.UnknownName) as told:
        getattr(camcli, function)(*args, **typed)
    assert said in str(told.value)
    # who is told a name is not told another
    assert "Closest" not in str(told.value) or "Closest" in said


def test_a_method_of_an_object_counts_its_arguments_without_the_object() -> None:
    class Saved:
        @check_keywords()
        def save(self, path: str, *, colormap: str = "jet") -> tuple[str, str]:
            return path, colormap

    assert Saved().save("a", colormap="hot") == ("a", "hot")
    with pytest.raises(errors.UnknownName, match="Here it is the first argument, `path`"):
        Saved().save(file_name="a")  # type: ignore[call-arg]
    with pytest.raises(errors.UnknownName, match=r"Here it is `colormap`\.$"):
        Saved().save("a", cmap="hot")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'path'"):
        Saved().save()  # type: ignore[call-arg]


def list_parameters() -> set[str]:
    """Lists what the public functions call their arguments."""
    from tests.test_docstrings import FUNCTIONS
    from tests.test_docstrings import list_parameters as list_of

    called = (*FUNCTIONS.values(), camcli.Sheet)
    return {name for function in called for name in list_of(function)}


def test_the_table_names_arguments_that_are_there() -> None:
    meant = {name for names in FOREIGN_WORDS.values() for name in names}
    assert meant <= list_parameters()
    named = {name for said in NOT_WANTED.values() for name in re.findall(r"[a-z]+_[a-z_]+", said)}
    assert named - set(NOT_WANTED) <= list_parameters()


def score(logits: Tensor) -> Tensor:
    return logits[..., 1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: camcli.explain(PHOTO, NET), "The model comes first, and the pictures second"),
        (lambda: camcli.heatmaps(X, NET), "The model comes first, and its inputs second"),
        (lambda: camcli.heatmaps(NET, X, target=3), "the class itself goes to target_category"),
        (lambda: camcli.explain(TRAINED, PHOTO, target=3), "a class is the target category"),
        (lambda: camcli.heatmaps(NET, X, targets=[score]), "goes to target."),
    ],
)
def test_values_in_the_wrong_place_are_told_the_right_one(
    call: Callable[[], Any], said: str
) -> None:
    with pytest.raises(errors.UsageError, match=re.escape(said)):
        call()
