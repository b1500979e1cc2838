"""The same model, faster."""

from camcli.models.acceleration.compile_targets import find_compile_targets
from camcli.models.acceleration.conv_bn_folding import ConvBnFolding, find_foldable
from camcli.models.acceleration.faster_forwards import accelerate
from camcli.models.acceleration.fused_attention import can_fuse, switch_on_fused_attention
from camcli.models.acceleration.lasting_folding import WatchedPass, run_folded
from camcli.models.acceleration.memory_format import (
    accepts_channels_last,
    convert_weights_format,
    convert_weights_format_if_safe,
    copy_to_model_format,
    trust_channels_last,
)
from camcli.models.acceleration.prepack_cache import PrepackCache

__all__ = [
    "ConvBnFolding",
    "PrepackCache",
    "WatchedPass",
    "accelerate",
    "accepts_channels_last",
    "can_fuse",
    "convert_weights_format",
    "convert_weights_format_if_safe",
    "copy_to_model_format",
    "find_compile_targets",
    "find_foldable",
    "run_folded",
    "switch_on_fused_attention",
    "trust_channels_last",
]
