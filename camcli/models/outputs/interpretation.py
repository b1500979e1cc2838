"""Measures how a model's output is to be read, or takes a declaration of it; passes apply it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.errors import ModelError, UsageError
from camcli.models.outputs.final_activation import (
    ENDS,
    End,
    FinalActivation,
    PreActivation,
    apply_end,
)
from camcli.models.outputs.likeness import Comparison, apply_comparison
from camcli.models.outputs.logits import OutputKey, describe_output, select_output
from camcli.models.state import (
    ModelCache,
    NestedCall,
    in_this_thread,
    locks_model,
    preserve_state,
    unwrap,
)
from camcli.records import Outputs

# what makes probabilities of logits: over all classes, or of each by itself
Link = Literal["softmax", "sigmoid"]

SEED = 0
ONE_CLASS: End = "class of a softmax"
# of the noise that a model is measured on; what is a probability stays one on strong noise, too
STRENGTHS = (1.0, 4.0, 2.0)
STRONG = (0.0, 0.3, 10.0, 100.0, 1000.0)
# some keep their probabilities away from 0 and 1 by so much
TOLERANCE = 0.01


@dataclass(frozen=True)
class OutputReading:
    """How a model's output becomes rows of numbers [b n] to be explained.

    `end` is the softmax or sigmoid that they are taken in front of, `inverse` the one that is
    undone where they cannot be; `width` is n where it was measured, and `first_axis` tells whether
    the rows come first, as they should; `mixes` whether one picture's row looks at others, and
    `is_alone` that the model takes one picture at a time.  With a `comparison` the model
    embeds, and the numbers say how alike that is to each reference.
    """

    key: OutputKey | None = None
    meaning: Outputs = "logits"
    link: Link = "softmax"
    end: End | None = None
    inverse: Link | None = None
    width: int | None = None
    first_axis: bool = True
    mixes: bool = False
    is_alone: bool = False
    is_declared: bool = False
    comparison: Comparison | None = None

    @property
    def is_value(self) -> bool:
        """Whether the numbers are no classes'."""
        return self.meaning == "value"

    @property
    def note(self) -> str:
        """What is to be said once of outputs that are no plain logits, and that nobody declared."""
        mixing = (
            "what it says of a picture depends on its neighbours in the batch: give it one at a "
            "time (--batch-size 1)"
        )
        notes = [self._of_meaning, mixing if self.mixes else ""]
        return "; ".join(note for note in notes if note)

    @property
    def _of_meaning(self) -> str:
        if self.is_declared:
            return ""
        if self.is_value:
            return (
                "its one output is taken for a value, and no class: --outputs logits says that it "
                "is the logit of a yes, --outputs probabilities that it is the probability"
            )
        what = "probabilities"
        if self.meaning == "independent":
            what = "probabilities of independent classes"
        elif self.end in ("log-softmax", "log-sigmoid"):
            what = "logarithms of probabilities"
        if self.end:
            return (
                f"its outputs are {what} (it ends in a {self.end}), and the numbers in front are "
                "explained; --outputs says otherwise"
            )
        if self.inverse:
            undone = "logarithms" if self.inverse == "softmax" else "logits"
            return (
                f"its outputs lie where {what} do, and their {undone} are explained, for what is in"
                " front of them cannot be seen; --outputs says otherwise"
            )
        return ""

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Returns the logarithm of each class's probability.  [b n] -> [b n], [b 1] -> [b 2]"""
        return compute_log_probabilities(logits, self.link)

    def rows_of(self, tensor: Tensor) -> Tensor:
        """Lays an output [...] out as rows [b n]; raises ModelError for one of another length."""
        n = self.width
        if n is None or (self.first_axis and tuple(tensor.shape[1:]) == (n,)):
            return tensor
        if tensor.numel() % n:
            raise ModelError(
                f"The model returned {describe_output(tensor)}, and rows of {n} when it was"
                " measured."
            )
        return tensor.reshape(-1, n) if self.first_axis else tensor.reshape(n, -1).mT


def compute_log_probabilities(logits: Tensor, link: Link = "softmax") -> Tensor:
    """Returns the logarithm of each class's probability: of a single logit, of a no and a yes.

    [b n] -> [b n], [b 1] -> [b 2]
    """
    if logits.shape[1] == 1:
        return F.logsigmoid(torch.cat([-logits, logits], 1))
    return logits.log_softmax(1) if link == "softmax" else F.logsigmoid(logits)


