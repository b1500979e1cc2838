"""Presets, the environment, --cfg-options and flags -> one frozen object of options."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from camcli.errors import CamvizError, ConfigError, UnknownName, UsageError, first_line
from camcli.method_info import METHOD_INFO
from camcli.method_terms import BEST, expand_methods, find_method_names
from camcli.models.user_code import is_code
from camcli.records import (
    CAMERAS,
    MAX_PIXELS,
    BestFor,
    Combination,
    Fit,
    Fusion,
    Interpolation,
    Outputs,
    Precision,
    Span,
    TargetName,
)
from camcli.registry import ALL, assign_options
from camcli.utils.paths import expand_home, is_file
from camcli.utils.profiling import stage
from camcli.utils.text_files import read_text

ENVIRONMENT = "CAMVIZ_"
# variables that the command line reads itself
OTHER_VARIABLES = frozenset({"CAMVIZ_CONFIG", "CAMVIZ_DEBUG", "CAMVIZ_QUIET", "CAMVIZ_JSON"})
TABLES = frozenset({"preprocessing", "model_kwargs", "set"})
PATHS = frozenset({"checkpoint", "class_map", "save_path"})
ALIASES: Mapping[str, tuple[str, ...]] = {
    **{name: ("preprocessing", name) for name in ("mean", "std", "fit")},
    "max_channels": ("set", "max_channels"),
}
# a file may come from elsewhere; all else is said by who runs the command
PLACES = frozenset({"flags", "--cfg-options", "the environment", "the arguments"})
LITERALS = (bool, int, float, str, list, dict)
BRACKETS = {"[": "]", "(": ")"}
UNITS: Mapping[str, int] = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
BYTE_UNITS: Mapping[str, int] = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
# what no preset needs, and what would exhaust the stack or Python's own numbers
LARGEST_FILE = 2**20  # bytes
DEEPEST, LARGEST_NUMBER = 16, 2**63


def _split_items(value: object) -> list[object]:
    """Flattens `a,b`, `[a,b]`, `["a,b", "c"]` to single items."""
    if isinstance(value, str):
        inside = value.strip()
        bracketed = inside[:1] in BRACKETS and inside.endswith(BRACKETS[inside[0]])
        listed = (inside[1:-1] if bracketed else inside).split(",")
        items: list[object] = [_unquote(item.strip()) for item in listed if item.strip()]
        if not items and not bracketed:
            # such as an unset shell variable: the default would be used in silence
            raise ValueError("no items")
        return items
    if isinstance(value, list | tuple):
        return [item for part in value for item in _split_items(part)]
    return [value]


def _parse_categories(value: object) -> object:
    # class names may hold commas, so only brackets make a list here; the labels decide the rest
    given = value if isinstance(value, list | tuple) else [value]
    several = [
        v for g in given for v in (_split_items(g) if str(g).lstrip().startswith("[") else [g])
    ]
    return [_to_text(value) for value in several]


def _parse_methods(value: object) -> tuple[str, ...]:
    names = tuple(str(item) for item in _split_items(value))
    try:
        return find_method_names(names)
    except UnknownName as error:
        raise ValueError(error) from error


def _parse_size(value: object) -> object:
    """Reads a size: one number is a square, two are height and width."""
    numbers = re.split(r"[x,\s]+", value.strip("[] ()")) if isinstance(value, str) else value
    if isinstance(numbers, list | tuple):
        return [*numbers, *numbers] if len(numbers) == 1 else numbers
    return [numbers, numbers]


def _to_lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _parse_target(value: object) -> object:
    lower = _to_lower(value)
    return lower.replace("_", "-") if isinstance(lower, str) else value


def _to_text(value: object) -> object:
    return str(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def _parse_pixels(value: object) -> object:
    """Reads `50M` and the like as a number; what is none is left to be refused."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)([kmg]?)", str(_to_lower(value)))
    return round(float(match[1]) * UNITS[match[2]]) if match else value


