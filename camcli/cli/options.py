"""What is typed behind a command: names, help and panels; values are checked in config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from camcli import __version__
from camcli.cli.commands.completion import install_for
from camcli.cli.help_format import WHOLE
from camcli.cli.printer import print_text
from camcli.method_info import METHOD_INFO
from camcli.option_info import DEFAULT_FOLDER, OPTION_INFO

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

# of the commands that look at what a run wrote
FOLDER = Path(DEFAULT_FOLDER)
OutputFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help=f"The output folder of a run; default {DEFAULT_FOLDER}.",
        show_default=False,
    ),
]


def _option(panel: str, metavar: str, *names: str, also: str = "", own: str = "") -> Any:
    return typer.Option(
        *names,
        metavar=metavar,
        help=own or _find_sentence(names[0], also),
        rich_help_panel=panel,
        show_default=False,
    )


def _switch(panel: str, *names: str, own: str = "", variable: str | None = None) -> Any:
    return typer.Option(
        *names,
        metavar="",
        help=own or _find_sentence(names[0]),
        rich_help_panel=panel,
        show_default=False,
        envvar=variable,
        show_envvar=False,
    )


def _find_sentence(flag: str, also: str = "") -> str:
    """Returns what is said of an option, and behind it how it is typed."""
    name = flag.removeprefix("--").partition("/")[0].replace("-", "_")
    return f"{OPTION_INFO[name]} {also}".rstrip()


def _show_version(asked: bool) -> None:
    if asked:
        print_text(f"camviz {__version__}")
        raise typer.Exit


def _show_all_options(ctx: typer.Context, asked: bool) -> None:
    if asked:
        ctx.meta[WHOLE] = True
        print_text(ctx.get_help())
        raise typer.Exit


def _install_completion(asked: bool) -> None:
    if asked:
        install_for()
        raise typer.Exit


Text = str | None
Texts = list[str] | None
Switch = bool | None


@dataclass(frozen=True)
class Flags:
    """What was typed; None where nothing was, so that environment and preset may speak."""

    model: Annotated[Text, _option(MODEL, "NAME", "--model", "-m")] = None
    checkpoint: Annotated[Text, _option(MODEL, "FILE", "--checkpoint")] = None
    compare: Annotated[Text, _option(MODEL, "MODEL|FILE", "--compare")] = None
    pretrained: Annotated[Switch, _switch(MODEL, "--pretrained/--no-pretrained")] = None
    strict: Annotated[Switch, _switch(MODEL, "--strict/--no-strict")] = None
    num_classes: Annotated[Text, _option(MODEL, "N", "--num-classes")] = None
    img_size: Annotated[Text, _option(MODEL, "N|HxW", "--img-size")] = None
    model_kwargs: Annotated[
        Texts, _option(MODEL, "KEY=VALUE", "--model-kwargs", also="Repeat for more.")
    ] = None
    class_map: Annotated[Text, _option(MODEL, "FILE", "--class-map")] = None

    output_key: Annotated[Text, _option(MODEL, "KEY", "--output-key")] = None

    outputs: Annotated[Text, _option(MODEL, "WHAT", "--outputs")] = None

    like: Annotated[
        Texts, _option(MODEL, "PATH", "--like", also="A file, folder or URL; repeat for more.")
    ] = None
    text: Annotated[Texts, _option(MODEL, "TEXT", "--text", also="Repeat for more.")] = None
    template: Annotated[Text, _option(MODEL, "TEXT", "--template")] = None
    likeness: Annotated[Text, _option(MODEL, "HOW", "--likeness")] = None

    target_layers: Annotated[
        Texts, _option(LAYER, "NAMES", "--target-layers", also="By commas or repeated.")
    ] = None
    layer_fusion: Annotated[Text, _option(LAYER, "HOW", "--layer-fusion")] = None
    layers_sweep: Annotated[Switch, _switch(LAYER, "--layers-sweep/--no-layers-sweep")] = None
    vit_like: Annotated[Switch, _switch(LAYER, "--vit-like/--no-vit-like")] = None
    num_extra_tokens: Annotated[Text, _option(LAYER, "N", "--num-extra-tokens")] = None
    preview_model: Annotated[
        bool,
        _switch(LAYER, "--preview-model", own="Show the model's layers and stop; needs no image."),
    ] = False
    depth: Annotated[
        Text,
        _option(
            LAYER,
            "N",
            "--depth",
            own="How many levels of layers --preview-model shows; default all.",
        ),
    ] = None

    method: Annotated[
        Texts,
        _option(
            WHAT,
            "NAMES",
            "--method",
            also=f"One or more of {', '.join(METHOD_INFO)}, or all on one sheet, or best; by "
            "commas or repeated; METHOD@LAYER with --combine.",
        ),
    ] = None
    best_for: Annotated[Text, _option(WHAT, "AIM", "--best-for")] = None
    combine: Annotated[Text, _option(WHAT, "HOW", "--combine")] = None
    target_category: Annotated[
        Texts, _option(WHAT, "CLASSES", "--target-category", also="By commas or repeated.")
    ] = None
    top_k: Annotated[Text, _option(WHAT, "K", "--top-k")] = None
    threshold: Annotated[Text, _option(WHAT, "P", "--threshold")] = None
    target: Annotated[Text, _option(WHAT, "NAME", "--target")] = None
    contrast: Annotated[
        Texts,
        _option(WHAT, "CLASSES", "--contrast", also="By index or name, by commas or repeated."),
    ] = None
    contrast_strength: Annotated[Text, _option(WHAT, "N", "--contrast-strength")] = None
    set: Annotated[Texts, _option(WHAT, "NAME=VALUE", "--set", also="Repeat for more.")] = None
    max_channels: Annotated[Text, _option(WHAT, "K", "--max-channels")] = None
    aug_smooth: Annotated[Switch, _switch(WHAT, "--aug-smooth/--no-aug-smooth")] = None
    eigen_smooth: Annotated[Switch, _switch(WHAT, "--eigen-smooth/--no-eigen-smooth")] = None
    noise_smooth: Annotated[Text, _option(WHAT, "N", "--noise-smooth")] = None
    noise_sigma: Annotated[Text, _option(WHAT, "N", "--noise-sigma")] = None
    seed: Annotated[Text, _option(WHAT, "N", "--seed")] = None

    recursive: Annotated[Switch, _switch(PICTURE, "--recursive/--no-recursive")] = None
    mean: Annotated[Text, _option(PICTURE, "N,...", "--mean")] = None
    std: Annotated[Text, _option(PICTURE, "N,...", "--std")] = None
    fit: Annotated[Text, _option(PICTURE, "HOW", "--fit")] = None
    device: Annotated[Text, _option(PICTURE, "DEVICE", "--device")] = None
    batch_size: Annotated[Text, _option(PICTURE, "N|auto", "--batch-size", "-b")] = None
    max_pixels: Annotated[Text, _option(PICTURE, "N", "--max-pixels")] = None
    max_memory: Annotated[Text, _option(PICTURE, "N|SHARE", "--max-memory")] = None
    workers: Annotated[Text, _option(PICTURE, "N", "--workers", "-j")] = None
    processes: Annotated[Text, _option(PICTURE, "N", "--processes")] = None
    engine: Annotated[Text, _option(PICTURE, "NAME", "--engine")] = None
    ray_workers: Annotated[Text, _option(PICTURE, "N", "--ray-workers")] = None
    precision: Annotated[Text, _option(PICTURE, "NAME", "--precision")] = None
    compile: Annotated[Switch, _switch(PICTURE, "--compile/--no-compile")] = None

    every: Annotated[Text, _option(VIDEOS, "N", "--every")] = None
    frames: Annotated[Text, _option(VIDEOS, "A:B", "--frames")] = None
    camera: Annotated[Text, _option(VIDEOS, "N", "--camera")] = None
    smooth_frames: Annotated[Text, _option(VIDEOS, "N", "--smooth-frames")] = None
    save_frames: Annotated[Switch, _switch(VIDEOS, "--save-frames/--no-save-frames")] = None

    colormap: Annotated[Text, _option(OUTPUT, "NAME", "--colormap")] = None
    alpha: Annotated[Text, _option(OUTPUT, "0..1|auto", "--alpha")] = None
    outside: Annotated[Text, _option(OUTPUT, "HOW", "--outside")] = None
    caption: Annotated[Switch, _switch(OUTPUT, "--caption/--no-caption")] = None
    scale: Annotated[Text, _option(OUTPUT, "HOW", "--scale")] = None
    boxes: Annotated[
        Text, _option(OUTPUT, "[all]", "--boxes", also="Without a value, the largest.")
    ] = None
    box_threshold: Annotated[Text, _option(OUTPUT, "SHARE", "--box-threshold")] = None
    contour: Annotated[Switch, _switch(OUTPUT, "--contour/--no-contour")] = None
    export: Annotated[Text, _option(OUTPUT, "FORMAT", "--export")] = None
    sheet: Annotated[
        Text, _option(OUTPUT, "FILE", "--sheet", also="Without a value, a .png beside them.")
    ] = None
    save_path: Annotated[Text, _option(OUTPUT, "PATH", "--save-path")] = None
    format: Annotated[Text, _option(OUTPUT, "FORMAT", "--format")] = None
    save_map: Annotated[Text, _option(OUTPUT, "FORMAT", "--save-map")] = None
    map_size: Annotated[Text, _option(OUTPUT, "SIZE", "--map-size")] = None
    map_outside: Annotated[Text, _option(OUTPUT, "nan|zero", "--map-outside")] = None
    save_mask: Annotated[Text, _option(OUTPUT, "SHARE", "--save-mask")] = None
    mask_percentile: Annotated[Text, _option(OUTPUT, "P", "--mask-percentile")] = None
    report: Annotated[Text, _option(OUTPUT, "FILE", "--report")] = None
    resume: Annotated[Switch, _switch(OUTPUT, "--resume/--no-resume")] = None
    skip_existing: Annotated[Switch, _switch(OUTPUT, "--skip-existing/--no-skip-existing")] = None
    fail_fast: Annotated[Switch, _switch(OUTPUT, "--fail-fast/--no-fail-fast")] = None
    max_failures: Annotated[Text, _option(OUTPUT, "N", "--max-failures")] = None
    json: Annotated[
        bool,
        _switch(OUTPUT, "--json", own="Print one JSON object a heatmap.", variable="CAMVIZ_JSON"),
    ] = False
    show: Annotated[
        bool,
        _switch(
            OUTPUT,
            "--show",
            own="Draw each overlay in the terminal (kitty, iTerm2, sixel, or half-blocks).",
        ),
    ] = False
    quiet: Annotated[
        bool,
        _switch(
            OUTPUT,
            "--quiet",
            "-q",
            own="Print one path a line, and no notes.",
            variable="CAMVIZ_QUIET",
        ),
    ] = False

    config: Annotated[
        Text,
        _option(
            SETTINGS,
            "NAME|FILE",
            "--config",
            own="A preset or a TOML file of options; see camviz help presets.",
        ),
    ] = None
    cfg_options: Annotated[
        Texts,
        _option(
            SETTINGS,
            "KEY=VALUE",
            "--cfg-options",
            own="Change the preset, such as preprocessing.fit=pad; repeat.",
        ),
    ] = None
    profile: Annotated[
        bool, _switch(OUTPUT, "--profile", own="Say at the end where the time went.")
    ] = False
    debug: Annotated[
        bool,
        _switch(
            SETTINGS, "--debug", own="Show the traceback of an error.", variable="CAMVIZ_DEBUG"
        ),
    ] = False
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            metavar="",
            help="Show the version and stop.",
            callback=_show_version,
            is_eager=True,
            rich_help_panel=SETTINGS,
            show_default=False,
        ),
    ] = False

    help_all: Annotated[
        bool,
        typer.Option(
            "--help-all",
            metavar="",
            help="Show all options and stop; --help shows those that most people use.",
            callback=_show_all_options,
            is_eager=True,
            rich_help_panel=SETTINGS,
            show_default=False,
        ),
    ] = False
    install_completion: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            metavar="",
            help="Let your shell complete what you type, and stop; see camviz completion --help.",
            callback=_install_completion,
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
    {
        "preview_model",
        "depth",
        "json",
        "quiet",
        "show",
        "profile",
        "config",
        "cfg_options",
        "debug",
        "version",
        "help_all",
        "install_completion",
    }
)


def with_flags(command: Callable[[list[str], Flags], None]) -> Callable[..., None]:
    """Turns `command(images, flags)` into a function with one parameter an option, for typer."""
    return with_some_flags(*(field.name for field in fields(Flags)))(command)


def with_some_flags(
    *names: str, takes_images: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turns `command(images, flags, own, ...)` into one with a parameter for some of the options.

    The command's own parameters, behind the first two, stay as they are.  One that takes no images
    is called with none.
    """

    def take(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]
        owned = {parameter.name for parameter in own}

        def spread(images: list[str] | None = None, **typed: Any) -> None:
            flags = Flags(**{name: value for name, value in typed.items() if name not in owned})
            command(images or [], flags, **{name: typed[name] for name in owned})

        hints = get_type_hints(Flags, include_extras=True)
        keyword = inspect.Parameter.KEYWORD_ONLY
        words = inspect.Parameter("images", keyword, default=None, annotation=Images)
        parameters = [
            *([words] if takes_images else []),
            *(parameter.replace(kind=keyword) for parameter in own),
            *(
                inspect.Parameter(f.name, keyword, default=f.default, annotation=hints[f.name])
                for f in fields(Flags)
                if f.name in names
            ),
        ]
        spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        spread.__annotations__ = {p.name: p.annotation for p in parameters}
        spread.__doc__ = command.__doc__
        return spread

    return take


# what says which model is loaded, what it sees, and what is explained of it
MODEL_FLAGS = (
    "model", "checkpoint", "pretrained", "strict", "num_classes", "img_size", "model_kwargs",
    "class_map", "output_key", "outputs", "target_layers", "layer_fusion", "vit_like",
    "num_extra_tokens", "method", "target_category", "set", "max_channels", "eigen_smooth", "seed",
    "recursive", "mean", "std", "fit", "device", "batch_size", "max_pixels", "precision", "json",
    "config", "cfg_options", "debug",
)  # fmt: skip
