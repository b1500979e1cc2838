"""The stages of a picture from its file to its overlay, in order, with what each one returns.

    open_file      Source             -> OpenPicture        read, and its size known
    decode         OpenPicture        -> Picture            upright RGB pixels
    prepare        Picture            -> PreparedPicture    what the network sees of it
    explain_batch  PreparedPictures   -> Explanations       one pass; a list for each picture
    draw_picture   Explanations       -> Outcome            files written, a record for each heatmap
    draw_frame     Explanations       -> DrawnFrame         the same, of a frame of a video
    add_to_video   DrawnFrame         -> Outcome            written into the video of each heatmap
    record         Outcome            -> Outcome            lines in the manifest

Each stage does one thing and raises an error if it cannot.  Threads, order and failures are handled
in `flow`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camcli.engine.answer_request import answer_request
from camcli.engine.device.device_timer import DeviceTimer
from camcli.engine.explain_request import ExplainResult
from camcli.engine.targets import CategoryChoice
from camcli.media.network_input import make_view as view_of
from camcli.media.pictures.read import OpenPicture, open_picture
from camcli.models.state import call_on_model
from camcli.pipeline.batch_results import BatchResults
from camcli.pipeline.explanation import Explanation
from camcli.pipeline.plan import Plan
from camcli.pipeline.run_state import RunState
from camcli.pipeline.work_items import Film
from camcli.pipeline.writing.output_writer import OutputWriter, find_source
from camcli.pipeline.writing.video_outputs import DrawnFrame, FrameWriter, VideoOutputs
from camcli.records import Outcome, Picture, Source, View
from camcli.utils.profiling import stage


@dataclass(frozen=True)
class PreparedPicture:
    """A picture, what the network sees of it, and the category that a list names for it."""

    picture: Picture
    view: View
    category: int | None = None


@stage("decode")
def open_file(source: Source, max_pixels: int) -> OpenPicture:
    """Reads a picture file, but decodes only its size; raises ImageError."""
    return open_picture(source, max_pixels)


@stage("decode")
def decode(opened: OpenPicture) -> Picture:
    """Decodes a picture's pixels; raises ImageError."""
    return opened.decode()


@stage("decode")
def prepare(picture: Picture, plan: Plan) -> PreparedPicture:
    """Prepares a picture for the network; raises UnknownName for an unknown category of a list."""
    category = plan.find_named_category(picture.source.category if picture.source else "")
    return PreparedPicture(picture, view_of(picture, plan.classifier.preprocessing), category)


def explain_batch(
    batch: Sequence[PreparedPicture], plan: Plan, choice: CategoryChoice | None = None
) -> Iterator[list[Explanation]]:
    """Explains pictures in one pass, which begins at once; yields a list for each picture.

    The classes are those of the plan, or of a `choice`.  It does not wait for a GPU until the first
    list is asked for.
    """
    inputs, categories = [p.view.inputs for p in batch], [p.category for p in batch]
    result, clock = run_pass(inputs, categories, plan, choice)
    return _explain_pictures(batch, result, clock, plan)


def run_pass(
    views: Sequence[Tensor],
    categories: Sequence[int | None],
    plan: Plan,
    choice: CategoryChoice | None = None,
) -> tuple[ExplainResult, DeviceTimer]:
    """Explains views [3 H W] in one pass; a GPU may still be at it.

    `categories` are those that a list names for the pictures.
    """
    inputs = _stack(views, plan.classifier.device)
    choice = choice or plan.choice(categories)
    clock = DeviceTimer(plan.classifier.device)
    module = plan.classifier.module
    # other threads may use the model between batches
    with call_on_model(module):
        result = answer_request(module, inputs, choice, plan.request, plan.prepack_cache)
    clock.stop()
    return result, clock


def fetch(result: ExplainResult, plan: Plan) -> ExplainResult:
    """Returns a pass's result in main memory; waits for a GPU."""
    return result if plan.classifier.device.type == "cpu" else result.to_cpu()


def draw_picture(explanations: Sequence[Explanation], writer: OutputWriter) -> Outcome:
    """Draws a picture's heatmaps and writes their files; raises OutputError."""
    records = tuple(writer.write(explanations))
    source = find_source(explanations[0].picture)
    # here, since this may be beside the model
    return Outcome(source, records, lines=writer.state.encode(source, records))


def draw_frame(explanations: Sequence[Explanation], writer: OutputWriter) -> DrawnFrame:
    """Draws a frame's heatmaps and writes the frame's own files; raises OutputError."""
    return FrameWriter(writer).draw(explanations)


def add_to_video(frame: DrawnFrame, film: Film, videos: VideoOutputs) -> Outcome:
    """Writes a frame's overlays into the videos of its film; raises OutputError."""
    return videos.add(frame, film)


def record(outcome: Outcome, state: RunState) -> Outcome:
    """Writes a picture's outcome into the manifest; raises OutputError."""
    return state.add(outcome)


def _explain_pictures(
    batch: Sequence[PreparedPicture], result: ExplainResult, clock: DeviceTimer, plan: Plan
) -> Iterator[list[Explanation]]:
    results = BatchResults(fetch(result, plan), plan, clock.seconds / len(batch))
    for row, p in enumerate(batch):
        yield list(results.of(p.picture, p.view, row))


def _stack(inputs: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stacks inputs [3 H W] on the device.  -> [b 3 H W]"""
    # channels last, the format of views and networks, so that nothing is rearranged
    views = [one.permute(1, 2, 0) for one in inputs]
    if device.type != "cuda":
        return torch.stack(views).permute(0, 3, 1, 2)
    # the GPU copies from pinned memory by itself while the CPU goes on
    like = views[0]
    pinned = torch.empty(len(views), *like.shape, dtype=like.dtype, pin_memory=True)
    together = torch.stack(views, out=pinned).permute(0, 3, 1, 2)
    return together.to(device, non_blocking=True)
