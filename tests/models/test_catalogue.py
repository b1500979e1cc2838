from itertools import groupby
from pathlib import Path

import pytest
import timm
from timm.models import get_pretrained_cfg
from torchvision.models import get_model_weights

from camcli.errors import ModelError, UnknownName
from camcli.models import catalogue, embedded, from_torchvision
from camcli.models.catalogue import CatalogueEntry, count_parameters, find_models
from camcli.models.inspection import quirks
from camcli.models.load import load_model
from camcli.models.model_lookup import find_model
from tests.tools.parameters import can_classify

RESNET = "test_resnet.r160_in1k"
HUB_FOLDER = "hub/models--timm--test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def all_entries() -> list[CatalogueEntry]:
    return find_models()


def find_named(name: str) -> CatalogueEntry:
    (entry,) = (entry for entry in find_models(name) if entry.name == name)
    return entry


def architecture(entry: CatalogueEntry) -> str:
    return entry.name.removeprefix("torchvision/").partition(".")[0]


# what is listed


@pytest.mark.usefixtures("caches")
@pytest.mark.parametrize(
    ("name", "library", "size", "classes", "parameters"),
    [
        ("resnet50.a1_in1k", "timm", 224, 1000, 25_557_032),
        ("vit_tiny_patch16_224.augreg_in21k", "timm", 224, 21843, 9_740_115),
        ("vit_small_patch14_dinov2.lvd142m", "timm", 518, 0, 22_056_192),
        ("torchvision/vgg16.IMAGENET1K_V1", "torchvision", 224, 1000, 138_357_544),
        ("torchvision/vgg16.IMAGENET1K_FEATURES", "torchvision", 224, 0, 138_357_544),
        ("torchvision/resnet50.IMAGENET1K_V2", "torchvision", 224, 1000, 25_557_032),
        ("googlenet.IMAGENET1K_V1", "torchvision", 224, 1000, 6_624_904),
    ],
)
def test_known_models(name: str, library: str, size: int, classes: int, parameters: int) -> None:
    expected = CatalogueEntry(name, library, (size, size), classes, parameters, "to download")
    assert find_named(name) == expected


def test_the_embedded_model_comes_first_and_is_here(all_entries: list[CatalogueEntry]) -> None:
    network, preprocessing, labels = embedded.load_embedded()
    count = sum(parameter.numel() for parameter in network.parameters())
    expected = CatalogueEntry(
        "embedded", "embedded", preprocessing.size, len(labels), count, "here"
    )
    assert all_entries[0] == expected


def test_every_name_means_what_is_said_of_it(all_entries: list[CatalogueEntry]) -> None:
    assert len({entry.name for entry in all_entries}) == len(all_entries)
    for entry in all_entries:
        origin, plain = find_model(entry.name)
        assert origin == entry.library
        arch, _, tag = plain.partition(".")
        if origin == "timm":
            assert tuple(entry.input_size) == get_pretrained_cfg(plain).input_size[1:]
        elif origin == "torchvision":
            assert tag in get_model_weights(arch).__members__


def test_all_weights_of_timm_are_listed(all_entries: list[CatalogueEntry]) -> None:
    listed = {e.name for e in all_entries if e.library == "timm" and e.weights != "none"}
    published = {n for n in timm.list_pretrained() if quirks.can_classify(n.partition(".")[0])}
    assert listed == published
    assert len(listed) > 1500


def test_an_architecture_without_weights_is_one_line(all_entries: list[CatalogueEntry]) -> None:
    classifiers = filter(quirks.can_classify, timm.list_models())
    without = [name for name in classifiers if not timm.is_model_pretrained(name)]
    assert [e.name for e in all_entries if e.weights == "none"] == without
    assert "resnet50" not in without


def test_the_first_of_an_architectures_tags_is_its_default(
    all_entries: list[CatalogueEntry],
) -> None:
    of_timm = [entry for entry in all_entries if entry.library == "timm"]
    for arch, (first, *_) in groupby(of_timm, architecture):
        default = get_pretrained_cfg(arch).tag
        assert first.name == (f"{arch}.{default}" if first.weights != "none" and default else arch)


def test_all_weights_of_torchvision_are_listed(all_entries: list[CatalogueEntry]) -> None:
    names = [entry.name for entry in all_entries if entry.library == "torchvision"]
    expected = [
        f"{arch}.{weights.name}"
        for arch in from_torchvision.list_names()
        for weights in get_model_weights(arch)
    ]
    assert [name.removeprefix("torchvision/") for name in names] == expected
    assert len(names) > 100


@pytest.mark.parametrize(
    ("name", "classifies"),
    [
        ("qwen3_vit_88m_enc", False),
        ("mobilenetv5_300m_enc", False),
        ("qwen3_vit_88m", True),
        ("vit_small_patch14_dinov2", True),
    ],
)
def test_what_takes_no_classifier_is_left_out(name: str, classifies: bool) -> None:
    if not timm.is_model(name):
        pytest.skip("needs a newer timm")
    assert can_classify(name) == classifies
    assert (name in {architecture(entry) for entry in find_models("timm/")}) == classifies
    assert quirks.can_classify(name) == classifies


