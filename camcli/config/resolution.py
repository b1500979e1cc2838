"""Resolves the settings of all places into checked options; later places win."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from camcli.config.consistency import find_contradictions
from camcli.config.options import Options, PreprocessingOptions
from camcli.config.presets import find_config
from camcli.config.settings import (
    ENVIRONMENT,
    PARSERS,
    Setting,
    iterate_leaves,
    read_cfg_options,
    read_environment,
    read_flags,
    read_preset_file,
)
from camcli.config.value_parsers import SHEETS
from camcli.errors import CamvizError, ConfigError, UnknownName, UsageError
from camcli.method_info import METHOD_INFO
from camcli.method_terms import BEST, expand_methods
from camcli.models.own_code.user_code import is_code
from camcli.registry import ALL, assign_options

# places that the user of the command controls; a preset may come from somebody else
PLACES = frozenset({"flags", "--cfg-options", "the environment", "the arguments"})


def resolve(
    flags: Mapping[str, object],
    *,
    config: str | None,
    cfg_options: Sequence[str],
    environ: Mapping[str, str],
) -> Options:
    """Makes options of all places: flags beat --cfg-options, then `CAMVIZ_*`, then the preset.

    Raises ConfigError for a wrong value, and UnknownName for an unknown option or preset.
    """
    chosen = environ.get(f"{ENVIRONMENT}CONFIG") if config is None else config
    return _validate(
        [
            *(() if chosen is None else read_preset_file(find_config(chosen))),
            *read_environment(environ),
            *read_cfg_options(cfg_options),
            *read_flags(flags),
        ]
    )


def from_keywords(**values: object) -> Options:
    """Makes Options of Python keywords; None means the default.

    Raises ConfigError for a wrong value, and UnknownName for an unknown option."""
    return _validate(
        Setting(key, part, f"{name}={value!r}", "the arguments")
        for name, value in values.items()
        if value is not None
        for key, part in iterate_leaves((name,), value)
    )


def _validate(given: Iterable[Setting]) -> Options:
    """Merges the settings, where the last one of each key counts, and checks all of them."""
    on_top: dict[tuple[str, ...], Setting] = {}
    problems: list[CamvizError] = []
    for item in given:
        unknown = _unknown_key(item)
        if unknown:
            problems.append(unknown)
        else:
            on_top.pop(item.key, None)
            on_top[item.key] = item
    problems += _refuse_code_in_file(on_top)
    try:
        options = Options.model_validate(_nest(on_top.values()))
        problems += _check_method_options(options.method, on_top.values())
        problems += find_contradictions(options)
    except ValidationError as error:
        problems += _collect_errors(error, on_top)
    if len(problems) > 1:
        raise ConfigError("\n".join(["Several options are wrong:", *map(str, problems)]))
    if problems:
        raise problems[0]
    return _add_what_follows(options)


def _add_what_follows(options: Options) -> Options:
    """Adds what an option brings with it."""
    if not options.layers_sweep and options.compare is None:
        return options
    fusion = "none" if options.layers_sweep else options.layer_fusion
    sheet = options.sheet or Path(SHEETS[0])
    return options.model_copy(update={"layer_fusion": fusion, "sheet": sheet})


def _refuse_code_in_file(on_top: Mapping[tuple[str, ...], Setting]) -> Iterator[ConfigError]:
    """Refuses a file that names code to run: people share presets, so these must be data."""
    model = on_top.get(("model",))
    if model and model.where not in PLACES and is_code(str(model.value)):
        yield ConfigError(
            f"{model.shown}: a preset runs no code; name it yourself: --model {model.value}"
        )


def _check_method_options(
    methods: Sequence[str], given: Iterable[Setting]
) -> Iterator[ConfigError]:
    """Checks the options of methods against their signatures."""
    items = [item for item in given if item.key[0] == "set"]
    for item in items:
        try:
            assign_options(expand_methods(methods), {".".join(item.key[1:]): item.value})
        except UsageError as error:
            yield ConfigError(f"{item.shown}: {error}")


def _unknown_key(item: Setting) -> UnknownName | None:
    fields = _list_fields_below(item.key[:-1])
    if fields is None or item.key[-1] in fields:
        return None
    if item.where == "the environment":
        known = [f"{ENVIRONMENT}{name.upper()}" for name in Options.model_fields]
        return UnknownName("environment variable", item.shown.partition("=")[0], known)
    hint = "All: camviz help presets"
    return UnknownName(f"key in {item.where}:", ".".join(item.key), _list_keys(), hint)


def _list_fields_below(parents: tuple[str, ...]) -> Iterable[str] | None:
    """Returns the names that may follow; None means any name."""
    if not parents:
        return Options.model_fields
    if parents[0] in PARSERS:
        return None
    return PreprocessingOptions.model_fields if parents == ("preprocessing",) else ()


def _list_keys() -> list[str]:
    below = (f"preprocessing.{name}" for name in PreprocessingOptions.model_fields)
    return [*Options.model_fields, *below]


def _nest(given: Iterable[Setting]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for item in given:
        node = tree
        for part in item.key[:-1]:
            inner = node.get(part)
            node[part] = dict(inner) if isinstance(inner, dict) else {}
            node = node[part]
        node[item.key[-1]] = None if _is_none(item) else item.value
    return tree


def _is_none(item: Setting) -> bool:
    if not isinstance(item.value, str) or item.value.strip().lower() not in ("none", "null"):
        return False
    field = _find_field(item.key)
    return field is not None and field.default is None


def _find_field(key: tuple[str, ...]) -> Any:
    model = PreprocessingOptions if key[0] == "preprocessing" and len(key) > 1 else Options
    return model.model_fields.get(key[-1])


def _collect_errors(
    error: ValidationError, given: Mapping[tuple[str, ...], Setting]
) -> list[CamvizError]:
    errors: dict[tuple[str, ...], CamvizError] = {}
    for detail in error.errors():
        place = tuple(map(str, detail["loc"]))
        key = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in given or n == 0)
        errors.setdefault(key, _make_error(given[key], detail.get("ctx", {}).get("error")))
    return list(errors.values())


def _make_error(item: Setting, cause: object) -> CamvizError:
    unknown = cause.args[0] if isinstance(cause, ValueError) and cause.args else None
    if isinstance(unknown, UnknownName):
        kind = "method" if item.where == "flags" else f"method in {item.shown}:"
        known = [*METHOD_INFO, ALL, BEST]
        return UnknownName(kind, unknown.given, known, "All: camviz methods")
    name = "" if item.where == "flags" else f"{'.'.join(item.key)} "
    return ConfigError(f"{item.shown}: {name}takes {_find_field(item.key).description}.")
