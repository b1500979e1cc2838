"""Presets, the environment, --cfg-options and flags -> one frozen object of options."""

from camcli.config.options import (
    ALIASES,
    Options,
    PreprocessingOptions,
    find_config,
    from_keywords,
    list_presets,
    parse_literal,
    resolve,
)

__all__ = [
    "ALIASES",
    "Options",
    "PreprocessingOptions",
    "find_config",
    "from_keywords",
    "list_presets",
    "parse_literal",
    "resolve",
]