@contextmanager
def apply_output_reading(module: nn.Module, reading: OutputReading) -> Iterator[None]:
    """Lets a model return, in its block, the part of its output that a reading says."""
    if reading == OutputReading():
        yield
        return
    if reading.comparison:
        with apply_comparison(unwrap(module), reading.comparison, reading.key):
            yield
        return
    watch = FinalActivation() if reading.end else None
    inner, watching = unwrap(module), ExitStack()

    def begin(*_: Any) -> None:
        if watch:
            watching.enter_context(watch)

    def end(*_: Any) -> None:
        watching.close()

    def read(_: nn.Module, __: Any, output: Any) -> Any:
        return _read_part(select_output(output, reading.key), watch, reading)

    with (
        inner.register_forward_pre_hook(in_this_thread(begin)),
        # also where the model raises
        inner.register_forward_hook(in_this_thread(end), always_call=True),
        inner.register_forward_hook(in_this_thread(read)),
    ):
        yield


def _read_part(part: Any, watch: FinalActivation | None, reading: OutputReading) -> Any:
    if not isinstance(part, Tensor):
        return part
    pre_activation = watch.find_source(part) if watch else None
    if pre_activation and pre_activation.odds and reading.end == ONE_CLASS:
        return reading.rows_of(pre_activation.odds())
    if pre_activation and pre_activation.step == reading.end:
        return reading.rows_of(pre_activation.numbers)
    undone = reading.inverse or (_find_link(reading.end) if reading.end else None)
    if undone and reading.end not in ("log-softmax", "log-sigmoid"):
        part = _invert_link(part, undone)
    return reading.rows_of(part)


def _find_link(end: End) -> Link:
    return "softmax" if end in ("softmax", "log-softmax") else "sigmoid"


def _invert_link(probabilities: Tensor, link: Link) -> Tensor:
    """Returns numbers that give these probabilities: logarithms, or logits."""
    p = probabilities.float()
    least = torch.finfo(p.dtype).tiny
    logarithm = p.clamp(min=least).log()
    return logarithm if link == "softmax" else logarithm - (1 - p).clamp(min=least).log()


_known: ModelCache[OutputReading] = ModelCache()


@locks_model
def find_output_reading(
    module: nn.Module,
    shape: tuple[int, int, int],
    key: OutputKey | None = None,
    outputs: Outputs | None = None,
    others: Hashable = None,
) -> OutputReading:
    """Returns how a model's output is read for inputs (channels, H, W), measured only once.

    `key` says where the logits are, `outputs` what they mean, `others` what inputs stand beside.
    """
    known, key_of_reading = _known.of(module), (shape, key, outputs, others)
    if key_of_reading not in known:
        known[key_of_reading] = measure_output(module, shape, key, outputs)
    return known[key_of_reading]


_alone: ModelCache[bool] = ModelCache()


