"""The handbook's page on moving over: its examples in two tools give the same maps."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision

from camcli.methods.postprocessing import enlarge, normalise
from tests.checkout import ROOT
from tests.networks import noise

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

PAGE = ROOT / "camcli" / "docs" / "moving.md"
EXAMPLES = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("peer", ["pytorch_grad_cam", "torchcam"])
def test_the_same_example_in_both_tools_gives_the_same_map(peer: str) -> None:
    place = next(place for place, text in enumerate(EXAMPLES) if peer in text)
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    inputs = noise(1, 3, (224, 224))
    names: dict[str, Any] = {"model": model, "inputs": inputs}
    for example in EXAMPLES[place : place + 2]:
        exec(example, names)
    theirs, ours = torch.as_tensor(names["theirs"]), names["ours"]
    if theirs.shape[1:] != ours.shape[1:]:
        ours = enlarge(normalise(ours), tuple(theirs.shape[1:]))
    torch.testing.assert_close(normalise(theirs), normalise(ours), rtol=0, atol=1e-3)
