"""Refuses options that do not go together, as far as that is known without a model."""

from __future__ import annotations

from collections.abc import Iterator

from camcli.config.options import Options
from camcli.errors import UsageError
from camcli.method_terms import BEST, check_methods


def find_contradictions(options: Options) -> Iterator[UsageError]:
    """Yields an error for options that contradict each other, or that do nothing alone."""
    yield from _refuse_two_resumes(options)
    yield from _refuse_workers_without_ray(options)
    yield from _refuse_processes(options)
    yield from _refuse_options_without_boxes(options)
    yield from _refuse_options_of_maps(options)
    yield from _refuse_two_choices_of_classes(options)
    yield from _refuse_two_replacements_of_classes(options)
    yield from _refuse_two_choices_of_layers(options)
    yield from _refuse_what_does_not_compare(options)
    given = options.model_fields_set
    if "noise_sigma" in given and not options.noise_smooth:
        yield UsageError("--noise-sigma is for --noise-smooth N: give that, too.")
    if "contrast_strength" in given and not (options.contrast or options.target == "contrast"):
        yield UsageError(
            "--contrast-strength is for --contrast CLASSES, or --target contrast: give one of them."
        )


def refuse_contradictions(options: Options) -> None:
    """Raises the first of these errors, also for methods that a run cannot have together.

    `camviz tune` takes other methods than a run: METHOD@LAYER and --best-for by themselves.
    """
    for contradiction in find_contradictions(options):
        raise contradiction
    check_methods(options.method, options.combine, options.best_for)


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


def _refuse_processes(options: Options) -> Iterator[UsageError]:
    if not options.processes:
        return
    given = f"--processes {options.processes}"
    if options.workers:
        yield UsageError(
            f"{given} stands in the place of the threads of --workers {options.workers}: give one "
            "of the two."
        )
    if options.engine == "ray":
        yield UsageError(f"{given} is for one machine: give --ray-workers with --engine ray.")
    if options.scale == "run":
        yield UsageError(
            f"{given} draws each picture by itself, and --scale run all at the end: leave one of "
            "the two out."
        )
    if options.compare is not None:
        yield UsageError(
            f"{given} draws the maps of one model, and --compare has two: leave one of the two out."
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


def _refuse_options_of_maps(options: Options) -> Iterator[UsageError]:
    if options.save_mask is not None and options.mask_percentile is not None:
        yield UsageError(
            "--save-mask and --mask-percentile each say what is in the mask: give one of them."
        )
    if "map_outside" not in options.model_fields_set:
        return
    outside = f"--map-outside {options.map_outside}"
    if options.save_map is None or options.map_size != "image":
        yield UsageError(
            f"{outside} is for maps of the picture's size: give --save-map and --map-size image, "
            "too."
        )
    if options.save_map == "png16" and options.map_outside == "nan":
        yield UsageError(f"{outside} is not for --save-map png16, which has no NaN: it has zero.")


def _refuse_two_choices_of_classes(options: Options) -> Iterator[UsageError]:
    if not options.target_category:
        return
    for given, name in ((options.threshold, "--threshold"), (options.top_k, "--top-k")):
        if given is not None:
            yield UsageError(
                f"--target-category and {name} each choose the classes: give one of them."
            )


def _refuse_two_choices_of_layers(options: Options) -> Iterator[UsageError]:
    if not options.layers_sweep:
        return
    if options.target_layers:
        yield UsageError(
            "--layers-sweep and --target-layers each choose the layers: give one of them "
            "(--layer-fusion none gives named layers a map each)."
        )
    if options.combine or BEST in options.method:
        chooser = "--combine" if options.combine else "--method best"
        yield UsageError(
            f"--layers-sweep gives each layer a map, and {chooser} makes one of several: give one "
            "of them."
        )
    if "layer_fusion" in options.model_fields_set and options.layer_fusion != "none":
        yield UsageError(
            f"--layers-sweep gives each layer a map, and --layer-fusion {options.layer_fusion} "
            "makes one of several: give one of them."
        )


def _refuse_what_does_not_compare(options: Options) -> Iterator[UsageError]:
    if options.compare is None:
        return
    refused = {
        "--layers-sweep": options.layers_sweep,
        "--like": options.like,
        "--text": options.text,
        "--threshold": options.threshold is not None,
        "--scale run": options.scale == "run",
        "--camera": options.camera is not None,
    }
    for name, is_given in refused.items():
        if is_given:
            yield UsageError(
                f"--compare explains the same classes of pictures by two models, and does not go "
                f"together with {name}: give one of them."
            )


def _refuse_two_replacements_of_classes(options: Options) -> Iterator[UsageError]:
    if options.like and options.text:
        yield UsageError("--like and --text each stand in the place of classes: give one of them.")
    if "template" in options.model_fields_set and not options.text:
        yield UsageError("--template is for --text: give that, too.")
    if "likeness" in options.model_fields_set and not options.like:
        yield UsageError("--likeness is for --like: give that, too.")