@locks_model
def takes_one_alone(module: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Tells whether a model takes a picture (channels, H, W), and no two; measured only once.

    That is for methods that do not look at the output, which may be anything.
    """
    known = _alone.of(module)
    if shape not in known:
        with torch.inference_mode(False), torch.no_grad(), preserve_state(unwrap(module)):
            passes = _NoisePasses(unwrap(module), shape, None)
            known[shape] = not passes.are_taken(2) and passes.are_taken(1)
    return known[shape]


def declare_reading(outputs: Outputs, key: OutputKey | None = None) -> OutputReading:
    """Returns the reading of outputs of which somebody says what they mean, logits in front."""
    check_outputs_meaning(outputs)
    link: Link = "sigmoid" if outputs == "independent" else "softmax"
    return OutputReading(key, outputs, link, is_declared=True)


def read_as_logit(reading: OutputReading) -> OutputReading:
    """Reads a single number as the logit of a no and a yes, because somebody asks for classes."""
    return replace(reading, meaning="logits", is_declared=True)


def check_outputs_meaning(outputs: str | None) -> None:
    """Raises UsageError for a meaning that there is not."""
    if outputs is not None and outputs not in get_args(Outputs):
        raise UsageError(f"Outputs are one of {', '.join(get_args(Outputs))}, not {outputs!r}.")


@dataclass(frozen=True)
class _ObservedRows:
    """Rows that a model put out [b n], those of strong noise, and the end that they come out of."""

    rows: Tensor
    end: End | None = None
    strong: Tensor | None = None
    is_plain: bool = False

    @property
    def n(self) -> int:
        return self.rows.shape[1]

    @property
    def all(self) -> Tensor:
        return self.rows if self.strong is None else torch.cat([self.rows, self.strong])

    @property
    def sums_to_one(self) -> bool:
        return bool(((self.all.sum(1) - 1).abs() < TOLERANCE).all())

    @property
    def are_percent(self) -> bool:
        """Whether the numbers of a picture make up a hundred, and none is negative."""
        whole = ((self.all.sum(1) - 100).abs() < 100 * TOLERANCE).all()
        return self.n > 1 and bool(whole & (self.all >= 0).all())

    @property
    def is_within(self) -> bool:
        return bool(((self.all >= 0) & (self.all <= 1 + TOLERANCE)).all())

    @property
    def is_between(self) -> bool:
        """Whether nothing lies on the edges of 0 to 1, as behind a ReLU or a clamp."""
        return self.is_within and bool(((self.rows > 0) & (self.rows < 1)).all())


@locks_model
def measure_output(
    module: nn.Module,
    shape: tuple[int, int, int],
    key: OutputKey | None = None,
    outputs: Outputs | None = None,
) -> OutputReading:
    """Measures how the output of a model is read, on noise (channels, H, W).

    `key` says where the logits are, `outputs` what they mean.  A softmax or sigmoid is found as the
    operation whose result is the output; where there is none, the range of the outputs on several
    inputs decides.  Raises ModelError where rows are not the batch's, or a declaration is wrong.
    """
    check_outputs_meaning(outputs)
    unread = declare_reading(outputs, key) if outputs else OutputReading(key)
    with torch.inference_mode(False), torch.no_grad(), preserve_state(unwrap(module)):
        passes = _NoisePasses(unwrap(module), shape, key)
        first = passes.try_run(STRENGTHS[:1])
        if first is None or not _is_a_row(first[0]):
            return unread
        reading, observed = _compare_rows(passes, *first, unread)
        looks_so = (
            not observed.end
            and not observed.is_plain
            and (observed.is_within or observed.are_percent)
        )
        if looks_so and outputs not in ("logits", "value"):
            # what looks like probabilities is looked at again
            strong = list(passes.rows(STRONG, reading))
            observed = replace(observed, strong=torch.cat(strong) if strong else None)
    return _interpret_rows(observed, reading, outputs)


def _compare_rows(
    passes: _NoisePasses, alone: Tensor, front: PreActivation | None, unread: OutputReading
) -> tuple[OutputReading, _ObservedRows]:
    """Compares what came of one picture with what comes of several: where their rows are.

    Raises ModelError where there are neither as many rows nor a single one.
    """
    n = alone.numel()
    # another number than that of the columns, so that rows are told from them
    b = 3 if n == 2 else 2
    reading = replace(unread, width=n)
    together = passes.try_run(STRENGTHS[:b])
    if together is None:
        reading = replace(reading, is_alone=True)
    # a model may make one row of several
    if together is None or not isinstance(together[0], Tensor) or together[0].numel() == n:
        return reading, _collect_rows(reading.rows_of(alone), front, reading)
    rows, front = together
    if rows.numel() != b * n:
        raise ModelError(
            f"The model returned {describe_output(alone)} for one input and {describe_output(rows)}"
            f" for {b}: one row of numbers for each is expected, [{b}, n]."
        )
    reading = replace(reading, first_axis=_has_rows_first(rows, n))
    observed = _collect_rows(reading.rows_of(rows), front, reading)
    if _is_different(observed.rows[0], alone):
        again = passes.try_run(STRENGTHS[:1])
        # what is drawn at random differs from itself
        is_sure = again is not None and not _is_different(again[0], alone)
        reading = replace(reading, mixes=is_sure)
    return reading, observed


@dataclass(frozen=True)
class _NoisePasses:
    """Passes of noise through a model, a picture for each strength."""

    module: nn.Module
    shape: tuple[int, int, int]
    key: OutputKey | None

    def run(self, strengths: Sequence[float]) -> tuple[Any, PreActivation | None]:
        """Returns the output's part that counts, and what stood in front of it."""
        watch, noise = FinalActivation(), self._noise(strengths)
        with watch:
            output = self.module(noise)
        part = select_output(output, self.key)
        plain = PreActivation("plain", part) if watch.is_plain(part) else None
        return part, watch.find_source(part) or plain

    def try_run(self, strengths: Sequence[float]) -> tuple[Any, PreActivation | None] | None:
        """Does the same, where the model takes such a batch."""
        try:
            return self.run(strengths)
        except NestedCall:  # nothing is wrong with the model
            raise
        except Exception:  # every model refuses in its own way; the passes that count say so again
            return None

    def are_taken(self, count: int) -> bool:
        """Tells whether the model takes so many pictures together."""
        try:
            self.module(self._noise(STRENGTHS[:count]))
        except NestedCall:  # as in `try_run`
            raise
        except Exception:  # likewise
            return False
        return True

    def rows(self, strengths: Sequence[float], reading: OutputReading) -> Iterator[Tensor]:
        """Yields the finite rows of single passes.  [1 n]"""
        for strength in strengths:
            row = reading.rows_of(self.run([strength])[0]).float()
            if row.isfinite().all():
                yield row

    def _noise(self, strengths: Sequence[float]) -> Tensor:
        like = next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(0))
        draw = torch.Generator().manual_seed(SEED)
        noise = [strength * torch.randn(self.shape, generator=draw) for strength in strengths]
        return torch.stack(noise).to(like.device, like.dtype)


