"""Default layers of transformers' models are found, and their maps are Grad-CAM's by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

import camcli
from camcli.engine.layer_selection import find_default_layer
from camcli.models.hugging_face.networks import fix_for_pictures
from camcli.models.outputs.interpretation import OutputReading
from tests.tiny_transformers import (
    CLASSIFIERS,
    OTHERS,
    build_tiny,
    compute_gradcam_by_hand,
    draw_noise,
)

pytest.importorskip("transformers")

# `python -m tests.tools.coverage --transformers` is about all of them
LAYERS: Mapping[str, tuple[str, str]] = {
    "vit": ("vit.layers.1.layernorm_before", "4x4 tokens behind 1 extra"),
    "deit": ("deit.layers.1.layernorm_before", "4x4 tokens behind 2 extra"),
    "beit": ("beit.layers.1", "4x4 tokens behind 1 extra"),
    "dinov2": ("dinov2.layernorm", "4x4 tokens behind 1 extra"),
    "dinov2_with_registers": ("dinov2_with_registers.layernorm", "4x4 tokens behind 5 extra"),
    "ijepa": ("ijepa.layernorm", "4x4 tokens"),
    "siglip": ("vision_model.post_layernorm", "4x4 tokens"),
    "siglip2": ("vision_model.post_layernorm", "4x4 tokens"),
    "clip": ("vision_model.encoder.layers.1", "4x4 tokens behind 1 extra"),
    "convnext": ("convnext.encoder.stages.3", "2x2 nchw"),
    "resnet": ("resnet.encoder.stages.3", "2x2 nchw"),
    "segformer": ("segformer.stages.3", "2x2 nchw"),
    "poolformer": ("norm", "2x2 nchw"),
    "swiftformer": ("norm", "2x2 nchw"),
    "cvt": ("cvt.encoder.stages.2.layers.2.layernorm_before", "4x4 tokens behind 1 extra"),
}
READING = OutputReading("logits")


@pytest.mark.parametrize("name", LAYERS)
def test_the_default_layer_and_its_map(name: str) -> None:
    tiny = CLASSIFIERS[name]
    module = build_tiny(tiny).requires_grad_(False)
    fix_for_pictures(module)
    target = find_default_layer(module, (3, tiny.edge, tiny.edge), READING)
    assert (target.name, target.layout.description) == LAYERS[name]
    inputs = draw_noise(tiny.edge)
    maps = camcli.heatmaps(module, inputs, "gradcam", targets=[[1], [1]])
    expected = compute_gradcam_by_hand(module, target, inputs, 1)
    torch.testing.assert_close(maps[:, 0], expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_every_class_of_the_mapping_has_a_tiny_model_or_a_reason() -> None:
    import transformers
    from transformers.models.auto import modeling_auto

    mapping = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    classes = {
        name
        for named in mapping.values()
        for name in ([named] if isinstance(named, str) else named)
    }
    reasons = {getattr(transformers, mapping[name]).__name__ for name in OTHERS}
    built = {tiny.class_name for tiny in CLASSIFIERS.values()}
    assert classes - reasons <= built
    assert built <= classes
