"""Logs explanations as pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from torch import distributed

from camcli.keywords import check_keywords
from camcli.pipeline.sheets.notebook import describe
from camcli.pipeline.training.image_loggers import LoggedImage, find_image_logger
from camcli.render.colormap import ColormapLike, find_colormap
from camcli.render.overlay import Alpha, check_alpha

if TYPE_CHECKING:
    from camcli.pipeline.explanation import Explanation

TAG = "overlays"


@check_keywords()
def log_overlays(
    logger: Any,
    explanations: Iterable[Explanation],
    step: int | None = None,
    *,
    tag: str = TAG,
    alpha: Alpha = 0.5,
    colormap: ColormapLike = "jet",
) -> None:
    """Logs overlays to TensorBoard or Weights & Biases, with class and probability below each.

    Training goes on as without it: the model's mode, gradients and buffers and the random state
    stay as they are. Of several processes that train together, only the first one explains and
    logs. (Call `explain` in all of them, or in the first one alone.)

    Args:
        logger: A SummaryWriter of TensorBoard, or another object with its `add_image`; a run of
            Weights & Biases; or Lightning's logger of one of them.
        explanations: Those of `explain`. They are made when they are logged.
        step: The step that they are logged for; default the logger's own.
        tag: What their names begin with: TAG/PICTURE, or TAG/PICTURE/METHOD of several methods;
            default overlays. What has the same name gets a number (its place, with `top_k`).
        alpha: How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.
        colormap: jet, turbo, viridis, inferno, ...; default jet. Or a colour map of matplotlib, a
            table of 256 colours [256 3], or a function of levels 0..1 to colours.

    Raises:
        UsageError: A logger that takes no pictures, or an alpha outside 0..1.
        UnknownName: A colour map that nobody knows.

    Example:
        >>> import camcli
        >>> class Writer:   # as TensorBoard's SummaryWriter
        ...     def add_image(self, tag, img_tensor, global_step, dataformats):
        ...         print(tag, img_tensor.shape, global_step, dataformats)
        >>> classifier = camcli.load_model(device="cpu")
        >>> explanations = camcli.explain(classifier, "demo_images/chelsea.png", top_k=2)
        >>> camcli.log_overlays(Writer(), explanations, step=5)
        overlays/chelsea.png (324, 451, 3) 5 HWC
        overlays/chelsea.png/2 (324, 451, 3) 5 HWC
    """
    check_alpha(alpha)
    find_colormap(colormap)
    if not _is_first_process():
        return
    write = find_image_logger(logger)
    write(_draw_each(explanations, tag, alpha, colormap), step)


def _is_first_process() -> bool:
    is_alone = not (distributed.is_available() and distributed.is_initialized())
    return is_alone or distributed.get_rank() == 0


def _draw_each(
    explanations: Iterable[Explanation], tag: str, alpha: Alpha, colormap: ColormapLike
) -> Iterator[LoggedImage]:
    taken: Counter[str] = Counter()
    explanations = list(explanations)
    methods = {e.method for e in explanations}
    for e in explanations:
        name = PurePath(e.record.source).name or "picture"
        whole = f"{tag}/{name}/{e.method}" if len(methods) > 1 else f"{tag}/{name}"
        taken[whole] += 1
        number = taken[whole]
        pixels = e.overlay(alpha, colormap, caption=True)
        yield LoggedImage(whole if number == 1 else f"{whole}/{number}", pixels, describe(e))
