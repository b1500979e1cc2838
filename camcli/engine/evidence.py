"""The evidence that methods ask for, each a function named by what it returns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from camcli.engine.chunks import in_chunks, is_out_of_memory
from camcli.engine.hooks import Recording, logits_of, record, rerun
from camcli.engine.probe import Probe, pictures_together
from camcli.engine.targets import Best
from camcli.engine.trunk import NOTHING, Trunk, answering_from, remembered
from camcli.errors import MethodError, ModelError
from camcli.models.folding import Folding, foldable
from camcli.models.layers import GRADIENTLESS
from camcli.models.layout import from_maps, to_maps
from camcli.models.memory_format import network_input
from camcli.models.state import left_as_found, recordable
from camcli.registry import evidence
from camcli.stages import stage

# a function that builds the altered rows of a slice, and how many rows there are in all
Altered = Callable[[slice], Tensor]
Rescore = Callable[[Altered, int, int], Tensor]
# logits [m n] of one picture, by its row, or of the whole batch in order (None) -> scores [m]
Scored = Callable[[Tensor, int | None], Tensor]
# altered inputs or outputs [n ...] of one picture -> logits [n classes]
Rerun = Callable[[Tensor], Tensor]
# a picture's scores [m k], one tensor for each time that a method asked
Told = dict[int, list[Tensor]]

# to find what can be folded, and to fold it, takes as long as some 8 altered pictures, each of
# which brings an eighth back: with 64 of them all took as long as without it
FEWEST_FOLDED = 128
# names under which gradients by the head's input and by the logits stand, and no layer's
HEAD, LOGITS = "", "."
ROUNDING = 0.01  # of a tensor's length, in any precision


@evidence
def inputs(probe: Probe) -> Tensor:
    """What the network is given.  [b 3 H W]"""
    return probe.inputs


@evidence
def recording(probe: Probe) -> Recording:
    """Runs the forward pass that everything shares."""
    return record(probe.module, probe.inputs, probe.layers, graph=probe.graph, heads=probe.heads)


@evidence
def logits(probe: Probe, recording: Recording) -> Tensor:
    """The model's output in float32; raises ModelError where it is not a row a picture.  [b n]"""
    logits = recording.logits.detach()
    if len(logits) != len(probe.inputs):
        b, shape = len(probe.inputs), list(logits.shape)
        raise ModelError(
            f"The model returned {shape} for {b} inputs: a row for each is expected, [{b}, n]. One"
            " that makes a single row of several is to be given one at a time (--batch-size 1)."
        )
    return logits


@evidence
def categories(probe: Probe, logits: Tensor) -> Tensor:
    """The classes that are explained.  [b k]"""
    return (probe.choice or Best()).pick(logits)


@evidence
def references(probe: Probe, logits: Tensor, categories: Tensor, slot: int) -> Tensor | None:
    """The classes that a contrast compares with, chosen by the pictures as they are.  [b r]"""
    return probe.target.references(logits, categories[:, slot])


@evidence
def target(probe: Probe, categories: Tensor, references: Tensor | None, slot: int) -> Scored:
    """How the logits of a picture, altered or not, become the number that is explained."""

    def scored(logits: Tensor, owner: int | None) -> Tensor:
        rows = slice(None) if owner is None else [owner] * len(logits)
        compared = None if references is None else references[rows]
        return probe.target.score(logits, categories[rows, slot], compared)

    return scored


@evidence
def scores(recording: Recording, target: Scored) -> Tensor:
    """The number that is explained for each picture.  [b]"""
    with torch.enable_grad():
        return target(recording.logits, None)


@evidence
def activations(probe: Probe, layer: str, recording: Recording) -> Tensor:
    """A target layer's output as maps, in float32.  [b c h w]"""
    output = recording.outputs[layer].detach()
    return to_maps(output, probe.layout(layer, output)).float()


