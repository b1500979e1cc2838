"""Every shipped preset runs, with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camcli.config import Options, list_presets, resolve
from camcli.engine.api import heatmaps
from camcli.models.load import load_model

# a small input where the model allows one: the layers are the same
CHANGES = {
    # its first linear layer alone has a hundred million weights to draw
    "vgg16": ["img_size=64", "model_kwargs.mlp_ratio=0.01"],
    "resnet50": ["img_size=64"],
    "mobilenetv3_large_100": ["img_size=64"],
    "efficientnet_b0": ["img_size=64"],
    "convnext_tiny": ["img_size=64"],
    "vit_base_patch16_224": ["img_size=64", "model_kwargs.depth=3"],
    "deit_base_distilled_patch16_224": ["img_size=64", "model_kwargs.depth=3"],
    "cait_xxs24_224": ["img_size=64"],
    "swin_tiny_patch4_window7_224": ["img_size=64", "model_kwargs.window_size=2"],
}
GRIDS = {
    "vit_base_patch16_224": (4, 4),
    "deit_base_distilled_patch16_224": (4, 4),
    "cait_xxs24_224": (4, 4),
    "embedded": None,
}


def options_of(name: str) -> Options:
    return resolve({}, config=name, cfg_options=CHANGES.get(name, []), environ={})


def test_the_promised_presets_ship() -> None:
    assert set(list_presets()) == {*CHANGES, "embedded"}


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_says_the_essentials(name: str) -> None:
    plain = resolve({}, config=name, cfg_options=[], environ={})
    assert {"model", "target_layers", "method"} <= plain.model_fields_set
    assert plain.model == name
    comments = [
        line for line in list_presets()[name].read_text().splitlines() if line.startswith("#")
    ]
    assert len(comments) >= 2


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_runs(name: str) -> None:
    options = options_of(name)
    classifier = load_model(
        options.model,
        pretrained=False,
        img_size=options.img_size,
        model_kwargs=options.model_kwargs,
        device="cpu",
    )
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, 3, *classifier.preprocessing.size, generator=generator)
    maps = heatmaps(
        classifier.module,
        inputs,
        method=list(options.method),
        target_layers=list(options.target_layers),
        vit_like=options.vit_like,
        num_extra_tokens=options.num_extra_tokens,
    )
    for actual in maps.values():
        grid = GRIDS.get(name, (2, 2)) or actual.shape[-2:]
        assert actual.shape == (1, *grid)
        assert actual.isfinite().all()
        assert np.ptp(actual.numpy()) > 0
