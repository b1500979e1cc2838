"""Pure tensor functions, one file a family; importing this fills the registry."""

from camcli.methods import (
    activation,
    attention,
    backprop,
    factorization,
    fullgrad,
    gradient,
    perturbation,
)

__all__ = [
    "activation",
    "attention",
    "backprop",
    "factorization",
    "fullgrad",
    "gradient",
    "perturbation",
]
