import inspect
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform, transforms_factory

from camcli.errors import ModelError
from camcli.media import network_input
from camcli.media.network_input import compute_placement, make_view
from camcli.media.pictures.read import read_picture
from camcli.records import Box, Fit, Interpolation, Picture, Preprocessing, Source
from camcli.render.overlay import resize_map

SIZES = [
    (120, 160),
    (160, 120),
    (333, 500),
    (97, 31),
    (30, 41),
    (64, 64),
    (1, 1),
    (5, 400),
    (71, 2),
]

CROP_MODES: dict[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}


def picture(height: int, width: int, seed: int = 0) -> Picture:
    """Noise over a gradient, so that both sharp and smooth places are there."""
    draw = np.random.default_rng(seed)
    ramp = np.linspace(0, 128, height)[:, None, None] + np.linspace(0, 64, width)[:, None]
    return Picture((ramp + draw.integers(0, 64, (height, width, 3))).astype(np.uint8))


def assert_same_pixels(ours: torch.Tensor, theirs: torch.Tensor, std: tuple[float, ...]) -> None:
    """Both normalised inputs come from the same 8-bit pixels."""
    assert find_steps(ours, theirs, std).max() < 0.01


def assert_almost_same_pixels(
    ours: torch.Tensor, theirs: torch.Tensor, std: tuple[float, ...]
) -> None:
    """Both come from 8-bit pixels that differ by one grey level at a few places."""
    steps = find_steps(ours, theirs, std)
    assert steps.max() < 1.01
    assert (steps > 0.01).float().mean() < 0.05


def find_steps(ours: torch.Tensor, theirs: torch.Tensor, std: tuple[float, ...]) -> torch.Tensor:
    """Returns the distances in grey levels."""
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    return ((ours - theirs) * torch.tensor(std)[:, None, None] * 255).abs()


# timm 1.0.26 resizes for oblong crops bilinearly, whatever it is asked for
BILINEAR = "ResizeKeepRatio(scale_size)]" in inspect.getsource(transforms_factory)


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("input_size", [(64, 64), (60, 91)])
def test_inputs_are_those_of_timm(
    crop_mode: str, crop_pct: float, input_size: tuple[int, int]
) -> None:
    is_oblong_crop = input_size[0] != input_size[1] and crop_mode == "center"
    kinds = ("bilinear",) if is_oblong_crop and BILINEAR else ("bilinear", "bicubic", "lanczos")
    for size, interpolation in product(SIZES, kinds):
        mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
        theirs = create_transform(
            input_size=(3, *input_size),
            interpolation=interpolation,
            mean=mean,
            std=std,
            crop_pct=crop_pct,
            crop_mode=crop_mode,
        )
        ours = Preprocessing(
            size=input_size,
            scale=(int(input_size[0] / crop_pct), int(input_size[1] / crop_pct)),
            mean=mean,
            std=std,
            interpolation=interpolation,
            fit=CROP_MODES[crop_mode],
        )
        given = picture(*size)
        try:
            expected = theirs(Image.fromarray(given.pixels))
        except ValueError:  # timm's longest-edge resize may round an edge to nothing
            assert min(compute_placement(size, ours).resized) == 1
            continue
        assert_almost_same_pixels(make_view(given, ours).inputs, expected, std)
        exactly = replace(ours, resizer="pillow")
        assert_same_pixels(make_view(given, exactly).inputs, expected, std)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "swin_t", "efficientnet_b3"])
def test_inputs_are_those_of_torchvision(name: str) -> None:
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    ours = Preprocessing(
        size=(theirs.crop_size[0],) * 2,
        scale=(theirs.resize_size[0],) * 2,
        mean=tuple(theirs.mean),
        std=tuple(theirs.std),
        interpolation=theirs.interpolation.value,
    )
    for size in [(333, 500), (501, 223), (224, 224), (97, 31), (600, 601)]:
        given = picture(*size)
        expected = theirs(Image.fromarray(given.pixels))
        assert_almost_same_pixels(make_view(given, ours).inputs, expected, ours.std)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_picture_is_resized_by_pillow_where_torch_differs(interpolation: Interpolation) -> None:
    # one that grows, shrinks little, is tall, or becomes less tall: torch is up to 25 levels off
    for size in [(97, 31), (71, 2), (64, 64), (80, 100), (400, 190), (500, 200), (300, 240)]:
        ours = Preprocessing((73, 91), (73, 91), interpolation=interpolation, fit="squash")
        given = picture(*size)
        expected = make_view(given, replace(ours, resizer="pillow")).inputs
        assert torch.equal(make_view(given, ours).inputs, expected)


