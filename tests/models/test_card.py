"""The model card's figures, measured again on the validation photos where they are at hand."""

import re

import numpy as np
import pytest

import camcli
from camcli.models.embedded.train import Photos
from tests.checkout import ROOT
from tests.localisation import measure

DATA = ROOT.parent / "shared" / "tinyimagenet100"
CARD = ROOT / "camcli" / "models" / "embedded" / "CARD.md"


def _figures() -> dict[str, float]:
    rows = re.findall(r"^\| ([^|]+) \| ([0-9.]+) % \|$", CARD.read_text(encoding="utf-8"), re.M)
    return {name: float(percent) / 100 for name, percent in rows}


def test_the_card_is_a_demonstrators_and_says_so() -> None:
    assert "demonstrator" in CARD.read_text(encoding="utf-8")
    # the weights that training began from reached 64.7 %
    assert _figures()["top-1"] >= 0.647


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the validation photos are not at hand")
def test_the_figures_of_the_card_are_measured() -> None:
    photos = Photos.read(DATA / "val.npz")
    with np.load(DATA / "val.npz") as file:
        boxes = file["box"]
    found = measure(camcli.load_model(device="cpu"), photos, boxes).row()
    assert found == pytest.approx(_figures(), abs=0.002)