def _parse_memory(value: object) -> object:
    """Reads `2G` as bytes, `50%` and `0.5` as a share; what is neither is left to be refused."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if result := re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?) ?%", text):
        return float(result[1]) / 100
    if re.fullmatch(r"0\.\d{1,9}", text):
        return float(text)
    if result := re.fullmatch(r"(\d{1,18})|(\d{1,12}(?:\.\d{1,9})?)([kmgt])(?:ib)?", text):
        return int(result[1]) if result[1] else round(float(result[2]) * BYTE_UNITS[result[3]])
    return value


def _parse_path(value: object) -> object:
    if value == "":
        raise ValueError("no name")  # Path("") would be the current folder
    if isinstance(value, str | Path) and b"\0" in os.fsencode(value):
        raise ValueError("a name with a null in it")
    return expand_home(value) if isinstance(value, str) else value


def _parse_scale(value: object) -> object:
    """Reads `image`, `run`, or two raw values."""
    if isinstance(value, str) and "," not in value:
        return _to_lower(value)
    low, high = (float(str(item)) for item in _split_items(value))
    if not 0 <= low < high < inf:
        raise ValueError("not two raw values, the second one larger")
    return low, high


def _parse_span(value: object) -> object:
    return Span.parse(value) if isinstance(value, str) else value


Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Category = Annotated[str, Field(pattern=r"[^\s,]")]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_items)]
# longer edges than any model was built for would only fill the memory
Edge = Annotated[int, Field(ge=1, le=2**15)]
Size = Annotated[tuple[Edge, Edge], BeforeValidator(_parse_size)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_split_items), Field(min_length=1)]
File = Annotated[Path, BeforeValidator(_parse_path)]
Choice = BeforeValidator(_to_lower)
Key = Annotated[str, BeforeValidator(_to_text), Field(min_length=1)]

# the description of a field says which values it takes; error messages quote it
NAME, FILE, SWITCH = "a name", "a file", "true or false"
WHOLE, NATURAL = "a whole number from 1", "a whole number from 0"
SIZE = "a number of pixels, or height x width"


class PreprocessingOptions(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What overrules the model's own preprocessing."""

    mean: Numbers | None = Field(default=None, description="numbers, one a channel")
    std: (
        Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_split_items)] | None
    ) = Field(default=None, min_length=1, description="numbers above 0, one a channel")
    interpolation: Annotated[Interpolation, Choice] | None = Field(
        default=None, description="nearest, bilinear, bicubic, lanczos, box or hamming"
    )
    fit: Annotated[Fit, Choice] | None = Field(default=None, description="crop, squash or pad")
    crop_pct: float | None = Field(
        default=None, ge=1e-3, le=1, description="a number from 0.001 to 1"
    )