@evidence
def raw_gradients(probe: Probe, recording: Recording, scores: Tensor) -> dict[str, Tensor]:
    """The score's gradients at all target layers and at the head, from one backward pass.

    A layer on which the score does not depend gets zeros.  Raises MethodError where no gradient
    comes back at all.
    """
    deaf = [name for name in probe.layers if not recording.outputs[name].requires_grad]
    if deaf or not scores.requires_grad:
        raise MethodError(_no_gradient(probe, deaf or probe.layers))
    tensors = dict(recording.outputs)
    if probe.heads:
        tensors[LOGITS] = recording.logits
        if recording.head is not None and recording.head[1].requires_grad:
            tensors[HEAD] = recording.head[1]
    # one pass a category: five in a batch (is_grads_batched) were slower wherever they take time,
    # 85 ms for 75 in ViT-B/16, 173 for 124 in ResNet-50 from layer3, and at a last layer about a
    # millisecond faster: 2.8 ms for 4.0 at ResNet-50's, of a call of 100 (2026-11-28)
    # a model that checkpoints by itself runs some of its layers again here
    with stage("backward"), left_as_found(probe.module):
        found = torch.autograd.grad(
            total(scores), list(tensors.values()), retain_graph=True, allow_unused=True
        )
    gradients = dict(zip(tensors, found, strict=True))
    # what is quantised while it runs has a graph through which nothing comes
    if probe.layers and all(gradients[name] is None for name in probe.layers):
        raise MethodError(_no_gradient(probe, probe.layers))
    return {
        name: torch.zeros_like(tensors[name]) if gradient is None else gradient
        for name, gradient in gradients.items()
    }


def _no_gradient(probe: Probe, layers: Sequence[str]) -> str:
    return (
        f"No gradient comes back to {', '.join(map(repr, layers))}: what lies behind uses none of"
        " it, or passes none on (quantised weights, detach, reentrant checkpointing). Try"
        f" {_way_without(probe)}{GRADIENTLESS}, which need no gradient."
    )


def _way_without(probe: Probe) -> str:
    """Advises another layer where a gradient comes back to the input, and so to some of them."""
    module, inputs = probe.module, network_input(probe.module, probe.inputs[:1])
    with torch.enable_grad(), left_as_found(module):
        output = recordable(module)(inputs.requires_grad_().clone())
        logits = logits_of(output)
        if not logits.requires_grad:
            return ""
        try:
            (found,) = torch.autograd.grad(total(logits[0]), inputs, allow_unused=True)
        except RuntimeError:  # reentrant checkpointing lets none through
            return ""
        return "" if found is None else "another layer, or "


def total(scores: Tensor) -> Tensor:
    """Sums scores up, whose gradient by a picture is that of its own score.  [b] -> []"""
    # given the gradient of several numbers, torch checks its shape with sympy, whose import takes
    # half a second
    with torch.enable_grad():
        return scores.sum()


@evidence
def gradients(
    probe: Probe, layer: str, recording: Recording, raw_gradients: dict[str, Tensor]
) -> Tensor:
    """The score's gradients at a target layer as maps, in float32.  [b c h w]"""
    layout = probe.layout(layer, recording.outputs[layer])
    return to_maps(raw_gradients[layer], layout).float()


@dataclass(frozen=True)
class ClassHead:
    """How a layer's maps make the explained class's map: weights [b c], and a bias [b]."""

    weights: Tensor
    bias: Tensor


