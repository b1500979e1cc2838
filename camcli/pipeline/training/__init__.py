"""Overlays of a model in training, in TensorBoard and Weights & Biases."""

from camcli.pipeline.training.image_loggers import find_image_logger
from camcli.pipeline.training.lightning_callback import OverlayCallback
from camcli.pipeline.training.overlay_log import log_overlays

__all__ = ["OverlayCallback", "find_image_logger", "log_overlays"]