class Options(BaseModel, frozen=True, extra="forbid", protected_namespaces=()):
    """Every option of the command line."""

    model: Text = Field(default="embedded", description=NAME)
    pretrained: bool = Field(default=True, description=SWITCH)
    checkpoint: File | None = Field(default=None, description=FILE)
    strict: bool = Field(default=True, description=SWITCH)
    num_classes: int | None = Field(default=None, ge=0, description=NATURAL)
    img_size: Size | None = Field(default=None, description=SIZE)
    model_kwargs: dict[str, Any] = Field(default={}, description="a table: name = value")
    class_map: File | None = Field(default=None, description=FILE)
    output_key: Key | None = Field(default=None, description="a name or a position")
    outputs: Annotated[Outputs, Choice] | None = Field(
        default=None, description="logits, probabilities, independent or value"
    )

    target_layers: Names = Field(default=(), description="names of layers")
    layer_fusion: Annotated[Fusion, Choice] = Field(
        default="mean", description="mean, max, product, refine or none"
    )
    combine: Annotated[Combination, Choice] | None = Field(
        default=None, description="mean or product"
    )
    vit_like: bool | None = Field(default=None, description=SWITCH)
    num_extra_tokens: int | None = Field(default=None, ge=0, description=NATURAL)

    method: Annotated[tuple[str, ...], BeforeValidator(_parse_methods)] = Field(
        default=("gradcam",), min_length=1, description="names of methods"
    )
    best_for: Annotated[BestFor, Choice] | None = Field(
        default=None, description="balanced, evidence or extent"
    )
    target_category: Annotated[tuple[Category, ...], BeforeValidator(_parse_categories)] = Field(
        default=(), description="class indices or names"
    )
    top_k: Count | None = Field(default=None, description=WHOLE)
    threshold: float | None = Field(
        default=None, gt=0, le=1, description="a probability above 0 and up to 1"
    )
    target: Annotated[TargetName | Callable[..., Any], BeforeValidator(_parse_target)] = Field(
        default="logit",
        description="logit, probability, log-probability, rest, counterfactual or contrast",
    )
    contrast: Annotated[tuple[Category, ...], BeforeValidator(_parse_categories)] = Field(
        default=(), description="class indices or names"
    )
    contrast_strength: float = Field(
        default=0.6, ge=0, allow_inf_nan=False, description="a number from 0"
    )
    set: dict[str, Any] = Field(default={}, description="a table: name = value")
    aug_smooth: bool = Field(default=False, description=SWITCH)
    eigen_smooth: bool = Field(default=False, description=SWITCH)
    noise_smooth: Count | None = Field(default=None, description=WHOLE)
    noise_sigma: float = Field(
        default=0.15, ge=0, allow_inf_nan=False, description="a number from 0"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description=NATURAL)

    recursive: bool = Field(default=True, description=SWITCH)
    device: Annotated[str, Choice] = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:N or mps",
    )
    batch_size: Annotated[Count | Literal["auto"], Choice] = Field(
        default=8, description="a whole number from 1, or auto"
    )
    compile: bool = Field(default=False, description=SWITCH)
    max_pixels: Annotated[Count, BeforeValidator(_parse_pixels)] = Field(
        default=MAX_PIXELS, description="a number of pixels from 1, such as 50M"
    )
    max_memory: Annotated[
        Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, le=1, strict=True)],
        BeforeValidator(_parse_memory),
    ] = Field(default=0.5, description="bytes from 1, such as 2G, or a share, such as 50%")
    workers: int | None = Field(default=None, ge=0, description=NATURAL)
    engine: Annotated[Literal["local", "ray"], Choice] = Field(
        default="local", description="local or ray"
    )
    ray_workers: Count | None = Field(default=None, description=WHOLE)
    precision: Annotated[Precision, Choice] = Field(
        default="float32", description="float32, bf16, fp16 or auto"
    )
    preprocessing: PreprocessingOptions = Field(
        default=PreprocessingOptions(),
        description="a table: mean, std, interpolation, fit, crop_pct",
    )

    every: Count | None = Field(default=None, description=WHOLE)
    frames: Annotated[Span, BeforeValidator(_parse_span)] | None = Field(
        default=None, description="from:to, such as 10:50, :50 or 10:"
    )
    camera: int | None = Field(
        default=None, ge=0, lt=CAMERAS, description=f"a whole number from 0 to {CAMERAS - 1}"
    )
    smooth_frames: Count | None = Field(default=None, description=WHOLE)
    save_frames: bool = Field(default=False, description=SWITCH)

    colormap: Annotated[Text, Choice] = Field(default="jet", description=NAME)
    alpha: float = Field(default=0.5, ge=0, le=1, description="a number from 0 to 1")
    scale: Annotated[
        Literal["image", "run"] | tuple[float, float], BeforeValidator(_parse_scale)
    ] = Field(default="image", description="image, run, or MIN,MAX from 0 on")
    boxes: Annotated[Literal["largest", "all"], Choice] | None = Field(
        default=None, description="largest or all"
    )
    box_threshold: float = Field(
        default=0.2, ge=0, lt=1, description="a share of the map's maximum, from 0 to below 1"
    )
    contour: bool = Field(default=False, description=SWITCH)
    export: Annotated[Literal["coco", "voc", "yolo"], Choice] | None = Field(
        default=None, description="coco, voc or yolo"
    )
    save_path: File = Field(default=Path("camviz-out"), description="a file or a folder")
    format: Annotated[Literal["jpg", "png"], Choice] | None = Field(
        default=None, description="jpg or png"
    )
    save_map: Annotated[Literal["npy"], Choice] | None = Field(default=None, description="npy")
    map_size: Annotated[Literal["layer", "input", "image"], Choice] = Field(
        default="layer", description="layer, input or image"
    )
    resume: bool = Field(default=False, description=SWITCH)
    skip_existing: bool = Field(default=False, description=SWITCH)
    fail_fast: bool = Field(default=False, description=SWITCH)
    max_failures: int | None = Field(default=None, ge=0, description=NATURAL)


