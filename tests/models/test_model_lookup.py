"""A name means a model of one library, and what no library has is answered with what is closest."""

import pytest
import timm

from camcli.errors import UnknownName
from camcli.models import from_torchvision
from camcli.models.load import load_model
from camcli.models.model_lookup import _list_libraries, find_model


@pytest.mark.parametrize(
    ("name", "origin", "plain"),
    [
        ("embedded", "embedded", "embedded"),
        ("resnet18", "timm", "resnet18"),
        ("timm/resnet18.a1_in1k", "timm", "resnet18.a1_in1k"),
        ("torchvision/resnet18", "torchvision", "resnet18"),
        ("torchvision/resnet50.IMAGENET1K_V1", "torchvision", "resnet50.IMAGENET1K_V1"),
        ("googlenet", "torchvision", "googlenet"),
        ("hf-hub:timm/resnet18.a1_in1k", "timm", "hf-hub:timm/resnet18.a1_in1k"),
        ("local-dir:a/b", "timm", "local-dir:a/b"),
    ],
)
def test_names_and_prefixes(name: str, origin: str, plain: str) -> None:
    assert find_model(name) == (origin, plain)


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("resnt18", "resnet18"),
        ("embeded", "embedded"),
        ("timm/test_resnett", "test_resnet"),
        ("torchvision/googlenett", "googlenet"),
        ("torchvision/fcn_resnet50", "resnet50"),
    ],
)
def test_unknown_names_offer_the_closest(name: str, closest: str) -> None:
    with pytest.raises(UnknownName) as caught:
        load_model(name, pretrained=False)
    assert closest in caught.value.closest


def test_a_prefix_keeps_to_its_library() -> None:
    with pytest.raises(UnknownName, match="not in timm"):
        find_model("timm/googlenet")


@pytest.mark.parametrize("name", ["resnet18.nobody", "torchvision/resnet18.nobody"])
def test_an_unknown_tag_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownName, match=r"resnet18 has .*(a1_in1k|IMAGENET1K_V1)"):
        load_model(name, pretrained=False)


def test_a_name_tells_which_library_is_asked_first() -> None:
    for name in from_torchvision.list_names():
        first = _list_libraries(name)[0]
        # timm's where both have it; else nobody waits for timm
        assert first == ("timm" if timm.is_model(name) else "torchvision"), name
