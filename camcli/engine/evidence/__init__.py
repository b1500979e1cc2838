"""The evidence that methods ask for; importing this room fills the registry."""

from camcli.engine.evidence import (
    attention,
    class_head,
    curvature,
    forward_backward,
    fullgrad,
    guided_backprop,
    rescoring,
)

__all__ = [
    "attention",
    "class_head",
    "curvature",
    "forward_backward",
    "fullgrad",
    "guided_backprop",
    "rescoring",
]
