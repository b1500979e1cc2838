"""Pure tensor functions, one file a family; importing this fills the registry."""

from camcli.methods import activation, attention, gradient, perturbation

__all__ = ["activation", "attention", "gradient", "perturbation"]
