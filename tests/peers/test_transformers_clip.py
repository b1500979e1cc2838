"""Maps of CLIP's words beside those of grad-cam's own CLIP example, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import camcli
from camcli.media.network_input import make_view
from camcli.media.pictures.read import make_picture
from camcli.methods.postprocessing import normalise
from camcli.models.load import Classifier
from tests.checkout import ROOT
from tests.tiny_words import save_worded

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TEXTS = ["a cat", "an espresso", "a dog"]
LAYER = "vision_model.encoder.layers.1.layer_norm1"
# EigenCAM's sign is arbitrary: tests/peers/test_grad_cam.py compares it
METHODS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
}


class Example(nn.Module):
    """What the example hands to grad-cam: probabilities of texts, which it reads anew each pass."""

    def __init__(self, clip: Any, tokens: Any) -> None:
        super().__init__()
        self.clip, self.tokens = clip, tokens

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.clip(pixel_values=pixels, **self.tokens).logits_per_image
        return logits.softmax(1)


def lay_out(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].mT.unflatten(2, (4, 4))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Example, Classifier, Path]:
    """The example's model, the same as camviz loads it, and a photo."""
    folder = tmp_path_factory.mktemp("clip")
    clip = save_worded(folder, "clip")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXTS, return_tensors="pt", padding=True)
    with Image.open(ROOT / "demo_images" / "cat_and_coffee.jpg") as picture:
        picture.convert("RGB").resize((64, 64)).save(folder / "photo.png")
    classifier = camcli.prompt(camcli.load_model(str(folder), device="cpu"), TEXTS)
    return Example(clip, tokens), classifier, folder / "photo.png"


@pytest.mark.parametrize("method", METHODS)
def test_our_map_is_that_of_grad_cams_example_with_transformers(
    saved: tuple[Example, Classifier, Path], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def scale_cams(cams: np.ndarray, *_: object) -> np.ndarray:
        # grad-cam's adds 1e-7, which decides the maps of random weights
        return normalise(torch.from_numpy(np.asarray(cams)).float()).numpy()

    monkeypatch.setattr("pytorch_grad_cam.base_cam.scale_cam_image", scale_cams)
    example, classifier, photo = saved
    cam = getattr(pytorch_grad_cam, METHODS[method])(
        model=example,
        target_layers=[example.clip.get_submodule(LAYER)],
        reshape_transform=lay_out,
    )
    inputs = make_view(make_picture(photo), classifier.preprocessing).inputs[None]
    try:
        theirs = cam(input_tensor=inputs, targets=[ClassifierOutputTarget(1)])[0]
    finally:
        cam.activations_and_grads.release()
    (explanation,) = camcli.explain(
        classifier, photo, method, target_category="an espresso", target="probability"
    )
    assert explanation.record.layers == (LAYER,)
    ours = normalise(torch.from_numpy(explanation.heatmap)[None])[0]
    assert ours.std() > 0
    assert np.abs(ours.numpy() - theirs).max() < 1e-4
