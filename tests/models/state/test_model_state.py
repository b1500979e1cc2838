"""The hash that stands for a model's weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camcli.models.state.weights_hash import hash_weights


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("nothing", torch.empty(0))


def test_the_same_weights_have_one_hash() -> None:
    actual = hash_weights(Small())
    assert len(actual) == 16 and int(actual, 16) >= 0
    same = [
        Small(),
        Small().to(memory_format=torch.channels_last),
        nn.DataParallel(Small()),
        Small().eval().requires_grad_(False),
    ]
    assert {hash_weights(module) for module in same} == {actual}


@pytest.mark.parametrize(
    "changed",
    [
        lambda m: m.conv.weight.data[3, 2, 2, 2].add_(1e-6),
        lambda m: m.norm.running_mean.add_(1),
        lambda m: m.scale.data.neg_(),
        lambda m: m.double(),
        lambda m: m.bfloat16(),
        lambda m: setattr(m, "other", m.__dict__["_modules"].pop("norm")),
        lambda m: setattr(
            m.conv, "weight", nn.Parameter(m.conv.weight.detach().reshape(4, 9, 3, 1))
        ),
    ],
    ids=["value", "buffer", "scalar", "float64", "bfloat16", "name", "shape"],
)
def test_other_weights_have_another(changed: Callable[[Small], object]) -> None:
    module = Small()
    before = hash_weights(module)
    changed(module)
    assert hash_weights(module) != before


def test_it_leaves_the_weights_alone() -> None:
    module = Small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    hash_weights(module)
    assert all(torch.equal(before[name], now) for name, now in module.state_dict().items())


class QuantizedTensor(Tensor):
    """Eight bits and a scale in place of a float, which does nothing but to be held (torchao's)."""

    q: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, q: Tensor, scale: Tensor) -> "QuantizedTensor":
        self = torch.Tensor._make_wrapper_subclass(cls, q.shape, dtype=scale.dtype)
        self.q, self.scale = q, scale
        return self

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["q", "scale"], None

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, _: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].q, args[0].scale)
        raise NotImplementedError(func)


def pack(value: float = 1.0, scale: float = 0.5) -> Tensor:
    return QuantizedTensor(torch.full((4, 3), value).to(torch.int8), torch.full((4, 1), scale))


def per_tensor(value: float = 1.0, scale: float = 0.5) -> Tensor:
    return torch.quantize_per_tensor(torch.full((4, 3), value * scale), scale, 0, torch.qint8)


def per_channel(value: float = 1.0, scale: float = 0.5) -> Tensor:
    scales, zeros = torch.full((4,), scale), torch.zeros(4, dtype=torch.int64)
    floats = torch.full((4, 3), value * scale)
    return torch.quantize_per_channel(floats, scales, zeros, 0, torch.qint8)


def sparse(value: float = 1.0, scale: float = 0.5) -> Tensor:
    return (torch.eye(4) * value * scale).to_sparse()


def conjugate(value: float = 1.0, scale: float = 0.5) -> Tensor:
    return torch.full((3,), complex(value, scale)).conj()


def nest(value: float = 1.0, scale: float = 0.5) -> Tensor:
    return torch.nested.nested_tensor([torch.full((3,), value), torch.full((2,), scale)])


@pytest.mark.filterwarnings("ignore:.*(nested tensors|is in prototype|deprecat)")
@pytest.mark.parametrize("made", [pack, per_tensor, per_channel, sparse, conjugate, nest])
def test_tensors_of_other_formats_count_with_all_that_is_in_them(
    made: Callable[..., Tensor],
) -> None:
    def hash_of(tensor: Any) -> str:
        module = Small()
        module.register_buffer("other", tensor)
        return hash_weights(module)

    actual = hash_of(made())
    assert hash_of(made()) == actual
    assert len({actual, hash_of(made(value=2.0)), hash_of(made(scale=0.25))}) == 3


def test_a_state_of_several_tensors_counts() -> None:
    """Quantised linear layers keep their weight and bias as one."""

    class Stateful(nn.Linear):
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:  # noqa: ARG002
            destination[f"{prefix}packed"] = (self.weight.data, {"bias": self.bias.data}, "int8")

    torch.manual_seed(0)
    module = Stateful(3, 2)
    actual = hash_weights(module)
    assert hash_weights(module) == actual
    module.bias.data.add_(1)
    assert hash_weights(module) != actual


def test_weights_without_values_count_by_their_shapes() -> None:
    with torch.device("meta"):
        actual = hash_weights(Small())
        assert hash_weights(Small(1)) == actual
        assert hash_weights(nn.Linear(2, 3)) != actual
    assert hash_weights(Small()) != actual
