"""Every option of a run as data: its type, its default, and the values that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from camcli.config.value_parsers import (
    parse_categories,
    parse_memory,
    parse_methods,
    parse_path,
    parse_pixels,
    parse_scale,
    parse_sheet,
    parse_size,
    parse_span,
    parse_target,
    split_items,
    to_lower,
    to_text,
    to_tuple,
)
from camcli.option_info import DEFAULT_FOLDER
from camcli.records import (
    CAMERAS,
    MAX_PIXELS,
    BestFor,
    Combination,
    Fit,
    Fusion,
    Interpolation,
    Likeness,
    Outputs,
    Outside,
    Precision,
    Span,
    TargetName,
)

Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Category = Annotated[str, Field(pattern=r"[^\s,]")]
# a layer's name has its parts between dots, and none of them is empty
Layer = Annotated[str, Field(pattern=r"^[^.]+(\.[^.]+)*$")]
Layers = Annotated[tuple[Layer, ...], BeforeValidator(split_items)]
# no model takes longer edges, which would only fill the memory
Edge = Annotated[int, Field(ge=1, le=2**15)]
Size = Annotated[tuple[Edge, Edge], BeforeValidator(parse_size)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(split_items), Field(min_length=1)]
File = Annotated[Path, BeforeValidator(parse_path)]
Choice = BeforeValidator(to_lower)
Key = Annotated[str, BeforeValidator(to_text), Field(min_length=1)]

# a field's description says which values it takes; error messages quote it
NAME, FILE, SWITCH = "a name", "a file", "true or false"
WHOLE, NATURAL = "a whole number from 1", "a whole number from 0"
SIZE = "a number of pixels, or height x width"


class PreprocessingOptions(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Settings that override the model's own preprocessing."""

    mean: Numbers | None = Field(default=None, description="numbers, one a channel")
    std: (
        Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(split_items)] | None
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
    compare: Text | None = Field(default=None, description="a name, or a file of weights")
    num_classes: int | None = Field(default=None, ge=0, description=NATURAL)
    img_size: Size | None = Field(default=None, description=SIZE)
    model_kwargs: dict[str, Any] = Field(default={}, description="a table: name = value")
    class_map: File | None = Field(default=None, description=FILE)
    output_key: Key | None = Field(default=None, description="a name or a position")
    outputs: Annotated[Outputs, Choice] | None = Field(
        default=None, description="logits, probabilities, independent or value"
    )

    like: Annotated[tuple[Text, ...], BeforeValidator(to_tuple)] = Field(
        default=(), description="pictures"
    )
    text: Annotated[tuple[str, ...], BeforeValidator(to_tuple)] = Field(
        default=(), description="texts"
    )
    template: Text = Field(default="{}", description="a text with {}")
    likeness: Annotated[Likeness, Choice] = Field(default="cosine", description="cosine, l1 or l2")

    target_layers: Layers = Field(
        default=(), description="names of layers, such as layer4 or blocks.-1.norm1"
    )
    layer_fusion: Annotated[Fusion, Choice] = Field(
        default="mean", description="mean, max, product, refine or none"
    )
    layers_sweep: bool = Field(default=False, description=SWITCH)
    combine: Annotated[Combination, Choice] | None = Field(
        default=None, description="mean or product"
    )
    vit_like: bool | None = Field(default=None, description=SWITCH)
    num_extra_tokens: int | None = Field(default=None, ge=0, description=NATURAL)

    method: Annotated[tuple[str, ...], BeforeValidator(parse_methods)] = Field(
        default=("gradcam",), min_length=1, description="names of methods"
    )
    best_for: Annotated[BestFor, Choice] | None = Field(
        default=None, description="balanced, evidence or extent"
    )
    target_category: Annotated[tuple[Category, ...], BeforeValidator(parse_categories)] = Field(
        default=(), description="class indices or names"
    )
    top_k: Count | None = Field(default=None, description=WHOLE)
    threshold: float | None = Field(
        default=None, gt=0, le=1, description="a probability above 0 and up to 1"
    )
    target: Annotated[TargetName | Callable[..., Any], BeforeValidator(parse_target)] = Field(
        default="logit",
        description="logit, probability, log-probability, rest, counterfactual or contrast; a class"
        " is the target category",
    )
    contrast: Annotated[tuple[Category, ...], BeforeValidator(parse_categories)] = Field(
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
    max_pixels: Annotated[Count, BeforeValidator(parse_pixels)] = Field(
        default=MAX_PIXELS, description="a number of pixels from 1, such as 50M"
    )
    max_memory: Annotated[
        Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, le=1, strict=True)],
        BeforeValidator(parse_memory),
    ] = Field(default=0.5, description="bytes from 1, such as 2G, or a share, such as 50%")
    workers: int | None = Field(default=None, ge=0, description=NATURAL)
    processes: int = Field(default=0, ge=0, description=NATURAL)
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
    frames: Annotated[Span, BeforeValidator(parse_span)] | None = Field(
        default=None, description="from:to, such as 10:50, :50 or 10:"
    )
    camera: int | None = Field(
        default=None, ge=0, lt=CAMERAS, description=f"a whole number from 0 to {CAMERAS - 1}"
    )
    smooth_frames: Count | None = Field(default=None, description=WHOLE)
    save_frames: bool = Field(default=False, description=SWITCH)

    colormap: Annotated[Text, Choice] = Field(default="jet", description=NAME)
    alpha: Annotated[Annotated[float, Field(ge=0, le=1)] | Literal["auto"], Choice] = Field(
        default=0.5, description="a number from 0 to 1, or auto"
    )
    outside: Annotated[Outside, Choice] = Field(default="dim", description="dim, keep or crop")
    caption: bool = Field(default=False, description=SWITCH)
    scale: Annotated[
        Literal["image", "run"] | tuple[float, float], BeforeValidator(parse_scale)
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
    sheet: Annotated[Path, BeforeValidator(parse_sheet)] | None = Field(
        default=None, description="a .png, .svg or .pdf file, or png, svg or pdf"
    )
    save_path: File = Field(default=Path(DEFAULT_FOLDER), description="a file or a folder")
    format: Annotated[Literal["jpg", "png"], Choice] | None = Field(
        default=None, description="jpg or png"
    )
    save_map: Annotated[Literal["npy", "npz", "png16", "tif"], Choice] | None = Field(
        default=None, description="npy, npz, png16 or tif"
    )
    map_size: Annotated[Literal["layer", "input", "image"], Choice] = Field(
        default="layer", description="layer, input or image"
    )
    map_outside: Annotated[Literal["nan", "zero"], Choice] = Field(
        default="nan", description="nan or zero"
    )
    save_mask: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="a share of the map's maximum, from 0 to below 1",
    )
    mask_percentile: float | None = Field(
        default=None, ge=0, lt=100, description="a percentile, from 0 to below 100"
    )
    report: File | None = Field(default=None, description=FILE)
    resume: bool = Field(default=False, description=SWITCH)
    skip_existing: bool = Field(default=False, description=SWITCH)
    fail_fast: bool = Field(default=False, description=SWITCH)
    max_failures: int | None = Field(default=None, ge=0, description=NATURAL)
