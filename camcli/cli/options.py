"""The options of `camviz explain`: their names, help and panels; values are checked in config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from camcli import __version__
from camcli.cli.printer import print_text
from camcli.method_info import METHOD_INFO

MODEL, LAYER, WHAT, PICTURE, VIDEOS, OUTPUT = (
    "Model",
    "Layer",
    "Method and category",
    "Picture and device",
    "Videos",
    "Output",
)
SETTINGS = "Settings"

Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE",
        help="Pictures, folders, globs and URLs of them; @list.txt or @list.csv; - reads paths "
        "from standard input.",
        show_default=False,
    ),
]


def _option(panel: str, metavar: str, help_text: str, *names: str) -> Any:
    return typer.Option(
        *names, metavar=metavar, help=help_text, rich_help_panel=panel, show_default=False
    )


def _switch(panel: str, help_text: str, *names: str, variable: str | None = None) -> Any:
    return typer.Option(
        *names,
        metavar="",
        help=help_text,
        rich_help_panel=panel,
        show_default=False,
        envvar=variable,
        show_envvar=False,
    )


def _show_version(asked: bool) -> None:
    if asked:
        print_text(f"camviz {__version__}")
        raise typer.Exit


Text = str | None
Texts = list[str] | None
Switch = bool | None


@dataclass(frozen=True)
class Flags:
    """What was typed; None where nothing was, so that environment and preset may speak."""

    model: Annotated[
        Text,
        _option(
            MODEL,
            "NAME",
            "embedded, any timm or torchvision classifier (timm/NAME, torchvision/NAME, "
            "hf-hub:ORG/NAME, local-dir:PATH), or your own (FILE.py:FUNCTION); default embedded.",
            "--model",
            "-m",
        ),
    ] = None
    checkpoint: Annotated[
        Text, _option(MODEL, "FILE", "Your own weights: .pth, .pt or .safetensors.", "--checkpoint")
    ] = None
    pretrained: Annotated[
        Switch,
        _switch(
            MODEL,
            "The model's published weights, or random ones; default pretrained.",
            "--pretrained/--no-pretrained",
        ),
    ] = None
    strict: Annotated[
        Switch,
        _switch(
            MODEL,
            "Refuse a checkpoint with missing or unexpected keys; default strict.",
            "--strict/--no-strict",
        ),
    ] = None
    num_classes: Annotated[
        Text, _option(MODEL, "N", "Classes of the model's head.", "--num-classes")
    ] = None
    img_size: Annotated[
        Text, _option(MODEL, "N|HxW", "Input size in pixels; default the model's.", "--img-size")
    ] = None
    model_kwargs: Annotated[
        Texts,
        _option(
            MODEL, "KEY=VALUE", "An argument of the model's constructor; repeat.", "--model-kwargs"
        ),
    ] = None
    class_map: Annotated[
        Text,
        _option(MODEL, "FILE", "Class names: a name a line, index,name, or JSON.", "--class-map"),
    ] = None

    output_key: Annotated[
        Text,
        _option(
            MODEL,
            "KEY",
            "Where your own model's logits are in the tuple or dictionary that it returns.",
            "--output-key",
        ),
    ] = None

    outputs: Annotated[
        Text,
        _option(
            MODEL,
            "WHAT",
            "What the outputs mean: logits, probabilities (of one class), independent (several "
            "classes at once) or value (a real number); default measured.",
            "--outputs",
        ),
    ] = None

    target_layers: Annotated[
        Texts,
        _option(
            LAYER,
            "NAMES",
            "Layers to explain at (layer4, blocks.-1.norm1), by commas or repeated; "
            "default found by measuring.",
            "--target-layers",
        ),
    ] = None
    layer_fusion: Annotated[
        Text,
        _option(
            LAYER,
            "HOW",
            "Several layers: mean, max, product, refine (RefineCAM), or none for a map each; "
            "default mean.",
            "--layer-fusion",
        ),
    ] = None
    vit_like: Annotated[
        Switch,
        _switch(
            LAYER,
            "The layer puts out tokens, or does not; default measured.",
            "--vit-like/--no-vit-like",
        ),
    ] = None
    num_extra_tokens: Annotated[
        Text,
        _option(
            LAYER,
            "N",
            "Tokens that are no part of the grid, such as the class token; default measured.",
            "--num-extra-tokens",
        ),
    ] = None
    preview_model: Annotated[
        bool,
        _switch(LAYER, "Show the model's layers and stop; needs no image.", "--preview-model"),
    ] = False

    method: Annotated[
        Texts,
        _option(
            WHAT,
            "NAMES",
            f"{', '.join(METHOD_INFO)}, or all on one sheet; by commas or repeated;"
            " default gradcam.",
            "--method",
        ),
    ] = None
    target_category: Annotated[
        Texts,
        _option(
            WHAT,
            "CLASSES",
            "Classes to explain, by index or name, by commas or repeated; "
            "default the predicted one.",
            "--target-category",
        ),
    ] = None
    top_k: Annotated[Text, _option(WHAT, "K", "Explain the K best classes.", "--top-k")] = None
    threshold: Annotated[
        Text,
        _option(
            WHAT,
            "P",
            "Explain all classes of at least this probability, or else the likeliest.",
            "--threshold",
        ),
    ] = None
    target: Annotated[
        Text,
        _option(
            WHAT,
            "NAME",
            "What is explained of the class: logit, probability, log-probability, rest, "
            "counterfactual (what speaks against it) or contrast; default logit.",
            "--target",
        ),
    ] = None
    contrast: Annotated[
        Texts,
        _option(
            WHAT,
            "CLASSES",
            "Why this class and not those: by index or name, by commas or repeated; "
            "--target contrast takes the 3 most similar.",
            "--contrast",
        ),
    ] = None
    contrast_strength: Annotated[
        Text,
        _option(
            WHAT,
            "N",
            "How much of the other classes' mean logit is taken away; default 0.6.",
            "--contrast-strength",
        ),
    ] = None
    set: Annotated[
        Texts,
        _option(
            WHAT,
            "NAME=VALUE",
            "An option of the methods, or of one: METHOD.NAME=VALUE; repeat.",
            "--set",
        ),
    ] = None
    max_channels: Annotated[
        Text,
        _option(
            WHAT,
            "K",
            "Only the K channels with the highest mean activation, for a quick look.",
            "--max-channels",
        ),
    ] = None
    aug_smooth: Annotated[
        Switch,
        _switch(WHAT, "Average over flips and brightness changes.", "--aug-smooth/--no-aug-smooth"),
    ] = None
    eigen_smooth: Annotated[
        Switch,
        _switch(
            WHAT,
            "First principal component of the weighted channels in place of their sum.",
            "--eigen-smooth/--no-eigen-smooth",
        ),
    ] = None
    noise_smooth: Annotated[
        Text, _option(WHAT, "N", "Average over N noisy copies of the picture.", "--noise-smooth")
    ] = None
    noise_sigma: Annotated[
        Text,
        _option(
            WHAT,
            "N",
            "That noise's deviation, as a share of the picture's range; default 0.15.",
            "--noise-sigma",
        ),
    ] = None
    seed: Annotated[
        Text, _option(WHAT, "N", "Seed for methods and noise drawn at random; default 0.", "--seed")
    ] = None

    recursive: Annotated[
        Switch,
        _switch(
            PICTURE,
            "Look into the folders in a folder, too; default recursive.",
            "--recursive/--no-recursive",
        ),
    ] = None
    mean: Annotated[
        Text,
        _option(
            PICTURE,
            "N,...",
            "Mean of the input's channels, 0..1, or one for all; default the model's.",
            "--mean",
        ),
    ] = None
    std: Annotated[
        Text,
        _option(
            PICTURE,
            "N,...",
            "Standard deviation of the channels, or one for all; default the model's.",
            "--std",
        ),
    ] = None
    fit: Annotated[
        Text,
        _option(
            PICTURE,
            "HOW",
            "What the network sees of the picture: crop, squash or pad; default the model's.",
            "--fit",
        ),
    ] = None
    device: Annotated[
        Text,
        _option(PICTURE, "DEVICE", "auto, cpu, cuda, cuda:N or mps; default auto.", "--device"),
    ] = None
    batch_size: Annotated[
        Text,
        _option(
            PICTURE,
            "N|auto",
            "Pictures in one pass, or copies that a method alters (32); auto finds what fits; "
            "default 8.",
            "--batch-size",
            "-b",
        ),
    ] = None
    max_pixels: Annotated[
        Text,
        _option(
            PICTURE,
            "N",
            "Refuse pictures of more pixels before they are decoded (50M, 1G); default 178956970.",
            "--max-pixels",
        ),
    ] = None
    max_memory: Annotated[
        Text,
        _option(
            PICTURE,
            "N|SHARE",
            "Memory for pictures that are read, drawn and written at once (2G, 30%); one that "
            "needs more goes alone; default 50% of the machine's or container's.",
            "--max-memory",
        ),
    ] = None
    workers: Annotated[
        Text,
        _option(
            PICTURE,
            "N",
            "Threads that read, draw and write beside the model, 0 for none; default one a core, "
            "at most 8; beside a model on the CPU they work between its passes.",
            "--workers",
            "-j",
        ),
    ] = None
    engine: Annotated[
        Text,
        _option(
            PICTURE,
            "NAME",
            "local, or ray: workers on a Ray cluster, or on this machine's GPUs or cores; see "
            "camviz help clusters; default local.",
            "--engine",
        ),
    ] = None
    ray_workers: Annotated[
        Text,
        _option(
            PICTURE,
            "N",
            "Workers of --engine ray, each with a model; default one a GPU, or a core.",
            "--ray-workers",
        ),
    ] = None
    precision: Annotated[
        Text,
        _option(
            PICTURE,
            "NAME",
            "float32, bf16, fp16, or auto: bf16 where a GPU has it; default float32.",
            "--precision",
        ),
    ] = None
    compile: Annotated[
        Switch,
        _switch(
            PICTURE,
            "Compile the model first, for long runs; see camviz help speed.",
            "--compile/--no-compile",
        ),
    ] = None

    every: Annotated[
        Text,
        _option(VIDEOS, "N", "Every n-th frame; of an animated picture, too.", "--every"),
    ] = None
    frames: Annotated[
        Text,
        _option(
            VIDEOS,
            "A:B",
            "Frames from A up to B, without B, counted from 0: 10:50, :50, 10:.",
            "--frames",
        ),
    ] = None
    camera: Annotated[
        Text, _option(VIDEOS, "N", "Explain what a camera sees; the first is 0.", "--camera")
    ] = None
    smooth_frames: Annotated[
        Text,
        _option(VIDEOS, "N", "Let maps follow each other over about N frames.", "--smooth-frames"),
    ] = None
    save_frames: Annotated[
        Switch,
        _switch(
            VIDEOS,
            "Write the frames of a video as pictures as well.",
            "--save-frames/--no-save-frames",
        ),
    ] = None

    colormap: Annotated[
        Text,
        _option(OUTPUT, "NAME", "jet, turbo, viridis, inferno, ...; default jet.", "--colormap"),
    ] = None
    alpha: Annotated[
        Text, _option(OUTPUT, "0..1", "How much of the heat is laid on; default 0.5.", "--alpha")
    ] = None
    scale: Annotated[
        Text,
        _option(
            OUTPUT,
            "HOW",
            "Which raw values the colours span: each image's own, one scale for the run, or "
            "MIN,MAX; default image.",
            "--scale",
        ),
    ] = None
    save_path: Annotated[
        Text,
        _option(
            OUTPUT,
            "PATH",
            "A folder, or a file for a single picture or video; default camviz-out.",
            "--save-path",
        ),
    ] = None
    format: Annotated[
        Text,
        _option(OUTPUT, "FORMAT", "jpg or png; default the input's own.", "--format"),
    ] = None
    save_map: Annotated[
        Text, _option(OUTPUT, "npy", "Write the raw map as well.", "--save-map")
    ] = None
    map_size: Annotated[
        Text,
        _option(
            OUTPUT,
            "SIZE",
            "The raw map's size: layer, input or image; default layer.",
            "--map-size",
        ),
    ] = None
    resume: Annotated[
        Switch,
        _switch(
            OUTPUT,
            "Go on with the run that was cut off in this folder; see camviz help runs.",
            "--resume/--no-resume",
        ),
    ] = None
    skip_existing: Annotated[
        Switch,
        _switch(
            OUTPUT,
            "Pass over pictures that these options explained, and try failed ones again.",
            "--skip-existing/--no-skip-existing",
        ),
    ] = None
    fail_fast: Annotated[
        Switch,
        _switch(OUTPUT, "Stop at the first picture that fails.", "--fail-fast/--no-fail-fast"),
    ] = None
    max_failures: Annotated[
        Text,
        _option(OUTPUT, "N", "Stop when more than N pictures failed.", "--max-failures"),
    ] = None
    json: Annotated[
        bool,
        _switch(OUTPUT, "Print one JSON object a heatmap.", "--json", variable="CAMVIZ_JSON"),
    ] = False
    quiet: Annotated[
        bool,
        _switch(
            OUTPUT, "Print one path a line, and no notes.", "--quiet", "-q", variable="CAMVIZ_QUIET"
        ),
    ] = False

    config: Annotated[
        Text,
        _option(
            SETTINGS,
            "NAME|FILE",
            "A preset or a TOML file of options; see camviz help presets.",
            "--config",
        ),
    ] = None
    cfg_options: Annotated[
        Texts,
        _option(
            SETTINGS,
            "KEY=VALUE",
            "Change the preset, such as preprocessing.fit=pad; repeat.",
            "--cfg-options",
        ),
    ] = None
    profile: Annotated[
        bool, _switch(OUTPUT, "Say at the end where the time went.", "--profile")
    ] = False
    debug: Annotated[
        bool,
        _switch(SETTINGS, "Show the traceback of an error.", "--debug", variable="CAMVIZ_DEBUG"),
    ] = False
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Show the version and stop.",
            callback=_show_version,
            is_eager=True,
            rich_help_panel=SETTINGS,
            show_default=False,
        ),
    ] = False

    @property
    def given(self) -> dict[str, Any]:
        """The options that were typed, without what only the command line itself needs."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v for k, v in values.items() if v is not None and k not in OWN}


OWN = frozenset(
    {"preview_model", "json", "quiet", "profile", "config", "cfg_options", "debug", "version"}
)


def with_flags(command: Callable[[list[str], Flags], None]) -> Callable[..., None]:
    """Turns `command(images, flags)` into a function with one parameter an option, for typer."""

    def spread(images: list[str] | None = None, **typed: Any) -> None:
        command(images or [], Flags(**typed))

    hints = get_type_hints(Flags, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("images", keyword, default=None, annotation=Images),
        *(
            inspect.Parameter(f.name, keyword, default=f.default, annotation=hints[f.name])
            for f in fields(Flags)
        ),
    ]
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    spread.__doc__ = command.__doc__
    return spread
