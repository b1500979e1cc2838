"""Hands pictures to what people log a training with, each by its own call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from camcli.errors import CamvizWarning, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LoggedImage:
    """Pixels uint8 RGB [h w 3], the tag that they are found under, and what they show in words."""

    tag: str
    pixels: NDArray[np.uint8]
    caption: str


WriteImages: TypeAlias = Callable[[Iterable[LoggedImage], int | None], None]


def find_image_logger(logger: Any) -> WriteImages:
    """Finds how a logger takes pictures; raises UsageError for one that takes none.

    Takes what has `add_image` (TensorBoard's writer), a run of Weights & Biases or its module, and
    Lightning's loggers of both.
    """
    if callable(getattr(logger, "add_image", None)):
        return partial(_add_images, logger)
    if _is_of_wandb(logger):
        return partial(_log_to_run, _find_run(logger))
    inside = getattr(logger, "experiment", None)
    if callable(getattr(inside, "add_image", None)):
        return partial(_add_images, inside)
    if _is_of_wandb(inside):
        # Lightning's logger says which of Lightning's steps it is
        return lambda images, step: logger.log_metrics(_collect_for_wandb(images), step)
    raise UsageError(
        f"A {type(logger).__name__} takes no pictures: give a SummaryWriter of TensorBoard (or "
        "another object with its add_image), a run of Weights & Biases, or Lightning's logger of "
        "one of them."
    )


def _add_images(writer: Any, images: Iterable[LoggedImage], step: int | None) -> None:
    for image in images:
        writer.add_image(image.tag, image.pixels, step, dataformats="HWC")


def _is_of_wandb(logger: Any) -> bool:
    """Tells whether this is a run of Weights & Biases, or its module, which logs to its run."""
    named = getattr(logger, "__name__", "") or type(logger).__module__
    return named.partition(".")[0] == "wandb" and hasattr(logger, "log")


def _find_run(logger: Any) -> Any:
    run = getattr(logger, "run", logger) if hasattr(logger, "init") else logger
    if run is None:
        raise UsageError("Weights & Biases has no run yet: call wandb.init() first.")
    return run


def _log_to_run(run: Any, images: Iterable[LoggedImage], step: int | None) -> None:
    collected = _collect_for_wandb(images)
    if step is not None and step < run.step:
        message = (
            f"Weights & Biases is at step {run.step} and would drop pictures of step {step}, so "
            "they are logged at its own step: leave step out, or log everything with steps of your "
            "own."
        )
        warnings.warn(message, CamvizWarning, stacklevel=4)
        step = None
    run.log(collected, step=step)


def _collect_for_wandb(images: Iterable[LoggedImage]) -> dict[str, Any]:
    import wandb

    # in one call, since each call is a step
    return {image.tag: wandb.Image(image.pixels, caption=image.caption) for image in images}