def _is_a_row(output: Any) -> bool:
    """Tells whether what came of one picture is a number, or a row of them."""
    if not isinstance(output, Tensor) or not output.is_floating_point() or not output.numel():
        return False
    return sum(edge > 1 for edge in output.shape) <= 1


def _has_rows_first(output: Tensor, n: int) -> bool:
    return [edge for edge in output.shape if edge > 1][-1:] == [n] or n == 1


def _is_different(actual: Tensor, expected: Tensor) -> bool:
    actual, expected = actual.float().flatten(), expected.float().flatten()
    size = expected.abs().max().clamp(min=TOLERANCE)
    return bool((actual - expected).abs().max() > TOLERANCE * size)


def _collect_rows(
    rows: Tensor, front: PreActivation | None, reading: OutputReading
) -> _ObservedRows:
    rows = rows.float()
    end = next((end for end in ENDS.values() if front and front.step == end), None)
    if end is None or front is None or front.numbers.numel() != rows.numel():
        return _ObservedRows(rows, is_plain=front is not None and front.step == "plain")
    expected = apply_end(reading.rows_of(front.numbers).float(), end)
    if _holds_for(rows, expected):
        return _ObservedRows(rows, end)
    if front.odds and _holds_for(rows, reading.rows_of(front.odds()).float().sigmoid()):
        return _ObservedRows(rows, ONE_CLASS)
    return _ObservedRows(rows)


def _holds_for(rows: Tensor, expected: Tensor) -> bool:
    return torch.allclose(rows, expected, rtol=TOLERANCE, atol=TOLERANCE)


def _interpret_rows(
    observed: _ObservedRows, reading: OutputReading, outputs: Outputs | None
) -> OutputReading:
    """Says what rows mean that were seen, or makes what is declared of them."""
    meaning = outputs or _find_meaning(observed)
    link: Link = "sigmoid" if meaning == "independent" else "softmax"
    reading = replace(reading, meaning=meaning, link=link)
    if meaning == "value" or outputs == "logits":
        return reading
    if outputs == "probabilities":
        _check_probabilities(observed)
    if observed.end == "hard-sigmoid":
        # its numbers are no logits, and its probabilities have some
        return replace(reading, inverse="sigmoid", link="sigmoid")
    if observed.end and not (meaning == "independent" and _find_link(observed.end) == "softmax"):
        return replace(reading, end=observed.end, link=_find_link(observed.end))
    if meaning == "independent":
        are_probabilities = observed.is_between and not observed.is_plain
        return replace(reading, inverse="sigmoid") if are_probabilities else reading
    if meaning == "probabilities":
        return replace(reading, inverse="softmax" if observed.n > 1 else "sigmoid")
    return reading


def _find_meaning(observed: _ObservedRows) -> Outputs:
    if observed.end == "softmax" and observed.n == 1:
        raise ModelError(
            "The model ends in a softmax over a single output, which is 1 whatever the picture: "
            "let it end in a sigmoid, or return what stands in front."
        )
    if observed.end in ("log-softmax", "log-sigmoid"):
        return "logits"
    if observed.n == 1:
        # a value may lie in 0..1 once, and not whatever it is given
        is_bounded = observed.strong is not None and observed.is_between
        return "probabilities" if observed.end or is_bounded else "value"
    if not observed.end and not observed.is_plain and observed.are_percent:
        return "probabilities"
    if observed.end or (observed.is_within and not observed.is_plain):
        if observed.sums_to_one:
            return "probabilities"
        if observed.end or observed.is_between:
            return "independent"
    return "logits"


def _check_probabilities(observed: _ObservedRows) -> None:
    if observed.are_percent:
        return
    least, most = float(observed.all.min()), float(observed.all.max())
    if not observed.is_within:
        raise ModelError(
            f"The model's outputs are said to be probabilities, and go from {least:.3g} to "
            f"{most:.3g}: leave --outputs out, or give logits, independent or value."
        )
    if observed.n > 1 and not observed.sums_to_one:
        raise ModelError(
            "The model's outputs are said to be probabilities, and those of a picture do not sum to"
            " 1: give --outputs independent for classes of which several may be there."
        )