@pytest.mark.parametrize(
    "name",
    [
        "embedded",
        RESNET,
        "test_vit.r160_in1k",
        "resnet18.a1_in1k",
        "vit_tiny_patch16_224.augreg_in21k",
        "tf_efficientnet_b0.ns_jft_in1k",
        "visformer_tiny.in1k",
        "convnextv2_atto.fcmae",
        "resnest14d.gluon_in1k",
        "nf_regnet_b0",
        "squeezenet1_1.IMAGENET1K_V1",
        "torchvision/resnet18.IMAGENET1K_V1",
    ],
)
def test_what_is_said_is_what_is_loaded(name: str) -> None:
    entry = find_named(name)
    classifier = load_model(name, pretrained=False, device="cpu")
    assert classifier.origin == entry.library
    assert classifier.preprocessing.size == entry.input_size
    assert classifier.num_classes == entry.classes
    assert sum(p.numel() for p in classifier.module.parameters()) == entry.parameters


# parameters


def test_the_parameters_that_are_shipped_are_those_of_timm(
    all_entries: list[CatalogueEntry],
) -> None:
    of_timm = [entry for entry in all_entries if entry.library == "timm"]
    for entry in of_timm[::300]:
        assert entry.parameters == count_parameters(entry.name)


def test_a_model_newer_than_the_file_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = find_named(RESNET).parameters
    (tmp_path / "none.csv").write_text("name,parameters\n")
    monkeypatch.setattr(catalogue, "PARAMETERS", tmp_path / "none.csv")
    assert find_named(RESNET).parameters == known


def test_a_model_that_cannot_be_counted_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")

    (tmp_path / "none.csv").write_text("name,parameters\n")
    monkeypatch.setattr(catalogue, "PARAMETERS", tmp_path / "none.csv")
    monkeypatch.setattr(timm, "create_model", broken)
    assert find_named(RESNET).parameters is None


# weights on this machine


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (RESNET, f"{HUB_FOLDER}/snapshots/abc/model.safetensors"),
        (RESNET, f"{HUB_FOLDER}/snapshots/abc/pytorch_model.bin"),
        ("legacy_seresnet18.in1k", "torch/hub/checkpoints/seresnet18-4bb0ce65.pth"),
        ("squeezenet1_1.IMAGENET1K_V1", "torch/hub/checkpoints/squeezenet1_1-b8a52dc0.pth"),
    ],
)
def test_weights_that_are_here_are_those_that_are_loaded(
    caches: Path, name: str, file: str
) -> None:
    assert find_named(name).weights == "to download"
    place = caches / file
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half a file")
    if place.parent.name == "abc":
        revision = caches / HUB_FOLDER / "refs" / "main"
        revision.parent.mkdir()
        revision.write_text("abc")
    assert find_named(name).weights == "here"
    others = [entry.name for entry in find_models() if entry.weights == "here"]
    assert others == ["embedded", name]
    with pytest.raises(ModelError, match=f"{place.name}: delete that file if it is damaged"):
        load_model(name, device="cpu")


def test_half_a_download_is_not_here(caches: Path) -> None:
    blobs = caches / HUB_FOLDER / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").touch()
    assert find_named(RESNET).weights == "to download"


# patterns


def find_names(pattern: str) -> set[str]:
    return {entry.name for entry in find_models(pattern)}


@pytest.mark.parametrize(
    ("pattern", "having", "lacking"),
    [
        ("resnet50", "seresnet50.a1_in1k", "resnet101.a1_in1k"),
        ("ResNet50", "torchvision/resnet50.IMAGENET1K_V2", "resnet101.a1_in1k"),
        ("resnet50*", "resnet50.a1_in1k", "seresnet50.a1_in1k"),
        ("resnet50*", "torchvision/resnet50.IMAGENET1K_V1", "resnet26.bt_in1k"),
        ("resnet?0", "resnet50.a1_in1k", "resnet50d.a1_in1k"),
        ("*.TF_in1k", "xception41.tf_in1k", "xception41p.ra3_in1k"),
        ("timm/resnet50", "resnet50.a1_in1k", "torchvision/resnet50.IMAGENET1K_V1"),
        ("torchvision/*net", "googlenet.IMAGENET1K_V1", "lcnet_050.ra2_in1k"),
        ("torchvision", "googlenet.IMAGENET1K_V1", "embedded"),
        ("imagenet1k_v2", "torchvision/resnet50.IMAGENET1K_V2", "resnet50.a1_in1k"),
        ("embed*", "embedded", "resnet50.a1_in1k"),
        ("nf_regnet_b[02]", "nf_regnet_b0", "nf_regnet_b1.ra2_in1k"),
    ],
)
def test_patterns(
    pattern: str, having: str, lacking: str, all_entries: list[CatalogueEntry]
) -> None:
    names = find_names(pattern)
    assert having in names
    assert lacking not in names
    assert lacking in {entry.name for entry in all_entries}


UNKNOWN = ["resnt50", "resnt5?", "timm/googlenet"]
if timm.is_model("qwen3_vit_88m"):  # not in the lowest version
    UNKNOWN.append("qwen3_vit_88m_enc")


@pytest.mark.parametrize("pattern", UNKNOWN)
def test_what_nothing_matches_is_unknown(pattern: str) -> None:
    with pytest.raises(UnknownName, match=r"camviz models '\*vit\*'") as caught:
        find_models(pattern)
    assert caught.value.closest
