"""Methods of gradients and of activations: what the tests of all methods cannot ask."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import camcli
from camcli.engine.evidence import forward_backward
from camcli.errors import MethodError, UnknownName, UsageError
from camcli.methods.activation import KERNELS, fem, kpcacam
from camcli.methods.gradient import segeigencam
from camcli.methods.postprocessing import normalise
from camcli.methods.principal_component import project_first_component
from camcli.registry import METHODS, find_method_name
from tests.networks import Pooled, Staged, noise

GRADIENTS = ("gradcamelementwise", "smoothgradcam++", "shapleycam", "segeigencam")
ACTIVATIONS = ("kpcacam", "fem")


def _heatmaps(model: nn.Module, inputs: Tensor, method: str, **options: Any) -> Tensor:
    heatmap: Tensor = camcli.heatmaps(model, inputs, method, targets=[1, 2], **options)
    return heatmap


def _random(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Curved(Staged):
    """Its score is curved everywhere behind the middle stage."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.gelu(self.last(torch.tanh(self.middle(self.stem(x)))))
        return self.fc(self.pool(x).flatten(1))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("GradCAMElementWise", "gradcamelementwise"),
        ("Smooth-Grad-CAM++", "smoothgradcam++"),
        ("SmoothGradCAMpp", "smoothgradcam++"),
        ("Shapley_CAM", "shapleycam"),
        ("Seg-Eigen-CAM", "segeigencam"),
        ("KPCA_CAM", "kpcacam"),
        ("FEM", "fem"),
    ],
)
def test_the_peers_spellings(typed: str, name: str) -> None:
    assert find_method_name(typed) == name


# Smooth Grad-CAM++


def _smooth_by_autograd(model: nn.Module, image: Tensor, target: int, seed: int) -> np.ndarray:
    """Averages of one picture's gradients over 3 copies with noise of a fifth of its range."""

    def record_output(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        kept: list[Tensor] = []
        handle = model.get_submodule("last").register_forward_hook(
            lambda _, __, output: kept.append(output) or output.clone()
        )
        score = model(x[None].requires_grad_())[0, target]
        handle.remove()
        gradient = torch.autograd.grad(score, kept[0])[0]
        return kept[0][0].detach().double().numpy(), gradient[0].double().numpy()

    activations, _ = record_output(image)
    draw = torch.Generator().manual_seed(seed)
    deviation = 0.2 * (image.max() - image.min())
    noisy = [image + deviation * torch.randn(image.shape, generator=draw) for _ in range(3)]
    gradients = np.stack([record_output(x)[1] for x in noisy])
    first, second, third = (np.mean(gradients**power, 0) for power in (1, 2, 3))
    out = np.zeros(activations.shape[1:])
    for k, channel in enumerate(activations):
        weight = 0.0
        for i in np.ndindex(channel.shape):
            below = 2 * second[k][i] + channel.sum() * third[k][i] + 1e-6
            weight += second[k][i] / below * max(first[k][i], 0)
        out += weight * channel
    return out


@pytest.mark.parametrize("seed", [0, 4])
def test_smooth_gradcam_plus_plus_against_a_replica_with_the_same_draws(seed: int) -> None:
    model, inputs = Curved().eval(), noise()
    actual = _heatmaps(
        model,
        inputs,
        "smoothgradcam++",
        target_layers="last",
        seed=seed,
        set={"samples": 3, "sigma": 0.2},
    )
    for row, target in enumerate((1, 2)):
        expected = _smooth_by_autograd(model, inputs[row], target, seed)
        np.testing.assert_allclose(actual[row], expected, rtol=1e-3, atol=1e-5)


def test_without_noise_it_is_gradcam_plus_plus() -> None:
    still = _heatmaps(Curved(), noise(), "smoothgradcam++", set={"sigma": 0})
    torch.testing.assert_close(still, _heatmaps(Curved(), noise(), "gradcam++"))
    noisy = _heatmaps(Curved(), noise(), "smoothgradcam++")
    assert not torch.allclose(still, noisy, rtol=1e-2)


def test_it_makes_one_pass_for_each_noisy_copy_of_the_batch() -> None:
    model, inputs, seen = Curved(), noise(), []
    # where its places lie, and how its output is read, is measured once
    _heatmaps(model, inputs, "gradcam", target_layers="last")
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    _heatmaps(model, inputs, "smoothgradcam++", target_layers="last", set={"samples": 5})
    assert [len(x) for x in seen] == [2] * 6
    assert torch.equal(seen[0], inputs)
    deviations = torch.stack([(x - inputs).std((1, 2, 3)) for x in seen[1:]])
    # of 9,216 draws
    ranges = inputs.amax((1, 2, 3)) - inputs.amin((1, 2, 3))
    torch.testing.assert_close(deviations, (0.15 * ranges).expand(5, 2), rtol=0.03, atol=0)
    assert not any(torch.equal(a, b) for a, b in pairwise(seen[1:]))


@pytest.mark.parametrize(("kept", "copies"), [(5, 5), (2, 2 + 3 * 3), (0, 3 * 5)])
def test_noisy_copies_pass_once_for_all_classes_where_their_gradients_can_be_kept(
    kept: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, sizes, seen = Curved(), noise(), [], []
    options: dict[str, Any] = {"target_layers": "last", "set": {"samples": 5}}
    explain = partial(camcli.heatmaps, model, inputs, "smoothgradcam++", **options)
    with model.last.register_forward_hook(lambda _, __, output: sizes.append(output.numel())):
        alone = [explain(targets=[t, t]) for t in (3, 1, 2)]
    monkeypatch.setattr(forward_backward, "MOST_KEPT", kept * 3 * sizes[-1])
    with model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0]))):
        maps = explain(targets=[[3, 1, 2]] * 2)
    assert seen == [2] * (1 + copies)
    torch.testing.assert_close(maps, torch.stack(alone, 1))


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"sigma": -0.1}])
def test_it_refuses_no_samples_and_negative_noise(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"samples of 1 or more and a sigma of 0 or more"):
        _heatmaps(Curved(), noise(), "smoothgradcam++", set=wrong)