def test_torch_shrinks_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    given = picture(300, 400)
    ours = Preprocessing((64, 64), (73, 73), interpolation="bicubic")
    exact = make_view(given, replace(ours, resizer="pillow")).inputs

    def resize(*_: object, **__: object) -> None:
        raise AssertionError("Pillow is several times as slow")

    monkeypatch.setattr(Image.Image, "resize", resize)
    assert_almost_same_pixels(make_view(given, ours).inputs, exact, ours.std)


def test_centre_crop_larger_than_the_resized_picture_pads_with_black() -> None:
    pads = Preprocessing((60, 61), (32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    small_then_cut = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(32),
            torchvision.transforms.CenterCrop((60, 61)),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    for size in [(40, 50), (50, 40), (33, 99)]:
        given = picture(*size)
        expected = small_then_cut(Image.fromarray(given.pixels))
        assert_same_pixels(make_view(given, pads).inputs, expected, (0.5,) * 3)


def test_grey_models_get_one_channel() -> None:
    ours = Preprocessing((28, 28), (28, 28), mean=(0.13,), std=(0.3,), fit="squash")
    given = picture(28, 28)
    grey = np.asarray(Image.fromarray(given.pixels).convert("L"), np.float32) / 255
    inputs = make_view(given, ours).inputs
    assert inputs.shape == (1, 28, 28)
    assert np.allclose(inputs[0], (grey - 0.13) / 0.3, atol=1e-5)


@pytest.mark.parametrize("fit", CROP_MODES.values())
def test_many_channels_are_the_pictures_own_again_and_again(fit: Fit) -> None:
    rgb = Preprocessing((28, 40), (28, 40), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), fit=fit)
    given = picture(30, 50)
    once = make_view(given, rgb)
    twice = make_view(given, replace(rgb, mean=rgb.mean * 2, std=rgb.std * 2))
    assert twice.box == once.box
    assert torch.equal(twice.inputs, once.inputs.repeat(2, 1, 1))
    with pytest.raises(ModelError, match=r"takes 4: camcli\.heatmaps"):
        make_view(given, replace(rgb, mean=(0.5,) * 4))


def test_padding_is_the_mean_and_the_box_reaches_beyond_the_picture() -> None:
    ours = Preprocessing((100, 100), (100, 100), fit="pad")
    seen = make_view(Picture(np.full((50, 200, 3), 255, np.uint8)), ours)
    assert seen.box == Box(left=0, top=-74, right=200, bottom=126)  # rows: 37 + 25 + 38
    assert seen.inputs[:, :37].abs().max() < 0.02 and seen.inputs[:, 62:].abs().max() < 0.05
    assert seen.inputs[:, 37:62].min() > 2


def test_boxes_worked_out_by_hand() -> None:
    usual = Preprocessing((224, 224), (256, 256))
    # 300x400 -> 256x341: cut 16 rows off the top and round(58.5) = 58 columns off the left
    placement = compute_placement((300, 400), usual)
    assert placement.resized == (256, 341) and placement.offset == (16, 58)
    expected = Box(58 * 400 / 341, 16 * 300 / 256, 282 * 400 / 341, 240 * 300 / 256)
    assert placement.box == expected
    whole = compute_placement((333, 417), replace(usual, scale=(224, 224), fit="squash")).box
    assert whole == Box(0, 0, 417, 333)


def test_extreme_shapes_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Preprocessing((224, 224), (256, 256))
    given = picture(300, 400)
    expected = make_view(given, usual).inputs
    monkeypatch.setattr(network_input, "LARGEST_RESIZED", 0)
    steps = (make_view(given, usual).inputs - expected) * 0.225 * 255
    assert steps.abs().max() < 2.5 and steps.abs().mean() < 0.1
    monkeypatch.undo()
    seen = make_view(picture(20, 30_000), usual)
    assert seen.inputs.shape == (3, 224, 224)
    assert seen.box.width == pytest.approx(seen.box.height, rel=1e-4)
    squeezed = compute_placement((20, 30_000), Preprocessing((64, 64), (64, 64), fit="pad"))
    assert squeezed.resized == (1, 64)


def brightness_map(inputs: torch.Tensor, stride: int) -> NDArray[np.float32]:
    """A model whose activation is the brightness of each cell.  [3 H W] -> [h w]"""
    pooled = torch.nn.functional.avg_pool2d(inputs.mean(0)[None], stride)
    return np.asarray(pooled[0].numpy(), np.float32)


def centre_of_mass(heat: NDArray[np.float32]) -> tuple[float, float]:
    """The centre in pixels from the upper left corner: (y, x)."""
    heat = np.nan_to_num(heat)
    y, x = np.arange(heat.shape[0]) + 0.5, np.arange(heat.shape[1]) + 0.5
    return float(heat.sum(1) @ y / heat.sum()), float(heat.sum(0) @ x / heat.sum())


def visible_centre(square: Box, box: Box, size: tuple[int, int]) -> tuple[float, float] | None:
    """The centre of what of the square is in view, or None where it is not, or barely."""
    top, bottom = max(square.top, box.top, 0), min(square.bottom, box.bottom, size[0])
    left, right = max(square.left, box.left, 0), min(square.right, box.right, size[1])
    if bottom - top < square.height / 4 or right - left < square.width / 4:
        return None
    return (top + bottom) / 2, (left + right) / 2


PICTURES = [(120, 160), (161, 97), (300, 75), (64, 64), (40, 33), (401, 533)]
FITS = [
    Preprocessing((64, 64), (64, 64), fit="squash"),
    Preprocessing((64, 64), (72, 72), fit="squash"),
    Preprocessing((64, 64), (72, 72), fit="crop", interpolation="bicubic"),
    Preprocessing((48, 96), (54, 108), fit="crop"),
    Preprocessing((64, 64), (64, 64), fit="pad"),
    Preprocessing((96, 48), (102, 51), fit="pad"),
    Preprocessing((64, 64), (48, 48), fit="crop"),
]


@pytest.mark.parametrize("preprocessing", FITS, ids=lambda p: f"{p.fit}-{p.size}-{p.scale}")
@pytest.mark.parametrize("stride", [1, 8, 16])
def test_heat_lies_where_the_bright_square_is(preprocessing: Preprocessing, stride: int) -> None:
    black = replace(preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3)
    tested = 0
    for size, (y, x) in product(PICTURES, product((0.1, 0.4, 0.7), repeat=2)):
        edge = round(min(size) * 0.25)
        top, left = round(y * (size[0] - edge)), round(x * (size[1] - edge))
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[top : top + edge, left : left + edge] = 255
        seen = make_view(Picture(pixels), black)
        square = Box(left, top, left + edge, top + edge)
        expected = visible_centre(square, seen.box, size)
        if expected is None:
            continue
        cells = brightness_map(seen.inputs, stride)
        actual = centre_of_mass(resize_map(cells, seen.box, size))
        cell = seen.box.height / cells.shape[0], seen.box.width / cells.shape[1]
        for at, expectation, one_cell in zip(actual, expected, cell, strict=True):
            assert abs(at - expectation) <= (1 if stride == 1 else one_cell / 2)
        tested += 1
    assert tested >= 20


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_heat_lies_right_in_turned_photos(tmp_path: Path, orientation: int, fit: Fit) -> None:
    stored = np.zeros((90, 150, 3), np.uint8)
    stored[20:44, 50:74] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = read_picture(Source(tmp_path / "a.png"))
    # where the stored pixel (y, x) stands when the photo is looked at, after the EXIF standard
    y, x = {
        1: (32, 62),
        2: (32, 150 - 62),
        3: (90 - 32, 150 - 62),
        4: (90 - 32, 62),
        5: (62, 32),
        6: (62, 90 - 32),
        7: (150 - 62, 90 - 32),
        8: (150 - 62, 32),
    }[orientation]
    seen = make_view(upright, Preprocessing((64, 64), (64, 64), (0.0,) * 3, (1.0,) * 3, fit=fit))
    actual = centre_of_mass(resize_map(brightness_map(seen.inputs, 4), seen.box, upright.size))
    assert actual == pytest.approx((y, x), abs=max(seen.box.height, seen.box.width) / 16 / 2)


def test_a_view_box_is_plain_numbers() -> None:
    box: Any = compute_placement((300, 400), Preprocessing((224, 224), (256, 256))).box
    assert json.loads(json.dumps(vars(box)))["right"] == box.right