@evidence
def class_head(
    layer: str, recording: Recording, activations: Tensor, raw_gradients: dict[str, Tensor]
) -> ClassHead:
    """The head behind a target layer as the class's map has it, arXiv:1512.04150.

    Behind pooling its bias is no part of the map; in front of pooling its output is the map itself.
    Raises MethodError where the head is not average pooling and one linear layer, in either order.
    """
    logits, by_logits = recording.logits.detach(), raw_gradients[LOGITS].float()
    none = by_logits.new_zeros(len(by_logits))
    if _is_pooled_into(logits, activations):
        return ClassHead(by_logits, none)
    if recording.head is None or HEAD not in raw_gradients:
        raise MethodError(
            "CAM needs a head with one linear layer (or convolution of 1x1) beside average pooling,"
            " and this model's has none. Try --method gradcam."
        )
    head, given = recording.head[0], recording.head[1].detach().float()
    pooled = activations.mean((2, 3))
    if given.numel() == pooled.numel() and _apart(given.flatten(1), pooled) <= ROUNDING:
        return ClassHead(raw_gradients[HEAD].flatten(1).float(), none)
    if given.shape == activations.shape and _apart(given, activations) <= ROUNDING:
        weight = head.weight.detach().float().flatten(1)
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().float()
        maps = torch.einsum("nc,bchw->bnhw", weight, given) + bias[:, None, None]
        if _is_pooled_into(logits, maps):
            return ClassHead(by_logits @ weight, by_logits @ bias)
    raise MethodError(
        f"CAM needs a head that is average pooling followed by one linear layer, or a convolution "
        f"of 1x1 followed by average pooling; between {layer!r} and the logits there is more. Try "
        "--method gradcam."
    )


@evidence
def class_weights(class_head: ClassHead) -> Tensor:
    """What each of a layer's channels counts in the class's map.  [b c]"""
    return class_head.weights


@evidence
def class_bias(class_head: ClassHead) -> Tensor:
    """What a head in front of pooling adds to the class's map at each place; else 0.  [b]"""
    return class_head.bias


def _is_pooled_into(logits: Tensor, maps: Tensor) -> bool:
    """Tells whether logits [b n] are the mean of maps [b n h w], rectified or not."""
    if maps.shape[:2] != logits.shape:
        return False
    pooled = (maps.mean((2, 3)), maps.relu().mean((2, 3)))
    return any(_apart(found, logits) <= ROUNDING for found in pooled)


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Returns the length of the difference as a share of the wanted tensor's length."""
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


@evidence
def told() -> Told:
    """What one method at one layer has been told so far, call by call, for all categories."""
    return defaultdict(list)


@evidence
@stage("forward")
def folding(probe: Probe) -> Folding:
    """What of the model is folded while altered pictures pass, and only then."""
    return foldable(probe.module, probe.inputs[:1])


@evidence
def score(probe: Probe, told: Told, slot: int) -> Rescore:
    """Scores altered inputs [n 3 H W] of one picture, in chunks.  -> [n]

    What a method alters must not depend on the category: the passes are run once for all of them.
    """

    def passes(_: int, count: int) -> Rerun:
        # not among the parameters: few passes do not make up for what it takes
        folding = probe.get("folding") if count >= FEWEST_FOLDED else Folding(())

        def run(images: Tensor) -> Tensor:
            return folding.passing(lambda: record(probe.module, images, (), graph=False).logits)

        return run

    together = pictures_together(probe.chunk, probe.inputs.device)
    return _told(probe, told, slot, passes, together)


def _told(
    probe: Probe, told: Told, slot: int, passes: Callable[[int, int], Rerun], together: int
) -> Rescore:
    """Returns what scores altered rows for one category, with passes run for the first that asks.

    `passes` of a picture, and a number of altered rows, take these, so many together, to logits
    [n classes].
    """
    targets = [probe.get("target", slot=s) for s in range(probe.get("categories").shape[1])]
    calls: Counter[int] = Counter()

    def scored(altered: Altered, count: int, owner: int) -> Tensor:
        if calls[owner] == len(told[owner]):
            run = passes(owner, count)

            def of_all(rows: slice) -> Tensor:
                logits = run(altered(rows))
                return torch.stack([target(logits, owner) for target in targets], 1)

            told[owner].append(torch.cat(in_chunks(of_all, count, together)))
        calls[owner] += 1
        return told[owner][calls[owner] - 1][:, slot]

    return scored


@evidence
def trunk(probe: Probe, layer: str, recording: Recording) -> Callable[[int], Trunk]:
    """What stands in front of a layer, remembered for a picture of the batch, by its row.

    Nothing where reruns do not get along with it, which a dry run of unchanged outputs shows.
    """

    # one at a time: a trunk may take as much memory as a pass
    @lru_cache(1)
    def of(owner: int) -> Trunk:
        image = probe.inputs[owner : owner + 1]
        found = remembered(probe.module, image, layer, calls=recording.calls[layer])
        # what is done to it in place shows in the second of two
        stays = all(runs_alone(probe, layer, recording, owner, found) for _ in range(2))
        return found if stays else NOTHING

    return of


