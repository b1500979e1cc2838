"""Attention of transformers' own models: read where it is softmaxed, and left as it was found."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import camcli
from camcli.errors import CamvizError, MethodError
from camcli.models.hugging_face.networks import fix_for_pictures
from camcli.models.inspection.attention import measure_attentions
from tests.tiny_transformers import CLASSIFIERS, build_tiny, draw_noise

pytest.importorskip("transformers")

METHODS = ("rollout", "genericattention", "gradattention", "legrad")
SHAPE = (3, 64, 64)
PATCHES = range(16)
CATEGORY = 2
# where in a block attention can be had, the last of them Data2Vec's
SITES = ("attention", "self_attn", "attention.attention.dropout")

# extra tokens, and the tokens that the score is read off
READ: Mapping[str, tuple[int, Sequence[int]]] = {
    "vit": (1, [0]),
    "vit_msn": (1, [0]),
    "deit": (2, [0]),
    "deit with teacher": (2, [0, 1]),
    "beit": (1, [1 + n for n in PATCHES]),
    "beit with positions": (1, [1 + n for n in PATCHES]),
    "data2vec-vision": (1, [1 + n for n in PATCHES]),
    "dinov2": (1, range(17)),
    "dinov2_with_registers": (5, [0, *(5 + n for n in PATCHES)]),
    "ijepa": (0, PATCHES),
    "siglip": (0, PATCHES),
    "siglip2": (0, PATCHES),
    "clip": (1, [1 + n for n in PATCHES]),
    "metaclip_2": (1, [1 + n for n in PATCHES]),
}


def build(name: str) -> Any:
    module = build_tiny(CLASSIFIERS[name])
    fix_for_pictures(module)
    return module.requires_grad_(False)


@pytest.mark.parametrize("name", READ)
def test_where_attention_is_found(name: str) -> None:
    prefix, readers = READ[name]
    actual = measure_attentions(build(name), SHAPE)
    assert (len(actual.blocks), actual.tokens) == (2, 16 + prefix)
    assert (actual.layout.grid, actual.layout.prefix) == ((4, 4), prefix)
    assert actual.readers == tuple(readers)


def test_a_module_around_attention_and_its_projection_is_no_block() -> None:
    (block, _) = measure_attentions(build("data2vec-vision"), SHAPE).blocks
    assert block.name == "data2vec_vision.encoder.layer.0"
    assert block.sites == ("data2vec_vision.encoder.layer.0.attention.attention.dropout",)


def test_the_blocks_have_the_names_of_transformers() -> None:
    (block, _) = measure_attentions(build("vit"), SHAPE).blocks
    assert (block.name, block.sites) == ("vit.layers.0", ("vit.layers.0.attention",))


class Replica:
    """The four methods, written from their papers, by what transformers itself returns."""

    def __init__(self, name: str, inputs: Tensor) -> None:
        self.prefix, self.readers = READ[name]
        self.module, self.inputs = build(name), inputs
        self.blocks = [
            self.module.get_submodule(block.name)
            for block in measure_attentions(self.module, SHAPE).blocks
        ]
        self.module.set_attn_implementation("eager")
        self.attention: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def run(self) -> Tensor:
        """Returns the scores [b], and keeps attention and the blocks' outputs."""
        handles = []
        for name, layer in self.module.named_modules():
            if name in [
                f"{self._name_of(block)}.{child}" for block in self.blocks for child in SITES
            ]:
                handles.append(layer.register_forward_hook(self._keep_attention))
        handles += [block.register_forward_hook(self._keep_output) for block in self.blocks]
        with torch.enable_grad():
            scores = self.module(self.inputs.clone().requires_grad_()).logits[:, CATEGORY]
        for handle in handles:
            handle.remove()
        return scores

    def _name_of(self, block: Any) -> str:
        return next(name for name, layer in self.module.named_modules() if layer is block)

    def _keep_attention(self, _: Any, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.attention.append(output)
        elif len(output) > 1:
            self.attention.append(output[1])

    def _keep_output(self, _: Any, __: Any, output: Any) -> None:
        self.outputs.append(output if isinstance(output, Tensor) else output[0])

    def read(self, tokens: Tensor) -> Tensor:
        """Averages the rows that the score is read off.  [b n n] -> [b 4 4]"""
        return tokens[:, list(self.readers)].mean(1)[:, self.prefix :].unflatten(1, (4, 4))

    def rollout(self) -> Tensor:
        self.run()
        identity = torch.eye(self.attention[0].shape[-1])
        together = identity
        for block in self.attention:
            together = (0.5 * block.mean(1) + 0.5 * identity) @ together
        return self.read(together)

    def genericattention(self) -> Tensor:
        gradients = torch.autograd.grad(self.run().sum(), self.attention)
        identity = torch.eye(self.attention[0].shape[-1])
        relevance = identity.repeat(len(self.inputs), 1, 1)
        for block, gradient in zip(self.attention, gradients, strict=True):
            relevance = relevance + (block * gradient).relu().mean(1) @ relevance
        return self.read(relevance - identity)

    def gradattention(self) -> Tensor:
        (gradient,) = torch.autograd.grad(self.run().sum(), self.attention[-1])
        return self.read((self.attention[-1] * gradient).relu().mean(1))

    def legrad(self) -> Tensor:
        self.run()
        attention, outputs, maps = list(self.attention), list(self.outputs), []
        for block, output in zip(attention, outputs, strict=True):
            replace = partial(put_out, output)
            with self.blocks[-1].register_forward_hook(replace), torch.enable_grad():
                scores = self.module(self.inputs).logits[:, CATEGORY]
            (gradient,) = torch.autograd.grad(scores.sum(), block, retain_graph=True)
            maps.append(gradient.relu().mean((1, 2)))
        whole = torch.stack(maps).mean(0)
        return whole[:, self.prefix :].unflatten(1, (4, 4))


def put_out(instead: Tensor, _: Any, __: Any, output: Any) -> Any:
    """Puts a tensor in the place of what a block puts out; a hook once that is bound."""
    return instead if isinstance(output, Tensor) else (instead, *output[1:])


@pytest.mark.parametrize("name", READ)
def test_maps_are_those_of_a_slow_replica(name: str) -> None:
    inputs = draw_noise(64)
    maps = camcli.heatmaps(build(name), inputs, METHODS, targets=[[CATEGORY], [CATEGORY]])
    for method in METHODS:
        expected = getattr(Replica(name, inputs), method)()
        actual = maps[method].flatten(0, 1)
        torch.testing.assert_close(actual, expected.detach(), rtol=2e-4, atol=1e-7, msg=method)
        assert actual.std() > 0


@pytest.mark.parametrize("fails", [False, True])
def test_the_attention_is_chosen_as_before(fails: bool) -> None:
    module = build("vit")
    assert module.config._attn_implementation == "sdpa"
    module.train()
    seen = []
    layer = module.vit.layers[1]
    layer.register_forward_hook(lambda *_: seen.append(module.config._attn_implementation))
    hooks = [len(part._forward_hooks) for part in module.modules()]
    if fails:
        with module.register_forward_hook(lambda *_: 1 / 0), pytest.raises(CamvizError):
            camcli.heatmaps(module, draw_noise(64), "rollout")
    else:
        camcli.heatmaps(module, draw_noise(64), METHODS)
    assert "eager" in seen
    assert module.config._attn_implementation == "sdpa"
    assert module.training
    assert [len(part._forward_hooks) for part in module.modules()] == hooks


def test_a_dropout_that_raises_leaves_no_watch_behind() -> None:
    module = build("vit")

    def stop(*_: Any) -> None:
        raise ZeroDivisionError

    with (
        module.vit.layers[0].attention.o_proj.register_forward_hook(stop),
        pytest.raises(CamvizError),
    ):
        camcli.heatmaps(module, draw_noise(64), "rollout")
    assert torch.overrides._get_current_function_mode() is None
    assert camcli.heatmaps(module, draw_noise(64), "rollout").std() > 0


def test_threads_share_a_model() -> None:
    module, inputs = build("vit"), draw_noise(64)
    expected = {method: camcli.heatmaps(module, inputs, method) for method in METHODS}
    actual: dict[str, Tensor] = {}

    def explain(method: str) -> None:
        actual[method] = camcli.heatmaps(module, inputs, method)

    threads = [threading.Thread(target=explain, args=(method,)) for method in METHODS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for method in METHODS:
        torch.testing.assert_close(actual[method], expected[method])
    assert module.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("convnext", "shows no softmaxed attention"),
        ("swin", "looks through windows"),
        ("segformer", "among channels or skips tokens"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, said: str) -> None:
    with pytest.raises(MethodError, match=said):
        camcli.heatmaps(build(name), draw_noise(64), "rollout")
