"""Names our options for those of other tools, which are typed by habit."""

from __future__ import annotations

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
