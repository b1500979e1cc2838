"""A callback of Lightning that logs overlays while a model trains."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from inspect import signature
from typing import Any, Self

from torch import nn

from camcli.errors import UnknownName, UsageError
from camcli.media.pictures.read import make_picture
from camcli.models.load import Classifier
from camcli.models.state import is_sharded
from camcli.pipeline.picture_api import explain, find_classifier, is_one_picture
from camcli.pipeline.training.image_loggers import find_image_logger
from camcli.pipeline.training.overlay_log import TAG, log_overlays
from camcli.render.colormap import ColormapLike, find_colormap
from camcli.render.overlay import Alpha, check_alpha

# one package under two names, each with a Callback of its own
LIGHTNING = ("lightning.pytorch", "pytorch_lightning")
# what is known of a module, in whose place a classifier is made once
LOADING = ("labels", "preprocessing", "img_size", "output_key", "outputs")

# what a copy keeps
KEPT = ("pictures", "every", "network", "options", "_look")


class OverlayCallback:
    """Logs overlays of the same pictures every few epochs, and before the first one.

    It logs to all of the Trainer's loggers that take pictures (TensorBoard's, Weights & Biases'),
    in the first of several processes alone. Training goes on as without it, to the same weights.
    It is a `Callback` of `lightning` or `pytorch_lightning`, whichever is imported: import that
    first.

    Args:
        pictures: One picture or several, as `explain` takes them; they are read at once.
        every: After how many epochs they are explained again; default 1.
        network: The name of the module in the LightningModule that classifies, such as
            `model.backbone`; default the LightningModule itself, by its `forward`.
        tag: What the overlays' names begin with; default overlays.
        alpha: How much of the heat is laid on, 0..1, or auto: it follows the heat; default 0.5.
        colormap: jet, turbo, viridis, inferno, ...; default jet. Or a colour map of matplotlib, a
            table of 256 colours [256 3], or a function of levels 0..1 to colours.
        **options: Arguments of `explain`: method, labels, preprocessing, target_category, ...

    Raises:
        UnknownName: An option that `explain` does not take; when training begins, a `network` that
            the module does not have.
        UsageError: No number of epochs; when training begins, no logger that takes pictures.
        ImageError: A picture that cannot be read.

    Example:
        >>> import camcli
        >>> callback = camcli.OverlayCallback("demo_images/chelsea.png", every=5, method="layercam")
        >>> callback.every
        5
    """

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Makes it a callback of the Lightning that is in use."""
        kind: Any = cls
        made: Self = object.__new__(_make_callback_class(kind, tuple(_find_callbacks())))
        return made

    def __init__(
        self,
        pictures: Any,
        every: int = 1,
        *,
        network: str | None = None,
        tag: str = TAG,
        alpha: Alpha = 0.5,
        colormap: ColormapLike = "jet",
        **options: Any,
    ) -> None:
        known = list(signature(explain).parameters)[2:]
        for name in options:
            if name not in known:
                own = [n for n in signature(OverlayCallback).parameters if n != "options"]
                raise UnknownName("argument of OverlayCallback", name, [*known, *own])
        if not (isinstance(every, int) and every >= 1):
            raise UsageError(f"every is a number of epochs, 1 or more, not {every!r}.")
        check_alpha(alpha)
        find_colormap(colormap)
        items = [pictures] if is_one_picture(pictures) else pictures
        self.pictures = [make_picture(item) for item in items]
        self.every, self.network, self.options = every, network, options
        self._look: dict[str, Any] = {"tag": tag, "alpha": alpha, "colormap": colormap}
        self._classifier: Classifier | None = None

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Logs overlays of the model as it is before training, so that errors come at once."""
        self._log(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Logs overlays if this is one of the epochs."""
        if (trainer.current_epoch + 1) % self.every == 0:
            self._log(trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: nn.Module) -> None:  # noqa: ARG002
        """Lets go of the model."""
        self._classifier = None

    def _log(self, trainer: Any, pl_module: nn.Module) -> None:
        if trainer.world_size > 1 and is_sharded(pl_module):
            raise UsageError(
                "Each process has a share of the weights (FSDP), and overlays are made by one "
                "process alone: train with DDP, or explain the checkpoint afterwards."
            )
        if not trainer.is_global_zero:
            return
        loggers = _list_image_loggers(trainer)
        explanations = list(explain(self._classify(pl_module), self.pictures, **self._list_asked()))
        for logger in loggers:
            log_overlays(logger, explanations, trainer.global_step, **self._look)

    def _classify(self, pl_module: nn.Module) -> Classifier:
        if self._classifier is None:
            loading = {name: value for name, value in self.options.items() if name in LOADING}
            module = _find_network(pl_module, self.network)
            self._classifier = find_classifier(module, "OverlayCallback", **loading)
        return self._classifier

    def _list_asked(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name not in LOADING}

    def __reduce__(self) -> tuple[Any, ...]:
        """Says how a copy is made, since the class of a copy depends on what is imported."""
        # without the model, which Lightning's own attributes are bound to as well
        return _make_again, ({name: vars(self)[name] for name in KEPT},)


def _make_again(state: dict[str, Any]) -> OverlayCallback:
    callback = OverlayCallback.__new__(OverlayCallback)
    vars(callback).update(state, _classifier=None)
    return callback


@cache
def _make_callback_class(cls: type, bases: tuple[type, ...]) -> type:
    return type(cls.__name__, (cls, *bases), {"__module__": cls.__module__}) if bases else cls


def _find_callbacks() -> list[type]:
    """Finds the Callback of each Lightning that is imported already."""
    return [import_module(name).Callback for name in LIGHTNING if name in sys.modules]


def _find_network(pl_module: nn.Module, name: str | None) -> nn.Module:
    modules: dict[str, nn.Module] = dict(pl_module.named_modules())
    if name is None:
        # Lightning's own forward is there to say that there is none
        if type(pl_module).forward.__module__.startswith(LIGHTNING):
            raise UsageError(
                f"{type(pl_module).__name__} has no forward: name the module in it that "
                f"classifies, such as network={next(iter(dict(pl_module.named_children())), '')!r}."
            )
        return pl_module
    if name not in modules:
        raise UnknownName("network", name, modules, "It is a module in the LightningModule.")
    return modules[name]


def _list_image_loggers(trainer: Any) -> list[Any]:
    """Lists the trainer's loggers that take pictures; raises UsageError if there is none."""
    able = []
    for logger in trainer.loggers:
        try:
            find_image_logger(logger)
        except UsageError:
            continue
        able.append(logger)
    if not able:
        named = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "no logger"
        raise UsageError(
            f"The Trainer has {named}, and overlays need one that takes pictures: "
            "Trainer(logger=TensorBoardLogger(...)) or WandbLogger(...)."
        )
    return able
