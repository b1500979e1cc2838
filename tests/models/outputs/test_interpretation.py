"""What a model's outputs mean, as it is measured: the last operation, the range, and the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.errors import ModelError, UsageError
from camcli.models.outputs.interpretation import (
    OutputReading,
    apply_output_reading,
    compute_log_probabilities,
    find_output_reading,
    measure_output,
)
from tests.networks import Staged, noise

SHAPE = (3, 48, 64)
End = Callable[[Tensor], Any]


class NetworkWithEnd(nn.Module):
    """A network with something behind it."""

    def __init__(self, classes: int, end: End) -> None:
        super().__init__()
        self.net, self.end = Staged(classes), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.net(x))


def by_hand(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def stable(z: Tensor) -> Tensor:
    e = torch.exp(z - z.max(1, keepdim=True).values)
    return e / e.sum(1, keepdim=True)


SOFTMAX: list[End] = [
    nn.Softmax(1),
    lambda z: F.softmax(z, dim=-1),
    lambda z: (z / 2).softmax(1).squeeze(),
    lambda z: F.log_softmax(z, 1).exp(),
    lambda z: z.exp() / z.exp().sum(1, keepdim=True),
    stable,
    lambda z: {"probabilities": z.softmax(1)},
    lambda z: F.softmax(z, dim=1) + 1e-8,
]
SIGMOID: list[End] = [
    nn.Sigmoid(),
    torch.special.expit,
    lambda z: z.sigmoid_(),
    lambda z: torch.sigmoid(z)[:, 0],
    lambda z: torch.sigmoid(z).squeeze(),
    lambda z: torch.sigmoid(z).clamp(1e-6, 1 - 1e-6),
    by_hand,
    lambda z: z.exp() / (1 + z.exp()),
    lambda z: F.logsigmoid(z).exp(),
]
TWO_SIDES: list[End] = [
    lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1),
    lambda z: torch.stack((1 - z.sigmoid()[:, 0], z.sigmoid()[:, 0]), -1),
]


def read(model: nn.Module, reading: OutputReading, inputs: Tensor) -> Tensor:
    with torch.no_grad(), apply_output_reading(model.eval(), reading):
        actual: Tensor = model(inputs)
    return actual


@pytest.mark.parametrize("end", SOFTMAX)
def test_what_is_in_front_of_a_softmax_is_found(end: End) -> None:
    reading = measure_output(NetworkWithEnd(4, end), SHAPE)
    assert (reading.meaning, reading.link, reading.end) == ("probabilities", "softmax", "softmax")
    actual = read(NetworkWithEnd(4, end), reading, noise())
    z = Staged(4).eval()(noise()).detach()
    expected = z / 2 if end is SOFTMAX[2] else z
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(reading.log_probabilities(actual).exp(), expected.softmax(1))


@pytest.mark.parametrize("end", SIGMOID)
def test_what_is_in_front_of_a_sigmoid_is_found(end: End) -> None:
    reading = measure_output(NetworkWithEnd(1, end), SHAPE)
    assert (reading.meaning, reading.end, reading.width) == ("probabilities", "sigmoid", 1)
    torch.testing.assert_close(
        read(NetworkWithEnd(1, end), reading, noise()), Staged(1).eval()(noise())
    )


@pytest.mark.parametrize("end", TWO_SIDES)
def test_a_probability_and_the_rest_of_it_are_two_classes(end: End) -> None:
    reading = measure_output(NetworkWithEnd(1, end), SHAPE)
    assert (reading.meaning, reading.link, reading.width) == ("probabilities", "sigmoid", 2)
    z = Staged(1).eval()(noise()).detach()
    actual = read(NetworkWithEnd(1, end), reading, noise())
    torch.testing.assert_close(actual, torch.cat([-z, z], 1))
    sides = torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)
    torch.testing.assert_close(reading.log_probabilities(actual).exp(), sides)


@pytest.mark.parametrize(
    "end", [lambda z: z.softmax(1)[:, 1], lambda z: F.softmax(z, dim=-1)[:, 1:2].squeeze()]
)
@pytest.mark.parametrize("classes", [2, 4])
def test_one_class_of_a_softmax_is_a_probability(end: End, classes: int) -> None:
    reading = measure_output(NetworkWithEnd(classes, end), SHAPE)
    assert (reading.meaning, reading.end) == ("probabilities", "class of a softmax")
    z = Staged(classes).eval()(noise()).detach()
    others = z[:, [i for i in range(classes) if i != 1]].logsumexp(1, keepdim=True)
    actual = read(NetworkWithEnd(classes, end), reading, noise())
    torch.testing.assert_close(actual, z[:, 1:2] - others)
    p = z.softmax(1)[:, 1:2]
    torch.testing.assert_close(reading.log_probabilities(actual).exp(), torch.cat([1 - p, p], 1))


def test_sigmoids_of_several_classes_are_independent() -> None:
    reading = measure_output(NetworkWithEnd(5, torch.sigmoid), SHAPE)
    assert (reading.meaning, reading.link, reading.end) == ("independent", "sigmoid", "sigmoid")
    assert "probabilities of independent classes (it ends in a sigmoid)" in reading.note


def test_probabilities_of_an_ensemble_are_known_by_their_range() -> None:
    def softmax(z: Tensor) -> Tensor:
        return (z.softmax(1) + (3 * z).softmax(1)) / 2

    def sigmoid(z: Tensor) -> Tensor:
        return (z.sigmoid() + (3 * z).sigmoid()) / 2

    z = Staged(4).eval()(noise()).detach()
    one = measure_output(NetworkWithEnd(4, softmax), SHAPE)
    assert (one.meaning, one.end, one.inverse) == ("probabilities", None, "softmax")
    actual = read(NetworkWithEnd(4, softmax), one, noise())
    torch.testing.assert_close(actual, softmax(z).log())
    torch.testing.assert_close(one.log_probabilities(actual).exp(), softmax(z))
    several = measure_output(NetworkWithEnd(4, sigmoid), SHAPE)
    assert (several.meaning, several.inverse) == ("independent", "sigmoid")
    actual = read(NetworkWithEnd(4, sigmoid), several, noise())
    torch.testing.assert_close(actual.sigmoid(), sigmoid(z))
    assert "lie where probabilities of independent classes do" in several.note


def test_percentages_are_probabilities() -> None:
    reading = measure_output(NetworkWithEnd(4, lambda z: 100 * z.softmax(1)), SHAPE)
    assert (reading.meaning, reading.inverse) == ("probabilities", "softmax")
    actual = read(NetworkWithEnd(4, lambda z: 100 * z.softmax(1)), reading, noise())
    expected = Staged(4).eval()(noise()).detach().softmax(1)
    torch.testing.assert_close(reading.log_probabilities(actual).exp(), expected)


@pytest.mark.parametrize("classes", [1, 4])
def test_a_hard_sigmoid_gives_probabilities(classes: int) -> None:
    def saturate(z: Tensor) -> Tensor:
        return F.hardsigmoid(40 * z)

    reading = measure_output(NetworkWithEnd(classes, saturate), SHAPE)
    assert reading.meaning == ("probabilities" if classes == 1 else "independent")
    actual = read(NetworkWithEnd(classes, saturate), reading, noise())
    expected = saturate(Staged(classes).eval()(noise()).detach())
    torch.testing.assert_close(reading.log_probabilities(actual).exp()[:, -classes:], expected)


@pytest.mark.parametrize(
    "end",
    [
        lambda z: (z.sigmoid() + (3 * z).sigmoid()) / 2,
        lambda z: ((z.sigmoid() + (3 * z).sigmoid()) / 2).clamp(1e-6, 1 - 1e-6),
        lambda z: (z / 2).tanh() / 2 + 0.5,
    ],
)
def test_one_number_that_stays_in_0_to_1_is_a_probability(end: End) -> None:
    reading = measure_output(NetworkWithEnd(1, end), SHAPE)
    assert (reading.meaning, reading.inverse) == ("probabilities", "sigmoid")
    assert "lie where probabilities do, and their logits are explained" in reading.note
    actual = read(NetworkWithEnd(1, end), reading, noise())
    torch.testing.assert_close(actual.sigmoid(), end(Staged(1).eval()(noise()).detach()))


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_what_a_linear_layer_puts_out_is_no_probability_whatever_its_range(classes: int) -> None:
    model = NetworkWithEnd(classes, lambda z: z)
    # a network that ends in a norm in front of its head stays in a range
    model.net.fc.weight.data.mul_(1e-6)
    model.net.fc.bias.data.fill_(0.4)
    reading = measure_output(model, SHAPE)
    assert (reading.meaning, reading.inverse) == ("value" if classes == 1 else "logits", None)


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z,
        F.relu,
        lambda z: F.hardtanh(z, 0, 1),
        F.normalize,
        # no longer what a sigmoid put out
        lambda z: z.sigmoid().mul_(100),
    ],
)
def test_what_is_no_probability_is_taken_for_logits(end: End) -> None:
    reading = measure_output(NetworkWithEnd(5, end), SHAPE)
    assert (reading.meaning, reading.end, reading.inverse) == ("logits", None, None)
    assert reading.note == ""


def test_logarithms_of_probabilities_are_looked_through() -> None:
    reading = measure_output(NetworkWithEnd(4, nn.LogSoftmax(1)), SHAPE)
    assert (reading.meaning, reading.end) == ("logits", "log-softmax")
    actual = read(NetworkWithEnd(4, nn.LogSoftmax(1)), reading, noise())
    torch.testing.assert_close(actual, Staged(4).eval()(noise()))


def test_one_number_is_a_value() -> None:
    for end in (lambda z: z, F.relu, lambda z: (0.1 * z + 0.5).clamp(0, 1), torch.squeeze):
        assert measure_output(NetworkWithEnd(1, end), SHAPE).is_value


def test_attention_in_the_middle_is_no_end() -> None:
    class Gated(Staged):
        def forward(self, x: Tensor) -> Tensor:
            x = self.last(self.middle(self.stem(x)))
            x = x * x.flatten(2).softmax(2).view_as(x)
            return self.fc(self.pool(x).flatten(1) * self.pool(x).flatten(1).sigmoid())

    assert measure_output(Gated(), SHAPE).end is None


def test_saturated_probabilities_have_logits_still() -> None:
    end = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Softmax(1))
    nn.init.eye_(end[0].weight).data.mul_(1e4)
    reading = measure_output(NetworkWithEnd(4, end), SHAPE)
    actual = read(NetworkWithEnd(4, end), reading, noise())
    torch.testing.assert_close(actual, 1e4 * Staged(4).eval()(noise()))


# rows


SQUEEZED: list[End] = [
    lambda z: z.squeeze(),
    lambda z: z[:, :, None, None],
    lambda z: z[None],
    lambda z: z.T,
    lambda z: z.squeeze()[..., None],
]


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("end", SQUEEZED)
def test_rows_are_the_pictures_whatever_was_squeezed(classes: int, end: End) -> None:
    model = NetworkWithEnd(classes, end)
    reading = measure_output(model, SHAPE)
    assert reading.width == classes
    for b in (1, 2, 3):
        actual = read(model, reading, noise(b))
        torch.testing.assert_close(actual, Staged(classes).eval()(noise(b)))


def test_other_rows_than_pictures_are_refused_in_a_sentence() -> None:
    def halves(z: Tensor) -> Tensor:
        return z if len(z) == 1 else z[: len(z) // 2].flatten()[:3]

    with pytest.raises(ModelError, match=r"\[1, 4\] for one input and a tensor \[3\] for 2"):
        measure_output(NetworkWithEnd(4, halves), SHAPE)


def test_a_picture_that_looks_at_its_neighbours_is_reported() -> None:
    assert not measure_output(NetworkWithEnd(4, lambda z: z), SHAPE).mixes
    mixing = measure_output(NetworkWithEnd(4, lambda z: z - z.mean(0)), SHAPE)
    assert "depends on its neighbours in the batch" in mixing.note
    at_random = measure_output(NetworkWithEnd(4, lambda z: z + torch.rand_like(z)), SHAPE)
    assert not at_random.mixes


def test_a_softmax_over_one_output_is_refused() -> None:
    with pytest.raises(ModelError, match="softmax over a single output, which is 1 whatever"):
        measure_output(NetworkWithEnd(1, nn.Softmax(1)), SHAPE)


def test_maps_and_several_tensors_are_left_as_they_are() -> None:
    reading = measure_output(
        NetworkWithEnd(4, lambda z: z[:, :, None, None].expand(-1, -1, 3, 3)), SHAPE
    )
    assert reading == OutputReading()


# what somebody says


def test_what_is_declared_is_taken_and_nothing_is_said() -> None:
    for outputs in ("logits", "value"):
        reading = measure_output(NetworkWithEnd(4, torch.sigmoid), SHAPE, None, outputs)
        assert (reading.meaning, reading.end, reading.note) == (outputs, None, "")
    independent = measure_output(NetworkWithEnd(4, lambda z: z), SHAPE, None, "independent")
    assert (independent.link, independent.end, independent.inverse) == ("sigmoid", None, None)
    one = measure_output(
        NetworkWithEnd(1, lambda z: (z.sigmoid() + 0.5) / 2), SHAPE, None, "probabilities"
    )
    assert one.inverse == "sigmoid"


def test_probabilities_that_are_none_are_refused() -> None:
    with pytest.raises(ModelError, match=r"said to be probabilities, and go from -\d"):
        measure_output(NetworkWithEnd(5, lambda z: z - 5), SHAPE, None, "probabilities")
    with pytest.raises(ModelError, match="do not sum to 1: give --outputs independent"):
        measure_output(NetworkWithEnd(5, torch.sigmoid), SHAPE, None, "probabilities")
    with pytest.raises(UsageError, match="one of logits, probabilities, independent, value, not"):
        measure_output(Staged(), SHAPE, None, "classes")  # type: ignore[arg-type]


def test_probabilities_by_hand() -> None:
    z = torch.tensor([[1.0, 3.0]]).log()
    assert compute_log_probabilities(z).exp().tolist() == [pytest.approx([0.25, 0.75])]
    assert compute_log_probabilities(z, "sigmoid").exp().tolist() == [pytest.approx([0.5, 0.75])]
    assert compute_log_probabilities(z[:, 1:]).exp().tolist() == [pytest.approx([0.25, 0.75])]


def test_a_model_is_measured_once_and_again_with_another_head() -> None:
    model, passes = NetworkWithEnd(4, nn.Softmax(1)), []
    model.register_forward_hook(lambda *_: passes.append(1))
    first = find_output_reading(model, SHAPE)
    measured = len(passes)
    assert find_output_reading(model, SHAPE) is first
    assert len(passes) == measured
    model.end = nn.Identity()
    assert find_output_reading(model, SHAPE).meaning == "logits"


def test_a_model_is_left_as_it_was_found() -> None:
    model = NetworkWithEnd(4, nn.Softmax(1)).train()
    reading = measure_output(model, SHAPE)
    assert model.training
    with apply_output_reading(model, reading), pytest.raises(RuntimeError):
        model(torch.zeros(1, 5, 48, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    # the mode is off again, whatever was raised
    assert torch.overrides._get_current_function_mode() is None