@dataclass(frozen=True)
class _Setting:
    """One value, where it stands, and how the person wrote it."""

    key: tuple[str, ...]
    value: object
    shown: str
    where: str = ""


def resolve(
    flags: Mapping[str, object],
    *,
    config: str | None,
    cfg_options: Sequence[str],
    environ: Mapping[str, str],
) -> Options:
    """Flags beat --cfg-options beat `CAMVIZ_*` beat the preset; raises ConfigError, UnknownName."""
    chosen = environ.get(f"{ENVIRONMENT}CONFIG") if config is None else config
    return _validate(
        [
            *(() if chosen is None else _read_file(find_config(chosen))),
            *_read_environment(environ),
            *_read_cfg_options(cfg_options),
            *_read_flags(flags),
        ]
    )


def from_keywords(**values: object) -> Options:
    """Makes Options of Python keywords, None for a default; raises ConfigError or UnknownName."""
    return _validate(
        _Setting(key, part, f"{name}={value!r}", "the arguments")
        for name, value in values.items()
        if value is not None
        for key, part in _iterate_leaves((name,), value)
    )


def find_config(given: str) -> Path:
    """Finds a preset by name or a config file by path; raises UnknownName."""
    shipped = list_presets()
    name = given.lower().replace("-", "_")
    if name in shipped:
        return shipped[name]
    if is_file(given):
        return expand_home(given)
    hint = f"Presets: {', '.join(shipped)}; or name a TOML file that exists."
    raise UnknownName("config", given, shipped, hint)


