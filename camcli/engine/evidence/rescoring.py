"""Evidence of altered passes: the scores of altered pictures, or of altered layer outputs."""

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
# a picture's scores [m k], one tensor for each call of a method
ScoreCache = dict[int, list[Tensor]]

# for fewer altered pictures folding costs more time than it saves (camviz help speed)
FEWEST_FOLDED = 128


@evidence
def score_cache() -> ScoreCache:
    """The scores that one method at one layer has computed so far, call by call."""
    return defaultdict(list)


@evidence
@stage("forward")
def conv_bn_folding(context: BatchContext) -> ConvBnFolding:
    """The convolutions that are folded only while altered pictures pass."""
    return find_foldable(context.module, context.inputs[:1])


@evidence
def score(context: BatchContext, score_cache: ScoreCache, slot: int) -> Rescore:
    """Scores altered inputs [n 3 H W] of one picture, in chunks.  -> [n]

    The altered inputs must not depend on the category, since they pass once for all categories.
    """

    def make_rerun(_: int, count: int) -> Rerun:
        # no parameter of this function, so that it is not computed for few passes
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

    The passes run for the first category that asks, and their scores serve all categories.
    `make_rerun` takes a picture's row and the number of its altered copies, and returns a function
    that runs `chunk` of them at a time.
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
    """A function that returns the outputs in front of a layer for one picture, by its row.

    They are empty if a dry run shows that a rerun with them gives other logits.
    """

    # only one is kept, since a prefix may take as much memory as a pass
    @lru_cache(1)
    def for_owner(owner: int) -> Prefix:
        image = context.inputs[owner : owner + 1]
        prefix = record_prefix(context.module, image, layer, calls=recording.calls[layer])
        # in-place changes show only in the second run
        stays = all(can_run_tail(context, layer, recording, owner, prefix) for _ in range(2))
        return prefix if stays else EMPTY_PREFIX

    return for_owner


@evidence
def is_tail_separable(
    context: BatchContext, layer: str, recording: Recording, prefix_by_row: Callable[[int], Prefix]
) -> bool:
    """Tells by a dry run whether the layers behind a layer can run alone on a chunk (law 2)."""
    return bool(prefix_by_row(0)) or can_run_tail(context, layer, recording)


def can_run_tail(
    context: BatchContext,
    layer: str,
    recording: Recording,
    owner: int = 0,
    prefix: Prefix = EMPTY_PREFIX,
) -> bool:
    """Tells whether a chunk of two unchanged layer outputs gives the picture's own logits twice.

    It does if the tail behind the layer neither mixes nor counts pictures.
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
        # a tail that has stored the batch size cannot run alone
        return False
    return logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-3, atol=1e-3)


def _make_tail(
    context: BatchContext, layer: str, recording: Recording, owner: int, prefix: Prefix
) -> Callable[[Tensor], Tensor]:
    """Returns a function that reruns one picture with other layer outputs.  -> [n classes]"""
    image = context.inputs[owner : owner + 1]
    known = prefix.get(context.module.get_submodule(layer))
    # a layer may be called twice, once inside another layer whose output is replayed
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
    """A function that reruns a picture, by its row, with other maps [n c h w] at the layer.

    If the tail can run alone, only the tail runs for each of the maps.
    """

    def for_owner(owner: int) -> Rerun:
        outputs = recording.outputs[layer].detach()
        layout = context.layout(layer, outputs)
        output = outputs.narrow(context.batch_axis(layer, outputs), owner, 1)
        # no parameter of this function: its dry run reads logits, which the output may not have
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
    """Scores one picture with other maps [n c h w] at the layer, in chunks.  -> [n]

    As with `score`, the maps must not depend on the category.
    """
    return _score_once(
        context, score_cache, slot, lambda owner, _: rerun_by_row(owner), context.chunk
    )


@evidence
def recompute_logits(context: BatchContext, rerun_by_row: Callable[[int], Rerun]) -> Rescore:
    """Computes a picture's logits with other maps at the layer, in chunks.  -> [n classes]

    If no class was asked for, the output is not read, and the result is [n 0].
    """

    def rerun_alone(altered: Altered, count: int, owner: int) -> Tensor:
        if not context.choice:
            return torch.zeros(count, 0, device=context.inputs.device)
        run = rerun_by_row(owner)
        return torch.cat(run_in_chunks(lambda rows: run(altered(rows)), count, context.chunk))

    return rerun_alone
