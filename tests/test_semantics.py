"""Heat lies on what is asked for; random weights and the middle of the picture are the baselines.

The whole measurement is `python -m tests.semantics`.
"""

import numpy as np
import pytest
import torch

import camcli
import camcli.methods  # fills the registry
from camcli.cards import CARDS
from camcli.methods.compose import normalise
from camcli.models.embedded.train import Photos
from camcli.registry import METHODS, depends_on_category
from tests.checkout import ROOT
from tests.semantics import BASELINE, GAUSSIAN, semantics, small_objects
from tests.test_demo import CAT, COFFEE, PHOTO, SIDES

DATA = ROOT.parent / "shared" / "tinyimagenet100"
ASKING = [
    name
    for name in METHODS
    if depends_on_category(name) and "transformers" not in CARDS[name].where
]
# SS-CAM's noise, of deviation 2, swamps masks of 0 to 1: all channels score nearly alike
BLIND = {"sscam"}
# a few masks and samples, for a quick look
QUICK = {"masks": 200, "samples": 2, "max_channels": 64}
# one pass a photo
FAST = ["gradcam", "gradcam++", "xgradcam", "layercam", "hirescam", "gradcamelementwise", "cam"]


@pytest.mark.parametrize("name", ASKING)
def test_each_class_is_found_on_its_half(name: str) -> None:
    """Whatever does not depend on the class has half of its heat there on the average."""
    classifier, shares = camcli.load_model(device="cpu"), []
    options = {o.name: QUICK[o.name] for o in METHODS[name].options if o.name in QUICK}
    for category, side in (CAT, COFFEE):
        (found,) = camcli.explain(classifier, PHOTO, name, target_category=category, set=options)
        heat = normalise(torch.from_numpy(found.sized_map("image"))).numpy()
        shares.append(heat[:, SIDES[side]].sum() / heat.sum())
    assert bool(np.mean(shares) > 0.6) == (name not in BLIND)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the photos with boxes")
def test_small_objects_are_found() -> None:
    photos, boxes = small_objects(DATA)
    few = slice(0, len(boxes), 4)
    some = Photos(photos.pixels[few], photos.labels[few])
    classifier = camcli.load_model(device="cpu")
    found = semantics(classifier, some, boxes[few], [*FAST, BASELINE])
    for name in FAST:
        for baseline in (BASELINE, GAUSSIAN):
            assert found[name].peak > found[baseline].peak
            assert found[name].inside > found[baseline].inside