@evidence
def tail(probe: Probe, layer: str, recording: Recording, trunk: Callable[[int], Trunk]) -> bool:
    """Tells by a dry run whether what lies behind a layer runs on a chunk by itself (law 2)."""
    return bool(trunk(0)) or runs_alone(probe, layer, recording)


def runs_alone(
    probe: Probe, layer: str, recording: Recording, owner: int = 0, trunk: Trunk = NOTHING
) -> bool:
    """Tells whether two unchanged outputs of a layer give a picture's own logits twice.

    So they do where what lies behind it neither mixes nor counts pictures.
    """
    batch = recording.outputs[layer].detach()
    axis = probe.batch_axis(layer, batch)
    output = batch.narrow(axis, owner, 1)
    twice = output.expand([2 if i == axis else n for i, n in enumerate(output.shape)])
    wanted = recording.logits.detach()[owner : owner + 1].expand(2, -1)
    try:
        found = _behind(probe, layer, recording, owner, trunk)(twice)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        # the answer to the dry run's question: a tail that remembers the batch size cannot
        return False
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-3, atol=1e-3)


def _behind(
    probe: Probe, layer: str, recording: Recording, owner: int, trunk: Trunk
) -> Callable[[Tensor], Tensor]:
    """Returns what runs one picture with other outputs of the layer.  -> logits [n classes]"""
    image = probe.inputs[owner : owner + 1]
    known = trunk.get(probe.module.get_submodule(layer))
    # a layer that is used twice may be so inside another one, which answers for it
    calls = len(known) if known else recording.calls[layer]

    def run(output: Tensor) -> Tensor:
        with answering_from(trunk):
            return rerun(probe.module, image, layer, output, calls=calls)

    return run


@evidence
def rerunning(
    probe: Probe,
    layer: str,
    recording: Recording,
    trunk: Callable[[int], Trunk],
) -> Callable[[int], Rerun]:
    """What runs a picture, by its row, with other maps [n c h w] at the layer.

    Only what lies behind the layer runs on all of them where its tail runs by itself.
    """

    def of(owner: int) -> Rerun:
        batch = recording.outputs[layer].detach()
        layout = probe.layout(layer, batch)
        output = batch.narrow(probe.batch_axis(layer, batch), owner, 1)
        # not among the parameters: the dry run looks at the output, which may be no logits
        if probe.get("tail", layer):
            behind = _behind(probe, layer, recording, owner, trunk(owner))
            return lambda maps: behind(from_maps(maps, layout, output))

        def whole(maps: Tensor) -> Tensor:
            images = probe.inputs[owner : owner + 1].expand(len(maps), *probe.inputs.shape[1:])
            other, calls = from_maps(maps, layout, output), recording.calls[layer]
            return rerun(probe.module, images, layer, other, calls=calls)

        return whole

    return of


@evidence
def rescore(probe: Probe, rerunning: Callable[[int], Rerun], told: Told, slot: int) -> Rescore:
    """Scores one picture when the layer puts out other maps [n c h w], in chunks.  -> [n]

    As with `score`, the maps must not depend on the category.
    """
    return _told(probe, told, slot, lambda owner, _: rerunning(owner), probe.chunk)


@evidence
def relogits(probe: Probe, rerunning: Callable[[int], Rerun]) -> Rescore:
    """Finds logits of one picture when the layer puts out other maps, in chunks.  -> [n classes]

    Where no class was asked for the output is not looked at, and there are none: [n 0].
    """

    def rerun_alone(altered: Altered, count: int, owner: int) -> Tensor:
        if not probe.choice:
            return torch.zeros(count, 0, device=probe.inputs.device)
        run = rerunning(owner)
        return torch.cat(in_chunks(lambda rows: run(altered(rows)), count, probe.chunk))

    return rerun_alone
