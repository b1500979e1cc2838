"""The evidence that methods ask for; importing this fills the registry."""

from camcli.engine.evidence import (
    attention,
    class_head,
    derivatives,
    fullgrad,
    guided_backprop,
    recording,
    rescoring,
)

__all__ = [
    "attention",
    "class_head",
    "derivatives",
    "fullgrad",
    "guided_backprop",
    "recording",
    "rescoring",
]
