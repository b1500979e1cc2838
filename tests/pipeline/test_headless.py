"""Models without a classifier: methods that ask no class explain them, the others say why not."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import camcli
import camcli.methods  # fills the registry
from camcli.cli.app import main
from camcli.errors import MethodError, ModelError, UsageError
from camcli.media.output_names import name_output
from camcli.models.load import Classifier
from camcli.records import Source
from camcli.registry import METHODS, depends_on_category
from tests.networks import Staged, noise
from tests.outputs import outputs
from tests.test_demo import PHOTO

ASKING = [name for name in METHODS if depends_on_category(name)]
# rollout needs a transformer: test_attention
CLASSLESS = [name for name in METHODS if name not in (*ASKING, "rollout")]


class Trunk(Staged):
    """`Staged` without its classifier, giving features, maps, tokens, or several of them."""

    def __init__(self, gives: str) -> None:
        super().__init__()
        del self.fc
        self.gives = gives

    def forward(self, x: Tensor) -> Any:
        maps = torch.relu_(self.last(torch.relu_(self.middle(self.stem(x)))))
        tokens, features = maps.flatten(2).mT, self.pool(maps).flatten(1)
        outputs = {"features": features, "maps": maps, "tokens": tokens, "pair": (features, maps)}
        return outputs[self.gives]


KINDS = ("features", "maps", "tokens", "pair")


@pytest.mark.parametrize("gives", KINDS)
@pytest.mark.parametrize("method", CLASSLESS)
def test_a_map_without_a_class_is_the_classifiers(method: str, gives: str) -> None:
    for options in ({}, {"aug_smooth": True}, {"layer_fusion": "max"}):
        if METHODS[method].details and "layer_fusion" in options:
            continue  # refused: layers that are fused have no details in common
        actual = explain_by(method, Trunk(gives), options)
        torch.testing.assert_close(actual, explain_classifier_by(method, **options))


def explain_by(method: str, module: nn.Module, options: dict[str, Any]) -> Tensor:
    layers = ["middle", "last"] if "layer_fusion" in options else None
    return camcli.heatmaps(module, noise(), method, target_layers=layers, **options)


@cache
def explain_classifier_by(method: str, **options: Any) -> Tensor:
    return explain_by(method, Staged(), options)


@pytest.mark.parametrize("method", ASKING)
@pytest.mark.parametrize("gives", ["maps", "tokens", "pair"])
def test_methods_that_ask_a_class_refuse_what_has_none(method: str, gives: str) -> None:
    with pytest.raises(ModelError, match=r"returned a t(ensor|uple).*not .*logits"):
        camcli.heatmaps(Trunk(gives), noise(), method, target_layers="last")
    with pytest.raises(ModelError, match=r"not .*logits"):
        camcli.heatmaps(Trunk(gives), noise(), "eigencam", target_layers="last", targets=1)


def timm_model(name: str = "test_vit", **model_kwargs: Any) -> Classifier:
    return camcli.load_model(
        name, num_classes=0, pretrained=False, model_kwargs=model_kwargs, device="cpu"
    )


@pytest.fixture(scope="module", params=["features", "tokens", "maps"])
def headless(request: pytest.FixtureRequest) -> Classifier:
    match request.param:
        case "features":
            return timm_model()
        case "tokens":
            return timm_model(global_pool="")
        case _:
            return timm_model("test_resnet", global_pool="")


def test_an_explanation_without_a_class(headless: Classifier, tmp_path: Path) -> None:
    explanations = list(camcli.explain(headless, [PHOTO] * 3, CLASSLESS, batch_size=2))
    assert [e.method for e in explanations] == CLASSLESS * 3
    for e in explanations:
        assert (e.category, e.label, e.probability, e.record.rank) == (None, "", None, None)
        assert e.map.category is None
        assert np.ptp(e.heatmap) > 0
    assert explanations[0].save(tmp_path / "a.png").exists()


def test_categories_are_refused(headless: Classifier) -> None:
    for choosing in ({"target_category": 3}, {"top_k": 2}, {"top_k": 1}, {"contrast": 1}):
        with pytest.raises(UsageError, match=r"has no classes .*leave --target-category, --top-k"):
            camcli.explain(headless, PHOTO, "eigencam", **choosing)
    for method in ASKING:
        with pytest.raises(ModelError, match=re.escape(f"{method} has no class to explain")):
            camcli.explain(headless, PHOTO, ["eigencam", method])


TYPED = "-m test_vit --no-pretrained --num-classes 0 --method eigencam --device cpu"


def test_what_is_printed_and_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{PHOTO.stem}_eigencam.jpg"
    for style in ([], ["--json"]):
        assert main([str(PHOTO), *TYPED.split(), "--save-path", "out", *style]) == 0
        printed = capsys.readouterr().out
        if style:
            record = json.loads(printed)
            nulls = {key for key, value in record.items() if value is None}
            unasked = {"frame", "time", "contrast_strength", "residual", "scale"} | {
                "box_threshold"
            }
            assert nulls == {"category", "probability", "margin", "value", "rank", *unasked}
            assert record["label"] == ""
        else:
            assert printed == f"out/{name}  eigencam at blocks.5.norm1\n"
    assert [path.name for path in outputs(Path("out"))] == [name]
    # one file will do, as there is one map
    assert main([str(PHOTO), *TYPED.split(), "--save-path", "one.png"]) == 0
    assert Path("one.png").exists()


def test_a_name_without_a_class() -> None:
    source = Source(Path("a.png"))
    assert name_output(source, "eigencam", None, "") == Path("a_eigencam.png")
    assert name_output(source, "eigencam", None, "", layer="x.1") == Path("a_eigencam_x.1.png")


def test_users_backbones_from_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dino.py").write_text(
        "import timm\n"
        "def vit():\n"
        "    return timm.create_model('test_vit', num_classes=0)\n"
        "def maps():\n"
        "    return timm.create_model('test_resnet', num_classes=0, global_pool='')\n"
    )
    typed = ("--device", "cpu", "--img-size", "160", "--save-path", "out", "--method")
    assert main([str(PHOTO), "-m", "dino.py:vit", *typed, "eigencam"]) == 0
    assert "taken for features" in capsys.readouterr().err
    assert main([str(PHOTO), "-m", "dino.py:maps", *typed, "eigencam"]) == 0
    assert "in place of logits" in capsys.readouterr().err
    for function in ("vit", "maps"):
        assert main([str(PHOTO), "-m", f"dino.py:{function}", *typed, "gradcam"]) == 2
        message = capsys.readouterr().err
        assert "has no classifier, so gradcam has no class to explain" in message
        assert "let your code return logits [b n]" in message


def test_a_module_as_it_is() -> None:
    # one that is its own only layer has no name to hook, so it stands in another
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1))
    assert camcli.heatmaps(module, noise(), "eigencam").shape == (2, 24, 32)


def test_a_bare_module_without_a_classifier_has_no_class_to_ask_for() -> None:
    module, inputs = timm.create_model("test_resnet", num_classes=0), torch.zeros(1, 3, 96, 96)
    with pytest.raises(MethodError, match=r"ResNet has no classifier, so gradcam"):
        camcli.heatmaps(module, inputs, ["eigencam", "gradcam"])
    assert camcli.heatmaps(module, inputs, "eigencam").shape == (1, 3, 3)