# ShapleyCAM


class Square(Pooled):
    """Its score is the mean of the square of its only layer's two channels, x and 2x."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.features(x) ** 2).mean((2, 3)))


def test_shapleycam_worked_out_by_hand_on_a_square() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    heatmap = camcli.heatmaps(
        Square(), x.view(1, 1, 2, 2), "shapleycam", target_layers="features", targets=0
    )
    # of 3 * mean(a^2) - mean(b^2), gradient and curvature are 3/2 a and -1/2 b alike
    weights = (3 / 2 * 2.5 / 2, -1 / 2 * 5 / 2)
    torch.testing.assert_close(heatmap[0], weights[0] * x + weights[1] * 2 * x)


@pytest.mark.parametrize("layers", [["last"], ["middle"], ["middle", "last"]])
def test_shapleycam_against_the_whole_hessian(layers: list[str]) -> None:
    model, inputs = Curved().eval(), noise(size=(16, 24))
    actual = _heatmaps(model, inputs, "shapleycam", target_layers=layers, layer_fusion="none")

    def behind(layer: str, target: int, maps: Tensor) -> Tensor:
        x = model.last(torch.tanh(maps)) if layer == "middle" else maps
        return model.fc(torch.nn.functional.gelu(x).mean((2, 3)))[0, target]

    for layer in layers:
        for row, target in enumerate((1, 2)):
            maps = camcli.activations(model, inputs, layer)[layer][row : row + 1]
            score = partial(behind, layer, target)
            gradient = torch.autograd.functional.jacobian(score, maps)
            hessian = torch.autograd.functional.hessian(score, maps)
            product = (hessian.reshape(maps.numel(), -1) @ maps.flatten()).view_as(maps)
            expected = ((gradient - product / 2).mean((2, 3), keepdim=True) * maps).sum(1)[0]
            torch.testing.assert_close(actual[layer][row], expected, rtol=1e-4, atol=1e-5)
            plain = (gradient.mean((2, 3), keepdim=True) * maps).sum(1)[0]
            assert not torch.allclose(expected, plain, rtol=1e-2)


def _timm_vit() -> nn.Module:
    return camcli.load_model("timm/test_vit", pretrained=False, device="cpu").module


def _torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(160, 32, 2, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads[0].weight)
    return model


class Split(nn.MultiheadAttention):
    """The same attention, one product after the other."""

    def forward(self, tokens: Tensor, *_: Tensor, **__: Any) -> tuple[Tensor, None]:
        both = torch.nn.functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        queries, keys, values = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in both.chunk(3, -1)
        )
        shares = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)
        return self.out_proj((shares @ values).transpose(1, 2).flatten(2)), None


def _split(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.__class__ = Split
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


@pytest.mark.parametrize(
    ("build", "layer"),
    [(_timm_vit, "blocks.0"), (_torchvision_vit, "encoder.layers.encoder_layer_0")],
    ids=["timm", "torchvision"],
)
def test_fused_attention_is_off_while_curvature_is_measured(
    build: Callable[[], nn.Module], layer: str
) -> None:
    torch.manual_seed(0)
    model, inputs = build(), noise(size=(160, 160))
    actual = _heatmaps(model, inputs, ["shapleycam", "gradcam"], target_layers=layer)
    assert torch.backends.cuda.flash_sdp_enabled()
    assert not torch.allclose(actual["shapleycam"], actual["gradcam"], rtol=1e-2)
    _split(model)
    expected = _heatmaps(model, inputs, "shapleycam", target_layers=layer)
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual["shapleycam"] / scale, expected / scale, rtol=0, atol=1e-4)


class Once(torch.autograd.Function):
    """Twice its input, with a gradient that nothing can differentiate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * above


