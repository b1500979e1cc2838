"""Evidence of altered passes: the scores of other pictures, or of other layer outputs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from camcli.engine.batch_context import BatchContext, choose_picture_chunk
from camcli.engine.device.oom_chunks import is_out_of_memory, run_in_chunks
from camcli.engine.evidence.forward_backward import Altered
from camcli.engine.hooks import Recording, record, rerun
from camcli.engine.prefix_cache import EMPTY_PREFIX, Prefix, record_prefix, replay_prefix
from camcli.models.acceleration import ConvBnFolding, find_foldable
from camcli.models.inspection.layout import convert_from_maps
from camcli.registry import evidence
from camcli.utils.profiling import stage

Rescore = Callable[[Altered, int, int], Tensor]
# altered inputs or outputs [n ...] of one picture -> logits [n classes]
Rerun = Callable[[Tensor], Tensor]
# a picture's scores [m k], one tensor for each time that a method asked
ScoreCache = dict[int, list[Tensor]]

# folding takes time, which fewer altered pictures do not bring back (camviz help speed)
FEWEST_FOLDED = 128


@evidence
def score_cache() -> ScoreCache:
    """The scores that one method at one layer has asked for so far, call by call."""
    return defaultdict(list)


@evidence
@stage("forward")
def conv_bn_folding(context: BatchContext) -> ConvBnFolding:
    """The convolutions that are folded while altered pictures pass, and only then."""
    return find_foldable(context.module, context.inputs[:1])


@evidence
def score(context: BatchContext, score_cache: ScoreCache, slot: int) -> Rescore:
    """Scores altered inputs [n 3 H W] of one picture, in chunks.  -> [n]

    What a method alters must not depend on the category: the passes are run once for all of them.
    """

    def make_rerun(_: int, count: int) -> Rerun:
        # no parameter of this evidence: for few passes it is not computed at all
        folding = context.get("conv_bn_folding") if count >= FEWEST_FOLDED else ConvBnFolding(())

        def run(images: Tensor) -> Tensor:
            return folding.run_folded(
                lambda: record(context.module, images, (), graph=False).logits
            )

        return run

    chunk = choose_picture_chunk(context.chunk, context.inputs.device)
    return _score_once(context, score_cache, slot, make_rerun, chunk)


def _score_once(
    context: BatchContext,
    cache: ScoreCache,
    slot: int,
    make_rerun: Callable[[int, int], Rerun],
    chunk: int,
) -> Rescore:
    """Returns a function that scores altered rows for one category.

    The passes run for the first category that asks, and serve all.  `make_rerun` takes a picture's
    row and the number of altered ones, and returns what runs them, `chunk` at a time.
    """
    targets = [context.get("target", slot=s) for s in range(context.get("categories").shape[1])]
    calls: Counter[int] = Counter()

    def compute_scores(altered: Altered, count: int, owner: int) -> Tensor:
        if calls[owner] == len(cache[owner]):
            run = make_rerun(owner, count)

            def score_all(rows: slice) -> Tensor:
                logits = run(altered(rows))
                return torch.stack([target(logits, owner) for target in targets], 1)

            cache[owner].append(torch.cat(run_in_chunks(score_all, count, chunk)))
        calls[owner] += 1
        return cache[owner][calls[owner] - 1][:, slot]

    return compute_scores


@evidence
def prefix_by_row(
    context: BatchContext, layer: str, recording: Recording
) -> Callable[[int], Prefix]:
    """The outputs in front of a layer for a picture of the batch, by its row.

    Empty if reruns with them give other logits, which a dry run of unchanged outputs shows.
    """

    # one at a time: a prefix may take as much memory as a pass
    @lru_cache(1)
    def for_owner(owner: int) -> Prefix:
        image = context.inputs[owner : owner + 1]
        prefix = record_prefix(context.module, image, layer, calls=recording.calls[layer])
        # changes in place show in the second of two runs
        stays = all(can_run_tail(context, layer, recording, owner, prefix) for _ in range(2))
        return prefix if stays else EMPTY_PREFIX

    return for_owner


@evidence
def is_tail_separable(
    context: BatchContext, layer: str, recording: Recording, prefix_by_row: Callable[[int], Prefix]
) -> bool:
    """Tells by a dry run whether what lies behind a layer runs on a chunk by itself (law 2)."""
    return bool(prefix_by_row(0)) or can_run_tail(context, layer, recording)


def can_run_tail(
    context: BatchContext,
    layer: str,
    recording: Recording,
    owner: int = 0,
    prefix: Prefix = EMPTY_PREFIX,
) -> bool:
    """Tells whether two unchanged outputs of a layer give a picture's own logits twice.

    They do so if the tail behind the layer neither mixes nor counts pictures.
    """
    outputs = recording.outputs[layer].detach()
    axis = context.batch_axis(layer, outputs)
    output = outputs.narrow(axis, owner, 1)
    twice = output.expand([2 if i == axis else n for i, n in enumerate(output.shape)])
    expected = recording.logits.detach()[owner : owner + 1].expand(2, -1)
    try:
        logits = _make_tail(context, layer, recording, owner, prefix)(twice)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        # a tail that remembers the batch size cannot run alone
        return False
    return logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-3, atol=1e-3)


def _make_tail(
    context: BatchContext, layer: str, recording: Recording, owner: int, prefix: Prefix
) -> Callable[[Tensor], Tensor]:
    """Returns a function that reruns one picture with other outputs.  -> logits [n classes]"""
    image = context.inputs[owner : owner + 1]
    known = prefix.get(context.module.get_submodule(layer))
    # a layer may be called twice inside another one whose output is replayed
    calls = len(known) if known else recording.calls[layer]

    def run(output: Tensor) -> Tensor:
        with replay_prefix(prefix):
            return rerun(context.module, image, layer, output, calls=calls)

    return run


@evidence
def rerun_by_row(
    context: BatchContext,
    layer: str,
    recording: Recording,
    prefix_by_row: Callable[[int], Prefix],
) -> Callable[[int], Rerun]:
    """A function that runs a picture, by its row, with other maps [n c h w] at the layer.

    If the tail can run by itself, only the tail runs on all of the maps.
    """

    def for_owner(owner: int) -> Rerun:
        outputs = recording.outputs[layer].detach()
        layout = context.layout(layer, outputs)
        output = outputs.narrow(context.batch_axis(layer, outputs), owner, 1)
        # no parameter of this evidence: its dry run reads the output, which may be no logits
        if context.get("is_tail_separable", layer):
            run_tail = _make_tail(context, layer, recording, owner, prefix_by_row(owner))
            return lambda maps: run_tail(convert_from_maps(maps, layout, output))

        def run_whole(maps: Tensor) -> Tensor:
            images = context.inputs[owner : owner + 1].expand(len(maps), *context.inputs.shape[1:])
            other, calls = convert_from_maps(maps, layout, output), recording.calls[layer]
            return rerun(context.module, images, layer, other, calls=calls)

        return run_whole

    return for_owner


@evidence
def rescore(
    context: BatchContext, rerun_by_row: Callable[[int], Rerun], score_cache: ScoreCache, slot: int
) -> Rescore:
    """Scores one picture when the layer puts out other maps [n c h w], in chunks.  -> [n]

    As with `score`, the maps must not depend on the category.
    """
    return _score_once(
        context, score_cache, slot, lambda owner, _: rerun_by_row(owner), context.chunk
    )


@evidence
def recompute_logits(context: BatchContext, rerun_by_row: Callable[[int], Rerun]) -> Rescore:
    """Finds logits of one picture when the layer puts out other maps, in chunks.  -> [n classes]

    If no class was asked for, the output is not read, and there are no logits: [n 0].
    """

    def rerun_alone(altered: Altered, count: int, owner: int) -> Tensor:
        if not context.choice:
            return torch.zeros(count, 0, device=context.inputs.device)
        run = rerun_by_row(owner)
        return torch.cat(run_in_chunks(lambda rows: run(altered(rows)), count, context.chunk))

    return rerun_alone
