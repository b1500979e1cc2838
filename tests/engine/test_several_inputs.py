"""Models that take more than pictures: each picture keeps its own other inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import camcli
from camcli.errors import ModelError, UsageError
from camcli.models.load import Classifier, load_model
from camcli.models.multiple_inputs import check_takes_a_picture_alone
from camcli.records import Preprocessing
from tests.networks import Staged, noise

AGES = torch.tensor([[0.2, -1.0], [3.0, 0.5]])
METHODS = ["gradcam", "scorecam", "ablationcam", "fullgrad", "guidedbackprop"]


class Multimodal(Staged):
    """Gates the pooled features by a table's row, as fusion of pictures and records does."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(2, 16)
        nn.init.constant_(self.gate.bias, 1.0)

    def forward(self, image: Tensor, ages: Tensor, scale: float = 1.0) -> Tensor:
        x = self.last(torch.relu_(self.middle(self.stem(image))))
        return self.fc(self.pool(torch.relu_(x)).flatten(1) * self.gate(ages) * scale)


class Second(Multimodal):
    def forward(self, ages: Tensor, image: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image, ages)


class Batch(Multimodal):
    def forward(self, batch: Any) -> Tensor:  # type: ignore[override]
        picture, ages = batch.values() if isinstance(batch, dict) else batch
        return super().forward(picture, ages)


class Bound(nn.Module):
    """The same with one picture's table row in it."""

    def __init__(self, net: Multimodal, row: Tensor) -> None:
        super().__init__()
        self.net, self.row = net, row

    def forward(self, image: Tensor) -> Tensor:
        actual: Tensor = self.net(image, self.row.expand(len(image), -1))
        return actual


def fix_seed(kind: type[Multimodal]) -> Multimodal:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return kind().eval()


@pytest.fixture(scope="module")
def compute_expected() -> dict[str, Tensor]:
    alone = [
        camcli.heatmaps(Bound(fix_seed(Multimodal), row[None]), x[None], METHODS)
        for x, row in zip(noise(), AGES, strict=True)
    ]
    return {name: torch.cat([maps[name] for maps in alone]) for name in METHODS}


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (Multimodal, (noise(), AGES)),
        (Multimodal, [noise(), AGES, 1.0]),
        (Multimodal, {"ages": AGES, "image": noise(), "scale": torch.tensor(1.0)}),
        (Second, (AGES, noise())),
        (Batch, (noise(), AGES)),
        (Batch, {"picture": noise(), "table": AGES}),
    ],
)
def test_the_pictures_are_explained_and_the_rest_is_passed_on(
    kind: type[Multimodal], inputs: Any, compute_expected: dict[str, Tensor]
) -> None:
    model = fix_seed(kind)
    heatmap = camcli.heatmaps(model, inputs, METHODS)
    for name in METHODS:
        torch.testing.assert_close(heatmap[name], compute_expected[name], rtol=1e-3, atol=1e-6)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_other_inputs_matter() -> None:
    one, other = (
        camcli.heatmaps(fix_seed(Multimodal), (noise(), ages), targets=1)
        for ages in (AGES, AGES + 1)
    )
    assert (one - other).abs().max() > 0.01 * one.abs().max()


def test_other_inputs_may_make_other_classes() -> None:
    class Prompted(Staged):
        """As many logits as there are prompts, as CLIP has them."""

        def forward(self, image: Tensor, prompts: Tensor) -> Tensor:
            return super().forward(image) @ prompts.T

    model, prompts = Prompted(), torch.eye(5)
    for n in (3, 4):
        heatmap = camcli.heatmaps(model, (noise(), prompts[:n]), targets=n - 1)
        torch.testing.assert_close(
            heatmap, camcli.heatmaps(Staged(), noise(), targets=n - 1), rtol=1e-3, atol=1e-6
        )


def test_targets_are_the_pictures() -> None:
    model, inputs = fix_seed(Multimodal), (noise(), AGES)
    both = camcli.heatmaps(model, inputs, targets=[[0, 3], [2, 1]])
    torch.testing.assert_close(both[:, 1], camcli.heatmaps(model, inputs, targets=[3, 1]))


def test_activations_are_those_of_the_pictures() -> None:
    maps = camcli.activations(fix_seed(Multimodal), (noise(), AGES))
    torch.testing.assert_close(
        maps, camcli.activations(Staged().eval(), noise(), "last"), check_stride=False
    )


def test_an_image_input_is_named() -> None:
    class Stereo(Staged):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return super().forward(left) + 2 * super().forward(right)

    left, right = noise(seed=1), noise(seed=2)
    options: dict[str, Any] = {"target_layers": "last", "targets": 1}
    heatmap = camcli.heatmaps(Stereo(), (left, right), image_input=1, **options)
    # the last use of a shared layer is the right one's
    plain = camcli.heatmaps(Staged(), right, **options)
    torch.testing.assert_close(heatmap, 2 * plain)
    assert torch.equal(heatmap, camcli.heatmaps(Stereo(), (left, right), image_input=-1, **options))


@pytest.mark.parametrize(
    ("inputs", "named", "message"),
    [
        ((AGES, 3), None, r"None of the inputs is .*: 0: torch\.float32 \[2, 2\], 1: int"),
        ((), None, "None of the inputs is a float tensor .*: none"),
        (
            {"x": noise(), "t": AGES},
            "t",
            r"image_input 't' is to be .* and is torch\.float32 \[2, ",
        ),
        ({"x": noise()}, "y", "and is not there; the inputs are 'x'"),
        (noise(), 0, "chooses among several inputs, and only one is given"),
    ],
)
def test_what_is_no_picture_is_reported(inputs: Any, named: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        camcli.heatmaps(Staged(), inputs, image_input=named)


FILE = """
import torch
from tests.engine.test_several_inputs import Multimodal

class OfTheMiddleAged(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Multimodal()

    def forward(self, image):
        return self.model(image, torch.tensor([[0.2, -1.0]]).expand(len(image), 2))
"""


def test_a_model_loaded_by_name_that_needs_more_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    message = r"needs more than a picture: forward\(image, ages\).*camcli\.heatmaps\(model, \(image"
    with pytest.raises(ModelError, match=message):
        load_model(f"{tmp_path / 'net.py'}:Multimodal", device="cpu", img_size=64)
    # what is advised works
    assert load_model(f"{tmp_path / 'net.py'}:OfTheMiddleAged", device="cpu", img_size=64)


def test_defaults_and_open_ends_are_no_more_than_a_picture() -> None:
    check_takes_a_picture_alone(Staged(), "staged")
    check_takes_a_picture_alone(nn.DataParallel(Staged()), "wrapped")
    check_takes_a_picture_alone(nn.Sequential(Staged()), "sequence")


def test_explain_says_what_takes_a_dictionary() -> None:
    sizes = ((48, 64), (48, 64), (0.5,) * 3, (0.25,) * 3)
    classifier = Classifier(
        module=Staged().eval(),
        name="staged",
        origin="python",
        preprocessing=Preprocessing(*sizes, fit="squash"),
        labels=None,
        weights="by hand",
        num_classes=5,
        in_chans=3,
    )
    with pytest.raises(
        UsageError, match=r"not a dictionary .* camcli\.heatmaps\(classifier\.module"
    ):
        camcli.explain(classifier, {"image": noise(1), "ages": AGES[:1]})
