"""Names our options for those of other tools, and for those typed with one dash, by habit."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from camcli.errors import UsageError

PICTURES = "no option: camviz IMAGE..."
# names that are nobody's here, of the scripts of pytorch-grad-cam, torch-cam and timm among others
OWN_OPTIONS = {
    **dict.fromkeys(("--image-path", "--image", "--images", "--img", "--input"), PICTURES),
    **dict.fromkeys(
        ("-o", "--out", "--out-dir", "--output", "--output-dir", "--savefig"), "--save-path PATH"
    ),
    **dict.fromkeys(("--arch", "--model-name"), "--model NAME"),
    **dict.fromkeys(("--weights", "--ckpt"), "--checkpoint FILE"),
    **dict.fromkeys(("--layer", "--layers"), "--target-layers NAMES"),
    **dict.fromkeys(
        ("--class", "--class-idx", "--category", "--target-class"), "--target-category CLASSES"
    ),
    **dict.fromkeys(("--cuda", "--use-cuda", "--gpu"), "--device cuda"),
    "--cmap": "--colormap NAME",
    "--input-size": "--img-size N|HxW",
    "--num-workers": "--workers N",
    "--amp": "--precision auto",
}


def find_own_option(option: str) -> str | None:
    """Returns what an option of another tool is called here, where that is known."""
    return OWN_OPTIONS.get(option.replace("_", "-"))


def check_dashes(args: Sequence[str], options: Collection[str]) -> None:
    """Raises UsageError for an option of several letters behind one dash: `-model resnet50`.

    Click would take it for `-m odel`.
    """
    for word in args[: args.index("--")] if "--" in args else args:
        name = word.partition("=")[0].replace("_", "-")
        if name[:1] == "-" and name[:2] != "--" and f"-{name}" in options:
            raise UsageError(f"No such option: {word}. Did you mean -{name}, with two dashes?")
