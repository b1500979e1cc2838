import argparse
import json
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants as hub
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from camcli.errors import (
    CheckpointError,
    ConfigError,
    DeviceError,
    ModelError,
    WeightsError,
)
from camcli.models import weight_download
from camcli.models.load import (
    Classifier,
    load_model,
    resolve_device,
)

ARCH = "test_resnet"
THREE_WAYS = r"(?s)into the cache.*--checkpoint FILE.*leave out --model"


def load(name: str = ARCH, **options: Any) -> Classifier:
    return load_model(name, **{"pretrained": False, "device": "cpu", **options})


def logits(model: nn.Module, size: int = 64) -> Tensor:
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        return model.eval()(torch.randn(2, 3, size, size, generator=generator))


def write_trained(name: str = ARCH, seed: int = 3, **options: Any) -> nn.Module:
    """Makes a model whose every weight differs from those that load_model would draw."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name, **options).eval()


def in_hub_cache(caches: Path, repository: str) -> Path:
    """Makes the folder of a cached repository."""
    folder = caches / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    return folder / "snapshots" / "abc"


def test_a_name_that_timm_has_changed_is_followed() -> None:
    assert load("vit_tiny_patch16_224_in21k").num_classes == 21843


# what comes back


def test_the_embedded_model() -> None:
    classifier = load_model(device="cpu")
    assert (classifier.name, classifier.origin) == ("embedded", "embedded")
    assert classifier.labels is not None
    assert len(classifier.labels) == classifier.num_classes == 1000
    assert (classifier.warnings, classifier.weights) == ((), "embedded")
    assert classifier.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "labels", "size"),
    [
        ("embedded", 1000, 224),
        (ARCH, 1000, 160),
        ("test_vit", 1000, 160),
        ("torchvision/squeezenet1_1", 1000, 224),
    ],
)
def test_a_model_is_ready(name: str, labels: int, size: int) -> None:
    classifier = load(name)
    assert not any(part.training for part in classifier.module.modules())
    assert classifier.preprocessing.size == (size, size)
    assert classifier.labels is not None
    assert len(classifier.labels) == classifier.num_classes == labels
    assert classifier.in_chans == 3
    assert logits(classifier.module, size).shape == (2, labels)
    assert "mean nothing" in classifier.warnings[0]
    assert classifier.weights == "random"


@pytest.mark.parametrize("name", ["embedded", ARCH, "torchvision/squeezenet1_1"])
def test_convolutions_are_channels_last(name: str) -> None:
    kernels = [m.weight for m in load(name).module.modules() if isinstance(m, nn.Conv2d)]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


@pytest.mark.parametrize("name", ["embedded", ARCH, "torchvision/squeezenet1_1"])
def test_random_weights_are_the_same_each_time_and_draw_nothing_from_the_caller(name: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = load(name).module.state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = load(name).module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["embedded", ARCH, "test_vit"])
def test_it_works_in_a_callers_inference_mode(name: str) -> None:
    with torch.inference_mode():
        module = load(name, img_size=64).module
    assert not any(tensor.is_inference() for tensor in module.state_dict().values())
    module(torch.zeros(1, 3, 64, 64)).sum().backward()


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_auxiliary_heads_are_dropped_without_warnings(name: str) -> None:
    classifier = load(name, num_classes=3)
    assert not any("aux" in part.lower() for part, _ in classifier.module.named_modules())
    assert classifier.num_classes == 3


def test_a_model_without_a_classifier() -> None:
    headless = load(ARCH, num_classes=0)
    assert (headless.num_classes, headless.labels) == (0, None)


def test_channels_and_classes_can_be_chosen() -> None:
    classifier = load(ARCH, model_kwargs={"in_chans": 1, "num_classes": 4})
    assert (classifier.in_chans, classifier.num_classes, classifier.labels) == (1, 4, None)
    assert len(classifier.preprocessing.mean) == len(classifier.preprocessing.std) == 1
    assert load(ARCH, num_classes=5, model_kwargs={"num_classes": 4}).num_classes == 5


def test_a_new_head_beside_trained_weights_is_warned_of() -> None:
    classifier = load_model(num_classes=7, device="cpu")
    assert (classifier.num_classes, classifier.labels) == (7, None)
    assert "7 classes" in classifier.warnings[0]


def test_a_class_map_names_the_classes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat\ndog\n")
    assert load(ARCH, num_classes=2, class_map=tmp_path / "a.txt").labels == ("cat", "dog")
    with pytest.raises(ConfigError):
        load(ARCH, num_classes=3, class_map=tmp_path / "a.txt")


# preprocessing, against the libraries' own transforms


def eval_steps(name: str, **overlay: Any) -> tuple[Any, list[Any]]:
    model = timm.create_model(name, pretrained_cfg_overlay=overlay or None)
    config = timm.data.resolve_model_data_config(model)
    return config, timm.data.create_transform(**config).transforms


@pytest.mark.parametrize("name", ["test_vit", ARCH, "convnext_atto", "mobilenetv3_small_050"])
def test_timm_preprocessing_is_timms_own(name: str) -> None:
    config, (resize, crop, _, normalize) = eval_steps(name)
    record = load(name).preprocessing
    assert record.scale == (resize.size, resize.size)
    assert record.size == tuple(crop.size)
    assert record.mean == pytest.approx(normalize.mean.tolist())
    assert record.std == pytest.approx(normalize.std.tolist())
    assert record.interpolation == resize.interpolation.value == config["interpolation"]
    assert record.fit == "crop"


@pytest.mark.parametrize(("mode", "fit"), [("squash", "squash"), ("border", "pad")])
def test_timm_crop_modes(tmp_path: Path, mode: str, fit: str) -> None:
    changes = {"crop_mode": mode, "crop_pct": 0.8}
    _, (resize, crop, *_) = eval_steps(ARCH, **changes)
    save_for_hf(write_trained(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"].update(changes)
    (tmp_path / "config.json").write_text(json.dumps(config))
    record = load(f"local-dir:{tmp_path}").preprocessing
    assert record.fit == fit
    assert record.scale == tuple(resize.size)
    assert record.size == tuple(crop.size)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "efficientnet_b0"])
def test_torchvision_preprocessing_is_torchvisions_own(name: str) -> None:
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    record = load(f"torchvision/{name}").preprocessing
    assert record.scale == tuple(transforms.resize_size) * 2
    assert record.size == tuple(transforms.crop_size) * 2
    assert record.mean == tuple(transforms.mean)
    assert record.std == tuple(transforms.std)
    assert record.interpolation == transforms.interpolation.value


@pytest.mark.parametrize(
    ("name", "scale"),
    [("embedded", (73, 109)), ("test_vit", (67, 101)), ("torchvision/squeezenet1_1", (73, 110))],
)
def test_another_size_scales_what_is_cut_out(name: str, scale: tuple[int, int]) -> None:
    classifier = load(name, img_size=(64, 96))
    assert classifier.preprocessing.size == (64, 96)
    assert classifier.preprocessing.scale == scale
    with torch.no_grad():
        assert classifier.module(torch.zeros(1, 3, 64, 96)).shape == (1, classifier.num_classes)


def test_torchvisions_transformers_are_built_for_their_size() -> None:
    classifier = load("torchvision/vit_b_32", img_size=64, num_classes=2)
    assert classifier.preprocessing.size == (64, 64)
    assert logits(classifier.module, 64).shape == (2, 2)


def test_the_fit_and_its_numbers_can_be_changed() -> None:
    record = load(ARCH, fit="pad", preprocessing={"mean": 0.5}).preprocessing
    assert (record.fit, record.scale, record.mean) == ("pad", record.size, (0.5, 0.5, 0.5))


# mistakes


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (ARCH, {"model_kwargs": {"widht": 2}}, "'test_resnet' with widht=2.*'widht'"),
        ("torchvision/vit_b_32", {"model_kwargs": {"widht": 2}}, "'vit_b_32' with widht=2"),
        ("embedded", {"model_kwargs": {"widht": 2}}, "no model_kwargs"),
        ("test_vit", {"img_size": 100}, "100x100: .*divisible"),
        ("torchvision/vit_b_32", {"img_size": (32, 64)}, "square"),
        (ARCH, {"img_size": 0}, "input size .* not 0"),
        (ARCH, {"img_size": (1, 2, 3)}, r"not \(1, 2, 3\)"),
        (ARCH, {"num_classes": -1}, "not -1"),
        ("embedded", {"num_classes": 0}, "at least one class"),
        ("torchvision/resnet18", {"num_classes": 0}, "at least one class"),
        ("local-dir:nowhere", {}, r"config\.json"),
    ],
)
def test_models_that_cannot_be_built(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(name, **options)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("CPU") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(DeviceError, match="there is none here: use --device cpu"):
            resolve_device(name)
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        resolve_device("tpu")


def test_devices_of_a_machine_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == resolve_device(torch.device("cuda:1"))
    with pytest.raises(DeviceError, match=r"'cuda:2' here, only cuda, cuda:0, cuda:1"):
        resolve_device("cuda:2")


def test_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")


# checkpoints


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module.model."])
def test_a_fine_tuned_checkpoint_needs_nothing_but_its_name(tmp_path: Path, prefix: str) -> None:
    model = write_trained(num_classes=7)
    content = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": content}, tmp_path / "a.ckpt")
    classifier = load_model(ARCH, checkpoint=tmp_path / "a.ckpt", device="cpu")
    assert (classifier.num_classes, classifier.labels, classifier.warnings) == (7, None, ())
    assert "a.ckpt" in classifier.weights
    torch.testing.assert_close(logits(classifier.module), logits(model))


def test_a_training_checkpoint_of_timm_says_what_it_is(tmp_path: Path) -> None:
    average = write_trained(seed=4, num_classes=3)
    content = {
        "arch": ARCH,
        "args": argparse.Namespace(model=ARCH),
        "state_dict": write_trained(num_classes=3).state_dict(),
        "state_dict_ema": average.state_dict(),
    }
    torch.save(content, tmp_path / "a.pth.tar")
    classifier = load_model(checkpoint=tmp_path / "a.pth.tar", device="cpu")
    assert (classifier.name, classifier.num_classes) == (ARCH, 3)
    torch.testing.assert_close(logits(classifier.module), logits(average))


def test_an_openmmlab_checkpoint(tmp_path: Path) -> None:
    model = torchvision.models.resnet18(num_classes=4)
    content = {
        ("head." if name.startswith("fc.") else "backbone.") + name: tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save({"meta": {"epoch": 1}, "state_dict": content}, tmp_path / "a.pth")
    for name in ("torchvision/resnet18", "resnet18"):
        classifier = load(name, checkpoint=tmp_path / "a.pth")
        torch.testing.assert_close(logits(classifier.module), logits(model))


def test_a_checkpoint_of_the_embedded_network(tmp_path: Path) -> None:
    model = load("embedded", num_classes=6).module
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors")
    classifier = load_model(checkpoint=tmp_path / "a.safetensors", device="cpu")
    assert (classifier.num_classes, classifier.origin) == (6, "embedded")
    torch.testing.assert_close(logits(classifier.module), logits(model))


def test_auxiliary_weights_in_a_checkpoint_are_no_mistake(tmp_path: Path) -> None:
    model = torchvision.models.googlenet(num_classes=2, init_weights=False, aux_logits=True)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    classifier = load("googlenet", checkpoint=tmp_path / "a.pth")
    assert classifier.num_classes == 2
    assert torch.equal(classifier.module.state_dict()["fc.weight"], model.fc.weight)


def test_position_embeddings_of_a_checkpoint_are_resized(tmp_path: Path) -> None:
    torch.save(write_trained("test_vit", num_classes=2).state_dict(), tmp_path / "a.pth")
    classifier = load("test_vit", checkpoint=tmp_path / "a.pth", img_size=(96, 224))
    assert classifier.module(torch.zeros(1, 3, 96, 224)).shape == (1, 2)


def test_a_distilled_transformer_with_two_heads(tmp_path: Path) -> None:
    name = "deit_tiny_distilled_patch16_224"
    torch.save(write_trained(name, num_classes=3).state_dict(), tmp_path / "a.pth")
    assert load(name, checkpoint=tmp_path / "a.pth").num_classes == 3


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(write_trained("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match="another architecture"):
        load(ARCH, checkpoint=tmp_path / "vit.pth")
    content = write_trained(num_classes=7).state_dict()
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"fc\.weight \[7, \d+\]"):
        load(ARCH, checkpoint=tmp_path / "a.pth", num_classes=5)
    del content["conv1.0.weight"]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"missing: conv1\.0\.weight"):
        load(ARCH, checkpoint=tmp_path / "a.pth")
    relaxed = load(ARCH, checkpoint=tmp_path / "a.pth", strict=False)
    assert relaxed.num_classes == 7
    assert "conv1.0.weight" in relaxed.warnings[0]


def test_a_folder_that_timm_saved(tmp_path: Path) -> None:
    model = write_trained(num_classes=2)
    save_for_hf(model, tmp_path, model_config={"label_names": ["cat", "dog"]})
    classifier = load(f"local-dir:{tmp_path}", pretrained=True)
    assert (classifier.labels, classifier.warnings) == (("cat", "dog"), ())
    torch.testing.assert_close(logits(classifier.module), logits(model))


# pretrained weights


@pytest.mark.usefixtures("caches")
@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet18.tv_in1k", "gcvit_tiny", "torchvision/squeezenet1_1", "hf-hub:a/b"],
)
def test_without_a_network_one_error_names_three_ways_on(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def close(url: str, *_: object, **__: object) -> None:
        raise OSError(f"no network to {url}")

    monkeypatch.setattr(weight_download.urllib.request, "urlopen", close)
    begin = time.perf_counter()
    with pytest.raises(WeightsError, match=THREE_WAYS) as caught:
        load_model(name, device="cpu")
    assert time.perf_counter() - begin < 8
    assert "--no-pretrained" not in str(caught.value)


@pytest.mark.usefixtures("caches")
def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        load_model(ARCH, device="cpu")


@pytest.mark.usefixtures("caches")
def test_a_name_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_download, "SECONDS_TO_ANSWER", -0.9)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: time.sleep(3))
    begin = time.perf_counter()
    with pytest.raises(WeightsError, match="no answer within"):
        load_model(ARCH, device="cpu")
    assert time.perf_counter() - begin < 2


@pytest.mark.usefixtures("caches")
def test_a_download_that_breaks_off_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise RuntimeError("connection lost at byte 17")

    monkeypatch.setattr(weight_download, "_find_in_repository", lambda *_: "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(WeightsError, match="connection lost at byte 17"):
        load_model(ARCH, device="cpu")


@pytest.mark.usefixtures("caches")
def test_a_model_without_pretrained_weights_says_so() -> None:
    name = next(n for n in timm.list_models() if not timm.is_model_pretrained(n))
    with pytest.raises(WeightsError, match=r"timm has no pretrained weights for .*--checkpoint"):
        load_model(name, device="cpu")


def test_cached_weights_of_timm_need_no_network(caches: Path) -> None:
    model = write_trained()
    folder = in_hub_cache(caches, f"timm/{timm.models.get_pretrained_cfg(ARCH).hf_hub_id[5:]}")
    save_file(model.state_dict(), folder / "model.safetensors")
    classifier = load_model(ARCH, device="cpu")
    torch.testing.assert_close(logits(classifier.module), logits(model))
    assert (classifier.warnings, classifier.num_classes) == ((), 1000)
    assert classifier.weights.startswith("timm/test_resnet.")
    other = load_model(ARCH, num_classes=3, device="cpu")
    assert "3 classes" in other.warnings[0]


def test_damaged_cached_weights_are_named(caches: Path) -> None:
    folder = in_hub_cache(caches, timm.models.get_pretrained_cfg(ARCH).hf_hub_id)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match=r"model\.safetensors: delete that file"):
        load_model(ARCH, device="cpu")


def test_a_cached_repository_needs_no_network(caches: Path) -> None:
    model = write_trained(num_classes=2)
    save_for_hf(model, in_hub_cache(caches, "me/mine"), model_config={"label_names": ["a", "b"]})
    classifier = load_model("hf-hub:me/mine", device="cpu")
    assert classifier.labels == ("a", "b")
    torch.testing.assert_close(logits(classifier.module), logits(model))


def test_cached_weights_of_torchvision_need_no_network(caches: Path) -> None:
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    with torch.random.fork_rng():
        model = torchvision.models.squeezenet1_1()
    file = caches / "torch" / "hub" / "checkpoints" / Path(weights.url).name
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    name = "torchvision/squeezenet1_1"
    classifier = load_model(name, device="cpu")
    torch.testing.assert_close(logits(classifier.module), logits(model))
    assert classifier.weights == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert classifier.labels == tuple(weights.meta["categories"])
    other = load_model(f"{name}.imagenet1k_v1", num_classes=3, device="cpu")
    assert logits(other.module).shape == (2, 3)
    assert "3 classes" in other.warnings[0]
