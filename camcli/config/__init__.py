"""Turns presets, the environment, --cfg-options and flags into one frozen object of options."""

from camcli.config.consistency import refuse_contradictions
from camcli.config.options import Options, PreprocessingOptions
from camcli.config.presets import find_config, list_presets
from camcli.config.resolution import from_keywords, resolve
from camcli.config.settings import ALIASES
from camcli.config.value_parsers import parse_literal

__all__ = [
    "ALIASES",
    "Options",
    "PreprocessingOptions",
    "find_config",
    "from_keywords",
    "list_presets",
    "parse_literal",
    "refuse_contradictions",
    "resolve",
]
