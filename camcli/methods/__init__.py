"""Pure tensor functions, one file a family; importing this fills the registry."""

from camcli.methods import activation, gradient

__all__ = ["activation", "gradient"]