class Opaque(Staged):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(Once.apply(self.last(self.middle(self.stem(x)))))
        return self.fc(self.pool(x).flatten(1))


def test_what_has_no_second_derivative_is_named() -> None:
    with pytest.raises(MethodError, match=r"behind 'last' has none\. Try --method gradcam"):
        _heatmaps(Opaque(), noise(), "shapleycam", target_layers="last")
    assert _heatmaps(Opaque(), noise(), "gradcam", target_layers="last").any()


# Seg-Eigen-CAM, KPCA-CAM, FEM


def test_segeigencams_farthest_value_is_positive() -> None:
    # three places are strong and one is not: the component that grows with strength falls far below
    maps = torch.tensor([[[[4.0, 4.0], [4.0, 1.0]]]]).expand(1, 2, 2, 2)
    weighted = project_first_component(maps, maps.sum(1))[0]
    assert weighted[1, 1] == weighted.min() < -weighted.max()
    torch.testing.assert_close(segeigencam(maps, -torch.ones_like(maps))[0], -weighted)


def test_a_linear_kernel_is_eigencam() -> None:
    maps = _random(2, 5, 4, 6)
    expected = METHODS["eigencam"].function(maps)
    torch.testing.assert_close(kpcacam(maps, kernel="linear"), expected)
    for kernel in KERNELS.keys() - {"linear"}:
        assert not torch.allclose(kpcacam(maps, kernel=kernel), expected, rtol=0.05, atol=0.05)


def test_an_unknown_kernel_is_named() -> None:
    with pytest.raises(UnknownName, match=r"'rfb'\. Closest: 'rbf'"):
        _heatmaps(Staged(), noise(), "kpcacam", set={"kernel": "rfb"})


def test_gamma_is_the_kernels_width() -> None:
    maps = _random(1, 5, 4, 6)
    torch.testing.assert_close(kpcacam(maps, gamma=0.2), kpcacam(maps))
    assert not torch.allclose(kpcacam(maps, gamma=0.5), kpcacam(maps), rtol=0.05)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_bad_picture_spares_its_neighbours(kernel: str) -> None:
    maps = _random(2, 3, 4, 4)
    alone = kpcacam(maps[1:], kernel=kernel)
    maps[0, 1, 2, 3] = torch.nan
    actual = kpcacam(maps, kernel=kernel)
    assert actual[0].isnan().all()
    torch.testing.assert_close(actual[1:], alone)


def test_fem_worked_out_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    maps = torch.stack([x, 2 * x, torch.full((2, 2), 0.1), torch.zeros(2, 2), -x])[None]
    # one standard deviation above its mean of 2.5 is 3.6; a channel without any has nothing above
    expected = torch.tensor([[-2.5, 0.0], [0.0, 2.5 + 5.0]])
    torch.testing.assert_close(fem(maps, k=1.0)[0], expected)
    assert not fem(maps, k=2.0).any()


def test_elementwise_terms_do_not_cancel() -> None:
    a, g = torch.tensor([[[[2.0]], [[3.0]]]]), torch.tensor([[[[1.0]], [[-1.0]]]])
    assert METHODS["gradcamelementwise"].function(a, g).sum() == 2
    assert METHODS["hirescam"].function(a, g).sum() == -1


# nothing is made up where there is nothing


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("name", [*GRADIENTS, *ACTIVATIONS])
def test_dead_channels_and_zero_gradients_give_an_empty_map(name: str, value: float) -> None:
    maps, gradients = torch.full((2, 6, 5, 7), value), torch.zeros(2, 6, 5, 7)
    evidence = {
        "inputs": torch.zeros(2, 3, 9, 9),
        "activations": maps,
        "gradients": gradients,
        "curvature": gradients,
        "gradients_at": lambda _: gradients,
    }
    method = METHODS[name]
    actual = method.function(*(evidence[e] for e in method.evidence))
    assert actual.isfinite().all()
    assert not normalise(actual.sum(1) if method.gives == "weighted activations" else actual).any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_places_that_are_alike_have_no_component(kernel: str, value: float) -> None:
    maps = torch.full((1, 6, 5, 7), value)
    assert not kpcacam(maps, kernel=kernel).any()
