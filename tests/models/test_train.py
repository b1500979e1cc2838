"""The embedded model's training, on a few synthetic photos."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from camcli.models.embedded import train
from camcli.models.embedded.network import Network

RECIPE = train.Recipe(epochs=3, learning_rate=0.02, batch=8, size=32, average=0.5)


def _jpeg(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(-20, 20, (64, 64, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def _write_photos(file: Path, n: int) -> None:
    """Reddish photos of class 0 and bluish ones of class 1."""
    labels = np.arange(n) % 2
    jpegs = [_jpeg((60, 60, 200) if label else (200, 60, 60), i) for i, label in enumerate(labels)]
    np.savez(
        file,
        jpeg=np.frombuffer(b"".join(jpegs), np.uint8),
        offset=np.cumsum([0, *map(len, jpegs)]),
        label=labels.astype(np.int16),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    _write_photos(folder / "train.npz", 34)
    _write_photos(folder / "val.npz", 10)
    (folder / "classes.txt").write_text("n1\tred\nn2\tblue\n")
    return folder


def _training() -> train.Training:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return train.Training(Network(2), RECIPE, steps_per_epoch=4)


def _weights(training: train.Training) -> list[torch.Tensor]:
    return list(training.average.state_dict().values())


def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    photos = train.Photos.read(data / "train.npz")
    whole = _training()
    train.train(photos, whole, tmp_path / "whole.state")
    assert whole.steps_done == 12

    first = _training()
    first.network.train()
    for pixels, labels in first.batches(photos):
        first.step(pixels, labels)
        if first.steps_done == 5:  # in the middle of the second epoch
            break
    first.save(tmp_path / "cut.state")
    second = _training()
    second.load(tmp_path / "cut.state")
    train.train(photos, second, tmp_path / "cut.state")
    assert second.steps_done == 12
    for a, b in zip(_weights(whole), _weights(second), strict=True):
        torch.testing.assert_close(a, b)


def test_the_command_learns_and_writes_its_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "Recipe", lambda epochs, rate, **_: RECIPE)  # noqa: ARG005
    out = tmp_path / "weights.safetensors"
    arguments = ["train", "--data", str(data), "--out", str(out), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    train.main()
    printed = capsys.readouterr().out
    assert "64 px: top-1" in printed
    network = Network(2)
    network.load_state_dict(load_file(out))
    photos = train.Photos.read(data / "val.npz")
    assert train.accuracy(network, photos, 32) == 1.0


def test_recalibration_measures_whole_photos_at_their_size(data: Path) -> None:
    photos = train.Photos.read(data / "train.npz")
    network = _training().network
    weights = {k: v.clone() for k, v in network.named_parameters()}
    train.recalibrate(network, photos, 48)
    assert not network.training
    assert all(torch.equal(v, weights[k]) for k, v in network.named_parameters())
    with torch.no_grad():
        views = torch.nn.functional.interpolate(photos.pixels.float(), 48, mode="bicubic")
        stem = network.conv1(train.normalised(views.clamp(0, 255)))
    torch.testing.assert_close(network.bn1.running_mean, stem.mean((0, 2, 3)), rtol=0, atol=0.02)


def test_blending_is_the_mean_of_the_weights() -> None:
    network, other = Network(2), Network(2).state_dict()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    train.blend(network, other)
    after = network.state_dict()
    torch.testing.assert_close(after["fc.weight"], (before["fc.weight"] + other["fc.weight"]) / 2)
    assert after["bn1.num_batches_tracked"] == before["bn1.num_batches_tracked"]


def test_photos_are_decoded_as_they_were_saved(data: Path) -> None:
    photos = train.Photos.read(data / "val.npz")
    assert photos.pixels.shape == (10, 3, 64, 64)
    assert photos.labels.tolist() == [0, 1] * 5
    red, _, blue = photos.pixels[0].float().mean((1, 2))
    assert red > 150 > 100 > blue


def test_random_views_keep_the_mean_colour_and_differ() -> None:
    pixels = torch.zeros(64, 3, 64, 64, dtype=torch.uint8)
    pixels[:, 0] = 120
    pixels[:, :, :, 40:] = 200
    draw = torch.Generator().manual_seed(0)
    views = train.random_views(pixels, RECIPE, draw)
    assert views.shape == (64, 3, 32, 32)
    assert views.min() >= 0
    assert views.max() <= 255
    # the bright part stands right in half of the views, and left in the flipped ones
    left_is_brighter = views[:, 1, :, :8].mean((1, 2)) > views[:, 1, :, -8:].mean((1, 2)) + 5
    assert 15 < int(left_is_brighter.sum()) < 49


def test_cutmix_pastes_a_rectangle_and_tells_its_share() -> None:
    views = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 20, 20).contiguous()
    for seed in range(10):
        mixed, partner, share = train.cutmix(views, torch.Generator().manual_seed(seed))
        for row in range(4):
            if partner[row] != row:
                assert float((mixed[row] == row).float().mean()) == pytest.approx(share)
            assert set(mixed[row].unique().tolist()) <= {float(row), float(partner[row])}