def list_presets() -> dict[str, Path]:
    """Returns the shipped presets, name -> file: from the wheel, else from the checkout."""
    package = Path(__file__).parents[1]
    folders = (package / "configs", package.parent / "configs")
    folder = next((f for f in folders if f.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _read_file(path: Path) -> Iterator[_Setting]:
    for key, value in _iterate_leaves((), _read_toml(path)):
        placed = value
        if key[-1] in PATHS and isinstance(value, str) and value:
            placed = path.parent / expand_home(value)
        yield _Setting(key, placed, f"{path}: {'.'.join(key)} = {_to_toml(value)}", str(path))


def _read_environment(environ: Mapping[str, str]) -> Iterator[_Setting]:
    for name, text in sorted(environ.items()):
        if name.startswith(ENVIRONMENT) and name not in OTHER_VARIABLES:
            key = tuple(name.removeprefix(ENVIRONMENT).lower().split("__"))
            for leaf, value in _iterate_text_leaves(key, text):
                yield _Setting(leaf, value, f"{name}={text}", "the environment")


def _read_cfg_options(texts: Iterable[str]) -> Iterator[_Setting]:
    for text in texts:
        key, value = _split_assignment(text, "--cfg-options")
        for leaf, part in _iterate_text_leaves(key, value):
            yield _Setting(leaf, part, f"--cfg-options {text}", "--cfg-options")


def _read_flags(flags: Mapping[str, object]) -> Iterator[_Setting]:
    for name, value in flags.items():
        shown = f"--{name.replace('_', '-')} {_format_value(value)}"
        for leaf, part in _iterate_text_leaves((name,), value):
            yield _Setting(leaf, part, shown, "flags")


def _iterate_text_leaves(
    key: tuple[str, ...], value: object
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Gives what was typed for a key; only the values of `model_kwargs` have to guess a type."""
    table = key[0].replace("-", "_")
    read = PARSERS.get(table)
    if read is None:
        yield from _iterate_leaves(key, value)
    elif len(key) > 1:
        yield from _iterate_leaves(key, read(str(value)))
    else:
        for text in value if isinstance(value, list | tuple) else [value]:
            name, literal = _split_assignment(str(text), f"--{table.replace('_', '-')}")
            yield from _iterate_leaves((*key, *name), read(literal))


def _iterate_leaves(
    key: tuple[str, ...], value: object
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Gives the single values at and below a key: one for each entry of a table."""
    key = tuple(part.replace("-", "_") for part in key)
    key = (*ALIASES.get(key[0], key[:1]), *key[1:]) if key else key
    if isinstance(value, Mapping) and (not key or (len(key) == 1 and key[0] in TABLES)):
        for name, below in value.items():
            yield from _iterate_leaves((*key, name), below)
    else:
        yield key, value


def _split_assignment(text: str, option: str) -> tuple[tuple[str, ...], str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{option} {text}: takes key=value, such as {option} {EXAMPLES[option]}.")
    return tuple(key.strip().split(".")), value.strip()


EXAMPLES = {
    "--cfg-options": "preprocessing.fit=squash",
    "--model-kwargs": "drop_rate=0.1",
    "--set": "samples=8",
}


def parse_literal(text: str) -> object:
    """Reads a value as TOML would, `none` and bare words in lists too; else it is a text."""
    plain = text.strip()
    if plain.lower() in ("none", "null"):
        return None
    if plain.lower() in ("true", "false"):
        return plain.lower() == "true"
    try:
        table = tomllib.loads(f"value = {plain}")
    except ValueError:  # also for a number of thousands of digits
        table = {}
    except RecursionError:
        return plain
    if len(table) == 1 and isinstance(table["value"], LITERALS):
        return cast(object, table["value"])
    if plain[:1] in BRACKETS and plain.endswith(BRACKETS[plain[0]]):
        return [parse_literal(item) for item in plain[1:-1].split(",") if item.strip()]
    return plain


def _parse_text(text: str) -> str | None:
    return None if text.strip().lower() in ("none", "null") else text


# what becomes of a typed value below a table: a method's signature says what its options are
PARSERS: Mapping[str, Callable[[str], object]] = {
    "model_kwargs": parse_literal,
    "set": _parse_text,
}


def _unquote(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _read_toml(path: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(read_text(path, largest=LARGEST_FILE))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file in UTF-8.") from error
    except (ValueError, RecursionError) as error:  # not all that is wrong is a TOMLDecodeError
        raise ConfigError(f"{path} is not valid TOML: {first_line(error)}.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if _is_absurd(table):
        raise ConfigError(
            f"{path} nests values more than {DEEPEST} deep, or has a whole number of more than 64 "
            "bits."
        )
    return table


def _is_absurd(value: object, depth: int = 0) -> bool:
    if isinstance(value, int):
        return abs(value) > LARGEST_NUMBER
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > DEEPEST or any(_is_absurd(part, depth + 1) for part in inner)


def _validate(given: Iterable[_Setting]) -> Options:
    """Lays the values over each other, the last on top, and checks them all."""
    on_top: dict[tuple[str, ...], _Setting] = {}
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
        problems += _refuse_two_resumes(options)
        problems += _refuse_workers_without_ray(options)
        problems += _refuse_options_without_boxes(options)
    except ValidationError as error:
        problems += _collect_errors(error, on_top)
    if len(problems) > 1:
        raise ConfigError("\n".join(["Several options are wrong:", *map(str, problems)]))
    if problems:
        raise problems[0]
    return options


def _refuse_code_in_file(on_top: Mapping[tuple[str, ...], _Setting]) -> Iterator[ConfigError]:
    """Refuses a file that names code to run: presets are data, which people pass on."""
    model = on_top.get(("model",))
    if model and model.where not in PLACES and is_code(str(model.value)):
        yield ConfigError(
            f"{model.shown}: a preset runs no code; name it yourself: --model {model.value}"
        )


def _refuse_two_resumes(options: Options) -> Iterator[UsageError]:
    if options.resume and options.skip_existing:
        yield UsageError(
            "--resume goes on with one run, --skip-existing passes over what any run of these "
            "options did: give one of them."
        )


def _refuse_workers_without_ray(options: Options) -> Iterator[UsageError]:
    if options.ray_workers and options.engine != "ray":
        yield UsageError(
            f"--ray-workers {options.ray_workers} is for --engine ray: give both, or none."
        )


def _refuse_options_without_boxes(options: Options) -> Iterator[UsageError]:
    if options.export and options.boxes is None:
        yield UsageError(
            f"--export {options.export} writes the boxes of what is hot: give --boxes (or --boxes "
            "all), too."
        )
    is_given = "box_threshold" in options.model_fields_set
    if is_given and options.boxes is None and not options.contour:
        yield UsageError(
            f"--box-threshold {options.box_threshold} is for --boxes and --contour: give one of "
            "them, too."
        )


def _check_method_options(
    methods: Sequence[str], given: Iterable[_Setting]
) -> Iterator[ConfigError]:
    """Holds what is set against the signatures of the methods that are asked for."""
    items = [item for item in given if item.key[0] == "set"]
    if items:
        # torch is imported only where somebody asks for it
        with stage("import"):
            import camcli.methods  # noqa: F401  (fills the registry)
    for item in items:
        try:
            assign_options(expand_methods(methods), {".".join(item.key[1:]): item.value})
        except UsageError as error:
            yield ConfigError(f"{item.shown}: {error}")


def _unknown_key(item: _Setting) -> UnknownName | None:
    fields = _list_fields_below(item.key[:-1])
    if fields is None or item.key[-1] in fields:
        return None
    if item.where == "the environment":
        known = [f"{ENVIRONMENT}{name.upper()}" for name in Options.model_fields]
        return UnknownName("environment variable", item.shown.partition("=")[0], known)
    hint = "All: camviz help presets"
    return UnknownName(f"key in {item.where}:", ".".join(item.key), _list_keys(), hint)


def _list_fields_below(parents: tuple[str, ...]) -> Iterable[str] | None:
    """Returns the names that may follow, or None where any may."""
    if not parents:
        return Options.model_fields
    if parents[0] in PARSERS:
        return None
    return PreprocessingOptions.model_fields if parents == ("preprocessing",) else ()


def _list_keys() -> list[str]:
    below = (f"preprocessing.{name}" for name in PreprocessingOptions.model_fields)
    return [*Options.model_fields, *below]


def _nest(given: Iterable[_Setting]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for item in given:
        node = tree
        for part in item.key[:-1]:
            inner = node.get(part)
            node[part] = dict(inner) if isinstance(inner, dict) else {}
            node = node[part]
        node[item.key[-1]] = None if _is_none(item) else item.value
    return tree


def _is_none(item: _Setting) -> bool:
    if not isinstance(item.value, str) or item.value.strip().lower() not in ("none", "null"):
        return False
    field = _find_field(item.key)
    return field is not None and field.default is None


def _find_field(key: tuple[str, ...]) -> Any:
    model = PreprocessingOptions if key[0] == "preprocessing" and len(key) > 1 else Options
    return model.model_fields.get(key[-1])


def _collect_errors(
    error: ValidationError, given: Mapping[tuple[str, ...], _Setting]
) -> list[CamvizError]:
    errors: dict[tuple[str, ...], CamvizError] = {}
    for detail in error.errors():
        place = tuple(map(str, detail["loc"]))
        key = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in given or n == 0)
        errors.setdefault(key, _make_error(given[key], detail.get("ctx", {}).get("error")))
    return list(errors.values())


def _make_error(item: _Setting, cause: object) -> CamvizError:
    unknown = cause.args[0] if isinstance(cause, ValueError) and cause.args else None
    if isinstance(unknown, UnknownName):
        kind = "method" if item.where == "flags" else f"method in {item.shown}:"
        known = [*METHOD_INFO, ALL, BEST]
        return UnknownName(kind, unknown.given, known, "All: camviz methods")
    name = "" if item.where == "flags" else f"{'.'.join(item.key)} "
    return ConfigError(f"{item.shown}: {name}takes {_find_field(item.key).description}.")


def _format_value(value: object) -> str:
    return (",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)) or "''"


def _to_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
