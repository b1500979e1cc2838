"""Fine-tuned models as people have them: saved in each usual way, of other inputs and classes."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

import camcli
from camcli.cli.app import main
from camcli.errors import CheckpointError, ConfigError, ModelError, UnknownName
from camcli.models import from_torchvision
from camcli.models.load import Classifier, load_model
from camcli.pipeline import Explanation
from tests.models.tiny import State

ARCH, VIT = "test_resnet", "test_vit"
COLOURS = torch.eye(3) * 255  # red, green and blue are the classes
SIZE = 64
STEPS, BATCH = 12, 16


@dataclass(frozen=True)
class Trained:
    """A model after a few steps of training, its average over them, and the optimizer."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer


def squares(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws a coloured square at any place of grey noise.  -> [b 3 H W] from 0 to 255, [b]"""
    draw = torch.Generator().manual_seed(seed)
    pictures = 128 + 20 * torch.randn(count, 3, SIZE, SIZE, generator=draw)
    classes = torch.randint(3, (count,), generator=draw)
    corners = torch.randint(SIZE - 24, (count, 2), generator=draw).tolist()
    for picture, colour, (y, x) in zip(pictures, COLOURS[classes], corners, strict=True):
        picture[:, y : y + 24, x : x + 24] = colour[:, None, None]
    return pictures.clamp(0, 255), classes


def as_inputs(pictures: Tensor) -> Tensor:
    return pictures / 127.5 - 1


def train(arch: str, **options: Any) -> Trained:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(arch, num_classes=3, **options)
        average = ModelEmaV3(model, decay=0.7)
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for step in range(STEPS):
            pictures, classes = squares(BATCH, step)
            loss = nn.functional.cross_entropy(model(as_inputs(pictures)), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(model)
    return Trained(model.eval(), average.module.eval(), optimizer)


@pytest.fixture(scope="module")
def resnet() -> Trained:
    return train(ARCH)


@pytest.fixture(scope="module")
def vit() -> Trained:
    return train(VIT, img_size=SIZE)


def logits(model: nn.Module, height: int = SIZE, width: int = SIZE, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        return model.eval()(torch.randn(2, channels, height, width, generator=generator))


def load(checkpoint: Path, name: str = ARCH, **options: Any) -> Classifier:
    return load_model(name, checkpoint=checkpoint, device="cpu", **options)


def weights_of(model: nn.Module) -> State:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def add_prefix(prefix: str, weights: Mapping[str, Tensor]) -> State:
    return {prefix + name: weight for name, weight in weights.items()}


def test_training_has_moved_the_weights(resnet: Trained, vit: Trained) -> None:
    pictures, classes = squares(60, seed=99)
    for trained in (resnet, vit):
        with torch.no_grad():
            actual = trained.model(as_inputs(pictures)).argmax(1)
        assert (actual == classes).float().mean() > 0.9
        assert not torch.allclose(logits(trained.model), logits(trained.ema), atol=1e-2)


# the ways to save


def write(folder: Path, content: Any, name: str = "mine.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def as_lightning(trained: Trained, **hyper_parameters: Any) -> dict[str, Any]:
    return {
        "epoch": 1,
        "global_step": STEPS,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": add_prefix("model.", weights_of(trained.model)),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [trained.optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, **hyper_parameters},
    }


def by_timm(trained: Trained, folder: Path, *, ema: bool, **args: Any) -> Path:
    """Saves with timm's own class, from the arguments of its training script."""
    unset = ("img_size", "input_size", "mean", "std", "crop_pct", "gp", "bn_eps", "num_classes")
    given = {**dict.fromkeys(unset), "interpolation": "", "model_kwargs": {}, **args}
    saver = CheckpointSaver(
        trained.model,
        trained.optimizer,
        args=argparse.Namespace(lr=0.1, **{"model": ARCH, **given}),
        model_ema=trained.ema if ema else None,
        checkpoint_dir=str(folder),
    )
    saver.save_checkpoint(epoch=1, metric=0.5)
    return folder / "model_best.pth.tar"


def by_timm_with_average(trained: Trained, folder: Path) -> Path:
    return by_timm(trained, folder, ema=True)


def by_timm_without_average(trained: Trained, folder: Path) -> Path:
    return by_timm(trained, folder, ema=False)


def by_timms_folder(trained: Trained, folder: Path) -> Path:
    return by_timm(trained, folder, ema=True).parent


def by_torchvision(trained: Trained, folder: Path) -> Path:
    averaged = AveragedModel(trained.model)
    averaged.module.load_state_dict(trained.ema.state_dict())
    content = {
        "model": trained.model.state_dict(),
        "optimizer": trained.optimizer.state_dict(),
        "epoch": 1,
        "args": argparse.Namespace(model=ARCH, interpolation="bilinear", device="cuda"),
        "model_ema": averaged.state_dict(),
    }
    return write(folder, content, "model_1.pth")


def by_mmengine(trained: Trained, folder: Path) -> Path:
    # its averaging hook swaps the two when it saves
    content = {
        "meta": {"epoch": 1, "cfg": "model = dict(type='ImageClassifier')"},
        "state_dict": as_openmmlab(trained.ema),
        "ema_state_dict": {"steps": torch.tensor(3), **as_openmmlab(trained.model, "module.")},
    }
    return write(folder, content, "epoch_1.pth")


def as_openmmlab(model: nn.Module, prefix: str = "") -> State:
    return {
        f"{prefix}{'head.' if name.startswith('fc.') else 'backbone.'}{name}": weight
        for name, weight in weights_of(model).items()
    }


def by_transformers_trainer(trained: Trained, folder: Path) -> Path:
    save_file(weights_of(trained.model), folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(trained.optimizer.state_dict(), folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text('{"global_step": 12}')
    return folder


def by_transformers(trained: Trained, folder: Path) -> Path:
    # as TimmWrapperForImageClassification writes it, which timm cannot read
    described = {"architecture": ARCH, "model_type": "timm_wrapper", "model_args": None}
    config = {**described, "architectures": ["TimmWrapper"], "pretrained_cfg": {"num_classes": 3}}
    (folder / "config.json").write_text(json.dumps(config))
    return by_transformers_trainer(trained, folder)


def in_shards(trained: Trained, folder: Path) -> Path:
    huggingface_hub.save_torch_state_dict(weights_of(trained.model), folder, max_shard_size="500KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def by_save_for_hf(trained: Trained, folder: Path) -> Path:
    save_for_hf(trained.model, folder, safe_serialization=True)
    return folder


def with_dropout_before_the_classifier(trained: Trained, folder: Path) -> Path:
    model = copy.deepcopy(trained.model)
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    return write(folder, model.state_dict())


def with_a_classifier_beside_the_backbone(trained: Trained, folder: Path) -> Path:
    backbone = timm.create_model(ARCH, num_classes=0)
    backbone.load_state_dict(trained.model.state_dict(), strict=False)
    both = nn.ModuleDict({"feature_extractor": backbone, "classifier": trained.model.fc})
    return write(folder, {"state_dict": add_prefix("module.", both.state_dict())})


def with_both_in_one_state_dict(trained: Trained, folder: Path) -> Path:
    both = add_prefix("model.", weights_of(trained.model))
    both |= add_prefix("model_ema.module.", weights_of(trained.ema))
    return write(folder, {"state_dict": both, "epoch": 1}, "last.ckpt")


def plainly(*keys: str, prefix: str = "") -> Callable[[Trained, Path], Path]:
    """Saves the weights under keys, one in the other, beside what else is saved."""

    def save(trained: Trained, folder: Path) -> Path:
        content: dict[str, Any] = add_prefix(prefix, weights_of(trained.model))
        for key in reversed(keys):
            content = {"epoch": 1, key: content, "optimizer": trained.optimizer.state_dict()}
        return write(folder, content)

    return save


@dataclass(frozen=True)
class Way:
    """How a model is saved, which of its weights are taken, and what is said about it."""

    save: Callable[[Trained, Path], Path]
    average: bool = False
    names_itself: bool = False
    said: str = ""


WAYS: dict[str, Way] = {
    "state dict": Way(plainly()),
    "DataParallel": Way(plainly("state_dict", prefix="module.")),
    "torch.compile": Way(plainly(prefix="_orig_mod.")),
    "torch.compile in DistributedDataParallel": Way(plainly("model", prefix="module._orig_mod.")),
    "model": Way(plainly("model")),
    "model_state_dict": Way(plainly("model_state_dict")),
    "net": Way(plainly("net")),
    "DeepSpeed": Way(plainly("module")),
    "model.state_dict": Way(plainly("model", "state_dict")),
    "student": Way(plainly("student", prefix="module.backbone.")),
    "teacher": Way(plainly("teacher", prefix="backbone.")),
    "ema_state_dict": Way(plainly("ema_state_dict")),
    "safetensors": Way(
        lambda t, f: save_file(weights_of(t.model), f / "a.safetensors") or f / "a.safetensors"
    ),
    "Lightning": Way(lambda t, f: write(f, as_lightning(t), "last.ckpt")),
    "Lightning with hyper parameters": Way(
        lambda t, f: write(f, as_lightning(t, model_name=ARCH), "last.ckpt"), names_itself=True
    ),
    "timm": Way(by_timm_without_average, names_itself=True),
    "timm with average": Way(by_timm_with_average, average=True, names_itself=True),
    "timm's folder": Way(by_timms_folder, average=True, names_itself=True),
    "torchvision with average": Way(by_torchvision, average=True, names_itself=True),
    "PyTorch's ImageNet example": Way(
        lambda t, f: write(
            f,
            {
                "epoch": 1,
                "arch": ARCH,
                "state_dict": nn.DataParallel(t.model).state_dict(),
                "best_acc1": torch.tensor(50.0),
                "optimizer": t.optimizer.state_dict(),
            },
        ),
        names_itself=True,
    ),
    "OpenMMLab": Way(
        lambda t, f: write(f, {"meta": {"epoch": 1}, "state_dict": as_openmmlab(t.model)})
    ),
    "OpenMMLab with average": Way(by_mmengine, average=True),
    "a folder of transformers or accelerate": Way(by_transformers_trainer),
    "a timm model of transformers": Way(by_transformers, names_itself=True),
    "shards": Way(in_shards),
    "the index of shards": Way(lambda t, f: in_shards(t, f) / "model.safetensors.index.json"),
    "save_for_hf": Way(by_save_for_hf, names_itself=True),
    "the file of save_for_hf": Way(
        lambda t, f: by_save_for_hf(t, f) / "model.safetensors", names_itself=True
    ),
    "a dropout before the classifier": Way(
        with_dropout_before_the_classifier, said="took fc.1 for the model's fc"
    ),
    "a classifier beside the backbone": Way(
        with_a_classifier_beside_the_backbone, said="took module.classifier for the model's fc"
    ),
    "an average beside the model": Way(
        with_both_in_one_state_dict, average=True, said="left aside model.conv1.0.weight"
    ),
}


def assert_is(classifier: Classifier, trained: Trained, way: Way) -> None:
    expected = trained.ema if way.average else trained.model
    assert classifier.num_classes == 3
    actual = classifier.module.state_dict()
    assert all(torch.equal(actual[name], w) for name, w in weights_of(expected).items())
    torch.testing.assert_close(logits(classifier.module), logits(expected))
    assert len(classifier.warnings) == bool(way.said)
    assert way.said in "".join(classifier.warnings)


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_each_way_to_save_loads_with_nothing_but_a_name(
    tmp_path: Path, resnet: Trained, way: Way
) -> None:
    file = way.save(resnet, tmp_path)
    assert_is(load(file), resnet, way)
    if way.names_itself:
        assert_is(load_model(checkpoint=file, device="cpu"), resnet, way)
        if file.is_dir():
            assert_is(load_model(str(file), device="cpu"), resnet, way)
    else:
        with pytest.raises(CheckpointError, match=r"does not say its arch.* with --model\.$"):
            load_model(checkpoint=file, device="cpu")


@pytest.mark.parametrize("scheme", ["local-dir:", ""])
def test_a_folder_that_timm_saved_is_a_model(tmp_path: Path, resnet: Trained, scheme: str) -> None:
    save_for_hf(resnet.model, tmp_path, model_config={"label_names": ["red", "green", "blue"]})
    for classifier in (
        load_model(f"{scheme}{tmp_path}", device="cpu"),
        load_model(checkpoint=tmp_path, device="cpu"),
    ):
        assert classifier.labels == ("red", "green", "blue")
        assert classifier.warnings == ()
        torch.testing.assert_close(logits(classifier.module), logits(resnet.model))


@pytest.mark.parametrize("scheme", ["local-dir:", ""])
def test_a_timm_model_that_transformers_saved(tmp_path: Path, resnet: Trained, scheme: str) -> None:
    classifier = load_model(f"{scheme}{by_transformers(resnet, tmp_path)}", device="cpu")
    assert_is(classifier, resnet, WAYS["a timm model of transformers"])
    assert classifier.name == ARCH


def test_a_relative_folder_is_a_model(
    tmp_path: Path, resnet: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_for_hf(resnet.model, tmp_path / "my runs")
    monkeypatch.chdir(tmp_path)
    for name in ("my runs", "./my runs"):
        assert load_model(name, device="cpu").num_classes == 3


def test_half_precision_is_read(tmp_path: Path, resnet: Trained) -> None:
    halves = {
        k: w.bfloat16() if w.is_floating_point() else w for k, w in weights_of(resnet.model).items()
    }
    classifier = load(write(tmp_path, halves))
    assert next(classifier.module.parameters()).dtype == torch.float32
    torch.testing.assert_close(logits(classifier.module), logits(resnet.model), rtol=0.1, atol=0.1)


def test_buffers_beside_the_network_are_left_aside(tmp_path: Path, resnet: Trained) -> None:
    content = as_openmmlab(resnet.model)
    content["data_preprocessor.mean"] = torch.zeros(3)
    classifier = load(write(tmp_path, {"state_dict": content}))
    torch.testing.assert_close(logits(classifier.module), logits(resnet.model))
    assert [w.rpartition(": ")[2] for w in classifier.warnings] == [
        "left aside data_preprocessor.mean"
    ]


def test_a_self_supervised_teacher_has_no_classifier(tmp_path: Path) -> None:
    student, teacher = (timm.create_model(VIT, num_classes=0) for _ in range(2))
    projector = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 256))
    head = add_prefix("head.mlp.", projector.state_dict())
    content = {
        "student": add_prefix("module.backbone.", student.state_dict())
        | add_prefix("module.", head),
        "teacher": add_prefix("backbone.", teacher.state_dict()) | head,
    }
    file = write(tmp_path, content)
    classifier = load(file, VIT, num_classes=0)
    torch.testing.assert_close(logits(classifier.module, 160, 160), logits(teacher, 160, 160))
    # a token of iBOT's and of DINOv2's training is no classifier
    for more in ({}, {"masked_embed": torch.zeros(1, 64)}):
        with pytest.raises(CheckpointError, match="--num-classes 0 builds"):
            load(write(tmp_path, teacher.state_dict() | more), VIT)


@pytest.mark.parametrize("content", [lambda model: model, lambda model: {"model": model}])
def test_a_pickled_model_is_refused_with_the_way_to_save_it(
    tmp_path: Path, resnet: Trained, content: Callable[[nn.Module], Any]
) -> None:
    with pytest.raises(CheckpointError, match=r"never run\..* torch\.save\(model\.state_dict\(\)"):
        load(write(tmp_path, content(resnet.model)))


def test_shards_that_are_missing_are_named(tmp_path: Path, resnet: Trained) -> None:
    in_shards(resnet, tmp_path)
    min(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint '.*model-00001-of-"):
        load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(CheckpointError, match="no index of a sharded checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("shard", ["model.safetensors.index.json", "..", ".", "a/..", "/"])
def test_shards_are_files_of_the_folder(tmp_path: Path, resnet: Trained, shard: str) -> None:
    # the folder above has weights that nobody named
    save_file(weights_of(resnet.model), tmp_path / "model.safetensors")
    folder = tmp_path / "inside"
    folder.mkdir()
    index = {"weight_map": {"fc.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"names .*, which is no file of weights"):
        load(folder)


def test_weights_in_the_place_of_a_name(tmp_path: Path, resnet: Trained) -> None:
    file = write(tmp_path, weights_of(resnet.model))
    with pytest.raises(UnknownName, match=r"A file of weights goes to --checkpoint\."):
        load_model(str(file), device="cpu")
    with pytest.raises(CheckpointError, match=r"a folder with none of .*: name a file in it\."):
        load_model(str(tmp_path), device="cpu")
    with pytest.raises(ModelError, match=r"no timm model: .*config\.json has.* to --checkpoint"):
        load_model(f"local-dir:{tmp_path}", device="cpu")


# what the file says about itself


@pytest.mark.parametrize(
    "neighbour",
    [
        {"arch": ARCH},
        {"args": {"model": ARCH}},
        {"hparams": {"backbone": f"timm/{ARCH}"}},
        {"config": {"model": {"name": "x"}, "model_name": f"{ARCH}.r160_in1k"}},
        {"args": argparse.Namespace(model=f"hf_hub:timm/{ARCH}.r160_in1k")},
        {"args": argparse.Namespace(model="a/path.pth", arch=ARCH)},
    ],
)
def test_where_the_architecture_is_named(
    tmp_path: Path, resnet: Trained, neighbour: dict[str, Any]
) -> None:
    file = write(tmp_path, {"state_dict": weights_of(resnet.model), **neighbour})
    classifier = load_model(checkpoint=file, device="cpu")
    torch.testing.assert_close(logits(classifier.module), logits(resnet.model))


def test_an_architecture_that_nobody_knows_is_the_files_fault(
    tmp_path: Path, resnet: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    # timm's saver without arguments writes the name of the class; a folder has it by chance
    file = write(tmp_path, {"arch": "resnet", "state_dict": weights_of(resnet.model)})
    (tmp_path / "resnet").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownName, match=r"'resnet'\..*mine\.pth' says so.*--model"):
        load_model(checkpoint=file, device="cpu")
    assert load(file).num_classes == 3


@pytest.mark.parametrize("name", ["evil.py:run", "os:system", "local-dir:/tmp", "hf-hub:a/b"])
def test_a_file_names_no_code_and_no_place(tmp_path: Path, resnet: Trained, name: str) -> None:
    file = write(tmp_path, {"arch": name, "state_dict": weights_of(resnet.model)})
    for strict in (True, False):
        with pytest.raises(CheckpointError, match="does not say its architecture"):
            load_model(checkpoint=file, strict=strict, device="cpu")


def test_a_name_of_both_libraries_means_the_one_that_fits(tmp_path: Path) -> None:
    name = "efficientnet_b0"  # their networks differ
    with torch.random.fork_rng():
        model = torchvision.models.get_model(name, num_classes=3)
    file = write(tmp_path, {"model": model.state_dict(), "args": {"model": name}})
    classifier = load_model(checkpoint=file, device="cpu")
    assert (classifier.origin, classifier.name) == ("torchvision", name)
    torch.testing.assert_close(logits(classifier.module), logits(model))
    # and timm's of that name is the same network under other names
    torch.testing.assert_close(logits(load(file, f"timm/{name}").module), logits(model))


def test_timms_training_arguments_are_the_models_input(tmp_path: Path, vit: Trained) -> None:
    asked = {"model": VIT, "img_size": SIZE, "mean": [0.1, 0.2, 0.3], "std": [0.5], "crop_pct": 0.8}
    file = by_timm(vit, tmp_path, ema=False, **asked, interpolation="bilinear")
    classifier = load_model(checkpoint=file, device="cpu")
    record = classifier.preprocessing
    assert (record.size, record.scale) == ((SIZE, SIZE), (80, 80))
    assert (record.mean, record.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert record.interpolation == "bilinear"
    assert classifier.warnings == ()
    torch.testing.assert_close(logits(classifier.module), logits(vit.model))
    other = load_model(checkpoint=file, img_size=96, preprocessing={"std": 0.2}, device="cpu")
    assert other.preprocessing.size == (96, 96)
    assert (other.preprocessing.mean, other.preprocessing.std) == ((0.1, 0.2, 0.3), (0.2,) * 3)


def test_timms_training_arguments_build_the_model(tmp_path: Path) -> None:
    model = train(VIT, img_size=SIZE, global_pool="avg", depth=2)
    kwargs = {"img_size": SIZE, "depth": 2, "checkpoint_path": "nowhere.pth"}
    file = by_timm(model, tmp_path, ema=False, model=VIT, gp="avg", model_kwargs=kwargs)
    classifier = load_model(checkpoint=file, device="cpu")
    torch.testing.assert_close(logits(classifier.module), logits(model.model))
    assert classifier.preprocessing.size == (SIZE, SIZE)


@pytest.mark.parametrize(
    "args",
    [
        {"interpolation": "random"},
        {"mean": "x"},
        {"mean": torch.ones(3), "std": [], "input_size": torch.ones(3)},
        {"mean": [124.0, 116.0, 104.0]},
        {"img_size": "x"},
        {"crop_pct": 7},
    ],
)
def test_arguments_that_cannot_be_used_are_left(
    tmp_path: Path, resnet: Trained, args: dict[str, Any]
) -> None:
    classifier = load(by_timm(resnet, tmp_path, ema=False, **args))
    plain = load(write(tmp_path, weights_of(resnet.model)))
    assert classifier.preprocessing == plain.preprocessing


def test_arguments_of_another_architecture_are_left(tmp_path: Path, resnet: Trained) -> None:
    file = by_timm(resnet, tmp_path, ema=False, model="resnet18", img_size=96, gp="max")
    assert load(file).preprocessing.size == (160, 160)


# the command line


def test_a_fine_tuned_checkpoint_on_the_command_line(
    tmp_path: Path, resnet: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    file = by_timm(resnet, tmp_path, ema=False, img_size=SIZE)
    pictures, classes = squares(20)
    pixels = pictures[classes == 2][0].permute(1, 2, 0).numpy().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "blue.png")
    arguments = [str(tmp_path / "blue.png"), "--checkpoint", str(file), "--json"]
    assert main([*arguments, "--device", "cpu", "--save-path", str(tmp_path / "out")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["category"]) == (ARCH, 2)
    heatmap = np.asarray(Image.open(shown["outputs"][0]))
    assert heatmap.shape == pixels.shape
    assert not np.array_equal(heatmap, pixels)


# channels


def grow(model: nn.Module, name: str, channels: int) -> State:
    """Weights as after training with other channels."""
    weights = weights_of(model)
    draw = torch.Generator().manual_seed(channels)
    old = weights[name]
    weights[name] = torch.randn(old.shape[0], channels, *old.shape[2:], generator=draw)
    return weights


@pytest.mark.parametrize(
    ("name", "stem"), [(ARCH, "conv1.0.weight"), (VIT, "patch_embed.proj.weight")]
)
@pytest.mark.parametrize("channels", [1, 4, 6])
def test_the_number_of_channels_is_read_off_the_first_layer(
    tmp_path: Path, name: str, stem: str, channels: int
) -> None:
    content = grow(timm.create_model(name, num_classes=3), stem, channels)
    classifier = load(write(tmp_path, add_prefix("module.", content)), name)
    reference = timm.create_model(name, num_classes=3, in_chans=channels)
    reference.load_state_dict(content)
    assert classifier.in_chans == len(classifier.preprocessing.mean) == channels
    actual = logits(classifier.module, 160, 160, channels)
    torch.testing.assert_close(actual, logits(reference, 160, 160, channels))


def test_a_space_to_depth_stem_counts_the_pictures_channels(tmp_path: Path) -> None:
    # its first convolution sees sixteen pixels of each channel at once
    small = {"layers": (1, 1, 1, 1), "width_factor": 0.25}
    model = timm.create_model("tresnet_m", num_classes=3, in_chans=2, **small)
    file = write(tmp_path, weights_of(model))
    classifier = load(file, "tresnet_m", model_kwargs=small)
    assert classifier.in_chans == 2
    torch.testing.assert_close(
        logits(classifier.module, channels=2), logits(model, channels=2), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("channels", [1, 6])
def test_torchvisions_first_convolution_takes_the_channels_of_the_file(
    tmp_path: Path, channels: int
) -> None:
    name = "torchvision/squeezenet1_1"
    with torch.random.fork_rng():
        model = torchvision.models.squeezenet1_1(num_classes=3)
    model.features[0] = nn.Conv2d(channels, 64, 3, 2)
    classifier = load(write(tmp_path, weights_of(model)), name)
    assert classifier.in_chans == len(classifier.preprocessing.std) == channels
    torch.testing.assert_close(
        logits(classifier.module, channels=channels), logits(model, channels=channels)
    )


@pytest.mark.parametrize("channels", [1, 6, 9])
def test_torchvisions_weights_see_a_picture_as_before(channels: int) -> None:
    plain, other = (
        load_model("torchvision/squeezenet1_1", pretrained=False, model_kwargs=kwargs, device="cpu")
        for kwargs in ({}, {"in_chans": channels})
    )
    generator = torch.Generator().manual_seed(3)
    grey = torch.randn(2, 1, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        expected = plain.module(grey.expand(-1, 3, -1, -1))
        actual = other.module(grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_torchvisions_inception_takes_other_channels() -> None:
    classifier = load_model(
        "torchvision/inception_v3",
        pretrained=False,
        num_classes=2,
        model_kwargs={"in_chans": 1},
        device="cpu",
    )
    assert logits(classifier.module, 96, 96, 1).shape == (2, 2)


@pytest.mark.parametrize("name", ["torchvision/resnet18", ARCH])
@pytest.mark.parametrize("channels", [0, -1, 2.5, "3"])
def test_channels_that_are_none(name: str, channels: Any) -> None:
    with pytest.raises(ModelError, match="in_chans is a whole number from 1"):
        load_model(name, pretrained=False, model_kwargs={"in_chans": channels})


def test_channels_that_were_asked_for_are_kept(tmp_path: Path) -> None:
    file = write(tmp_path, grow(timm.create_model(ARCH), "conv1.0.weight", 6))
    with pytest.raises(CheckpointError, match=r"It takes 6 channels: leave out in_chans\."):
        load(file, model_kwargs={"in_chans": 1})


def explain(classifier: Classifier, picture: Any) -> Explanation:
    (explanation,) = camcli.explain(classifier, picture)
    return explanation


def test_a_grey_model_explains_pictures(tmp_path: Path) -> None:
    file = write(tmp_path, grow(timm.create_model(ARCH, num_classes=3), "conv1.0.weight", 1))
    actual = explain(load(file, img_size=96), np.full((40, 60, 3), 200, np.uint8))
    assert actual.heatmap.shape == (3, 3)
    assert load(file).warnings == ()


def test_a_model_of_six_channels_sees_the_picture_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, grow(timm.create_model(ARCH, num_classes=3), "conv1.0.weight", 6))
    Image.new("RGB", (60, 40), (200, 100, 50)).save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), "-m", ARCH, "--checkpoint", str(file), "--device", "cpu"]
    arguments += ["--model-kwargs", "in_chans=6", "--img-size", "64", "--save-map", "npy", "--json"]
    assert main([*arguments, "--save-path", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "takes 6 channels: it sees a picture's red, green and blue 2 times" in shown.err
    values = np.load(json.loads(shown.out)["outputs"][1])
    classifier = load(file, img_size=64)
    pixels = (torch.tensor([200, 100, 50] * 2) / 255 - 0.5) / 0.5
    inputs = pixels[None, :, None, None].expand(-1, -1, 64, 64).contiguous()
    (expected,) = camcli.heatmaps(classifier.module, inputs)
    assert np.allclose(values, expected.numpy(), atol=1e-4 * np.abs(values).max())


@pytest.mark.parametrize("given", [0.1, (0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)])
def test_mean_and_std_of_many_channels(given: Any) -> None:
    record = load_model(
        ARCH,
        pretrained=False,
        model_kwargs={"in_chans": 6},
        preprocessing={"mean": given, "std": given},
        device="cpu",
    ).preprocessing
    expected = (given,) * 6 if isinstance(given, float) else given * (6 // len(given))
    assert record.mean == record.std == expected


def test_other_numbers_of_channels_are_for_tensors() -> None:
    classifier = load_model(ARCH, pretrained=False, model_kwargs={"in_chans": 4}, device="cpu")
    assert len(classifier.warnings) == 1  # of the random weights
    with pytest.raises(ModelError, match=r"takes 4: camcli\.heatmaps\(module, inputs\)"):
        explain(classifier, np.zeros((20, 20, 3), np.uint8))
    assert camcli.heatmaps(classifier.module, torch.rand(1, 4, 64, 96)).shape == (1, 2, 3)
    with pytest.raises(ConfigError, match="mean takes 1 or 4 numbers"):
        load_model(
            ARCH, pretrained=False, model_kwargs={"in_chans": 4}, preprocessing={"mean": (1, 1, 1)}
        )


# sizes


def resize_by_timm(file: Path, name: str, size: tuple[int, int], **options: Any) -> nn.Module:
    """Lets timm build the model for a size and resize the weights, as its scripts do."""
    model = timm.create_model(name, num_classes=3, img_size=size, **options)
    module = importlib.import_module(type(model).__module__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the indexing in timm's interpolation
        timm.models.load_checkpoint(model, str(file), filter_fn=module.checkpoint_filter_fn)
    return model


@pytest.mark.parametrize("size", [(96, 96), (96, 160)])
def test_a_convolutional_network_takes_any_size(
    tmp_path: Path, resnet: Trained, size: tuple[int, int]
) -> None:
    classifier = load(write(tmp_path, weights_of(resnet.model)), img_size=size)
    torch.testing.assert_close(logits(classifier.module, *size), logits(resnet.model, *size))
    actual = explain(classifier, np.zeros((50, 70, 3), np.uint8))
    assert actual.heatmap.shape == (size[0] // 32, size[1] // 32)


@pytest.mark.parametrize("size", [(96, 96), (96, 160)])
def test_position_embeddings_are_resized_as_timm_does(
    tmp_path: Path, vit: Trained, size: tuple[int, int]
) -> None:
    file = write(tmp_path, weights_of(vit.model))
    classifier = load(file, VIT, img_size=size)
    expected = resize_by_timm(file, VIT, size)
    assert classifier.module.state_dict()["pos_embed"].shape[1] == 1 + size[0] * size[1] // 256
    torch.testing.assert_close(logits(classifier.module, *size), logits(expected, *size))
    assert classifier.warnings == ()
    actual = explain(classifier, np.zeros((50, 70, 3), np.uint8))
    assert actual.heatmap.shape == (size[0] // 16, size[1] // 16)


def test_a_size_that_nobody_named_is_asked_for(tmp_path: Path, vit: Trained) -> None:
    file = write(tmp_path, weights_of(vit.model))
    own = load(file, VIT, img_size=SIZE)
    assert own.warnings == ()
    torch.testing.assert_close(logits(own.module), logits(vit.model))
    other = load(file, VIT)
    assert other.preprocessing.size == (160, 160)
    (warning,) = other.warnings
    assert "resized pos_embed [1, 17, 64] to [1, 101, 64]; --img-size gives the size" in warning
    expected = resize_by_timm(file, VIT, (160, 160))
    torch.testing.assert_close(logits(other.module, 160, 160), logits(expected, 160, 160))


SWIN = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 2)}


@pytest.mark.parametrize("size", [(96, 96), (96, 160), (288, 288)])
def test_windows_are_resized_as_timm_does(tmp_path: Path, size: tuple[int, int]) -> None:
    name = "swin_tiny_patch4_window7_224"
    model = timm.create_model(name, num_classes=3, **SWIN)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    file = write(tmp_path, weights_of(model))
    classifier = load(file, name, img_size=size, model_kwargs=SWIN)
    expected = resize_by_timm(file, name, size, **SWIN)
    torch.testing.assert_close(logits(classifier.module, *size), logits(expected, *size))
    actual = explain(classifier, np.zeros((50, 70, 3), np.uint8))
    assert actual.heatmap.shape == (size[0] // 32, size[1] // 32)


def test_what_timm_does_not_resize_is_reported(tmp_path: Path) -> None:
    name, small = "convit_tiny", {"depth": 2, "local_up_to_layer": 1}
    model = timm.create_model(name, num_classes=3, img_size=64, **small)
    file = write(tmp_path, weights_of(model))
    with pytest.raises(CheckpointError, match=r"another input size: name that with --img-size\."):
        load(file, name, model_kwargs=small)
    assert load(file, name, img_size=64, model_kwargs=small).warnings == ()


@pytest.fixture
def small_vit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], VisionTransformer]:
    """Puts a small one in the place of torchvision's vision transformers."""

    def vit(image_size: int, num_classes: int = 1000) -> VisionTransformer:
        return VisionTransformer(image_size, 16, 1, 2, 32, 64, num_classes=num_classes)

    def get_model(_: str, *, weights: None, **options: Any) -> VisionTransformer:
        assert weights is None
        return vit(**options)

    monkeypatch.setattr(from_torchvision, "get_model", get_model)
    return vit


def randomise(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def test_torchvisions_position_embeddings_are_resized(
    tmp_path: Path, small_vit: Callable[..., VisionTransformer]
) -> None:
    model = randomise(small_vit(64, num_classes=3))
    file = write(tmp_path, weights_of(model))
    classifier = load(file, "vit_b_16", img_size=96)
    resized = interpolate_embeddings(96, 16, weights_of(model))
    expected = small_vit(96, num_classes=3)
    expected.load_state_dict(resized)
    torch.testing.assert_close(logits(classifier.module, 96, 96), logits(expected, 96, 96))
    assert classifier.warnings == ()
    actual = explain(classifier, np.zeros((50, 70, 3), np.uint8))
    assert actual.heatmap.shape == (6, 6)
    assert "[1, 17, 32] to [1, 197, 32]" in load(file, "vit_b_16").warnings[0]


def test_torchvisions_published_transformers_take_other_sizes(
    tmp_path: Path, small_vit: Callable[..., VisionTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torchvision.models.ViT_B_16_Weights.DEFAULT
    model = randomise(small_vit(224))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    classifier = load_model("vit_b_16", img_size=64, device="cpu")
    expected = small_vit(64)
    expected.load_state_dict(interpolate_embeddings(64, 16, weights_of(model)))
    torch.testing.assert_close(logits(classifier.module), logits(expected))


# classes


def test_another_number_of_classes_than_the_files(tmp_path: Path, resnet: Trained) -> None:
    file = write(tmp_path, weights_of(resnet.model))
    with pytest.raises(CheckpointError, match=r"It has 3 classes: leave out --num-classes\.$"):
        load(file, num_classes=5)
    assert load(file, num_classes=3).warnings == ()
    relaxed = load(file, num_classes=5, strict=False)
    assert relaxed.num_classes == 5
    assert "fc.weight [3, 96] where the model has [5, 96]" in relaxed.warnings[0]


def test_a_classifier_of_several_layers_is_named(tmp_path: Path, resnet: Trained) -> None:
    model = copy.deepcopy(resnet.model)
    model.fc = nn.Sequential(nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 3))
    file = write(tmp_path, model.state_dict())
    with pytest.raises(CheckpointError, match=r"(?s)fc\.0\.weight.*own: .*--model FILE\.py:FUNC"):
        load(file)
