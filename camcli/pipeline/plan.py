"""The plan of a run: layers, methods and categories for every picture, resolved once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from camcli.config import Options, refuse_contradictions
from camcli.engine.batch_context import TokenOptions, choose_chunk
from camcli.engine.compatibility import find_incompatible_methods
from camcli.engine.compile import compile_model as blocks_compiled
from camcli.engine.device.batch_size import find_largest_batch
from camcli.engine.device.precision import is_emulated
from camcli.engine.explain_request import ExplainRequest
from camcli.engine.layer_selection import find_default_layer, spread_layers
from camcli.engine.method_selection import (
    MethodSelection,
    find_selected_layers,
    select_methods,
)
from camcli.engine.targets import (
    OF_PROBABILITY,
    CategoryChoice,
    FixedCategories,
    LikelyCategories,
    PerPictureCategories,
    Target,
    TopKCategories,
    make_target,
)
from camcli.errors import ModelError, UsageError
from camcli.method_terms import AT, BEST, COMBINED, split_term
from camcli.methods.smoothing import Noise
from camcli.models.acceleration import PrepackCache
from camcli.models.inspection.layout import Layout
from camcli.models.labels import NO_YES, find_category, label_name
from camcli.models.load import Classifier
from camcli.models.outputs.interpretation import read_as_logit
from camcli.models.state import call_on_model
from camcli.models.words.prompts import reads_words
from camcli.records import Source
from camcli.registry import ALL, assign_options, depends_on_category, depends_on_layer
from camcli.utils.profiling import stage

SWEPT_LAYERS = 5
BATCH = 8  # pictures in a pass by default
LARGE_BATCH = 256  # larger batches are checked against the free memory


@dataclass(frozen=True)
class Plan:
    """What is done to every picture: the request, the categories, and why this layer was chosen.

    `categories` are indices, or the number of best classes, or None for a model without classes.
    """

    classifier: Classifier
    request: ExplainRequest
    categories: tuple[int, ...] | int | None
    layer_reason: str
    # by layer: why it is uncertain that its cells lie where the picture's parts do
    doubts: Mapping[str, str] = field(default_factory=dict)
    on_sheets: bool = False
    # methods of `all` that do not fit the model, and why
    left_out: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = BATCH
    compile: bool = False
    prepack_cache: PrepackCache = field(default_factory=PrepackCache)
    # classes of at least this probability are explained
    threshold: float | None = None
    # by combination: why these methods and layers were chosen
    combined_reasons: Mapping[str, str] = field(default_factory=dict)
    # of a second model that is compared with this one, and whether each map has a scale of its own
    other: Plan | None = None
    other_weights: str = ""
    own_scales: bool = False

    def choice(self, named: Sequence[int | None]) -> CategoryChoice | None:
        """Returns the choice of categories for a batch, or None for a model without classes.

        `named` holds the category that a list names for each picture, which then counts.
        """
        if self.categories is None:
            return None
        if any(category is not None for category in named):
            return PerPictureCategories(tuple(named))
        if isinstance(self.categories, int):
            if self.threshold is not None:
                return LikelyCategories(self.threshold, self.categories, self.request.reading.link)
            return TopKCategories(self.categories)
        return FixedCategories(torch.tensor(self.categories).expand(len(named), -1))

    def find_named_category(self, name: str) -> int | None:
        """Finds the index of a category that a list names for a picture; raises UnknownName."""
        if not name:
            return None
        return find_category(name, self.classifier.labels, self.classifier.num_categories)

    def check_named(self, sources: Sequence[Source]) -> None:
        """Raises UsageError if lists name categories and the options choose others."""
        named = next((source for source in sources if source.category), None)
        if named is None or self.categories == 1:
            return
        if self.categories is None:
            raise UsageError(
                f"{self.classifier.name!r} has no classes, and a list names "
                f"{named.category!r} for {str(named)!r}."
            )
        raise UsageError(
            f"A list names the category {named.category!r} for {str(named)!r}: leave "
            "--target-category and --top-k out, or the list's categories."
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings before a run: how outputs are read, and what is slow on this machine."""
        precision, note = self.request.precision, self.request.reading.note
        notes = (f"{self.classifier.name!r}: {note}",) if note and self.categories else ()
        if not is_emulated(precision, self.classifier.device):
            return (*notes, *self.doubts.values())
        return (
            *notes,
            *self.doubts.values(),
            f"This processor only emulates {precision}, which takes several times as long as "
            "float32: leave --precision out.",
        )

    @property
    def overlays_per_picture(self) -> int:
        """How many overlays each picture gets: one for each heatmap, or a sheet for each class."""
        chosen = 1 if self.categories is None else self.categories
        k = chosen if isinstance(chosen, int) else len(chosen)
        if self.on_sheets:
            return k
        layers = len(self.request.layers) if self.request.layer_fusion == "none" else 1

        def maps(method: str) -> int:
            several = layers if depends_on_layer(method) else 1
            return several * (k if depends_on_category(method) else 1)

        combined = sum(k if one.asks_class else 1 for one in self.request.combined)
        own = sum(map(maps, self.request.methods)) + combined
        # the other model's, and the difference
        return 3 * own if self.other else own


@stage("load")
def make_plan(classifier: Classifier, options: Options) -> Plan:
    """Resolves a run's layers, methods and categories; raises UsageError for unknown ones.

    Methods that do not fit the model are left out of `all`.
    """
    with call_on_model(classifier.module):
        return _make_plan(classifier, options)


def _make_plan(classifier: Classifier, options: Options) -> Plan:
    refuse_contradictions(options)
    classifier = _apply_class_choice(classifier, options)
    has_all = ALL in options.method
    # a run with one sheet for all pictures writes the overlays that stand on it
    on_sheets = has_all and options.sheet is None
    if not has_all:
        _check_has_classes(classifier, options.method)
    categories = _find_categories(classifier, options)
    target = _make_target(classifier, options, categories)
    tokens = TokenOptions(options.vit_like, options.num_extra_tokens)
    given = options.target_layers or _list_swept_layers(classifier, options)
    selected = select_methods(
        classifier.module,
        find_input_shape(classifier),
        options.method,
        given,
        options.combine,
        options.best_for,
        classifier.reading,
    )
    methods = selected.methods
    chosen = assign_options(selected.all_methods, options.set, options.seed)
    layers, layouts, reason, doubts = _find_layers(classifier, selected, given)
    if options.layers_sweep:
        reason = "one of the model's grids, by --layers-sweep"
    request = ExplainRequest(
        (),
        layers,
        layouts,
        tokens,
        options.layer_fusion,
        options.aug_smooth,
        options.eigen_smooth,
        chosen,
        target,
        classifier.reading,
        _make_noise(options),
        _find_chunk(options, classifier.device),
        options.precision,
        combined=selected.combined,
    )
    batch = BATCH if options.batch_size == "auto" else options.batch_size
    plan = Plan(
        classifier, request, categories, reason, doubts, on_sheets, {}, batch, options.compile
    )
    reasons = _explain_combined(classifier, selected, options)
    plan = replace(plan, threshold=options.threshold, combined_reasons=reasons)
    left_out = _find_left_out(plan, methods) if has_all else {}
    fitting = tuple(name for name in methods if name not in left_out)
    plan = replace(plan, request=replace(request, methods=fitting), left_out=left_out)
    if options.batch_size == "auto":
        return _fit_batch_size(plan)
    return _limit_batch_size(plan) if options.batch_size > LARGE_BATCH else plan


def _apply_class_choice(classifier: Classifier, options: Options) -> Classifier:
    """Reads a single output as the logit of no and yes if one of these classes is asked for."""
    reading = classifier.reading
    of_classes = options.target_category or options.contrast or options.target in OF_PROBABILITY
    if not (of_classes and reading.is_value) or reading.is_declared or classifier.num_classes != 1:
        return classifier
    return replace(classifier, reading=read_as_logit(reading), labels=NO_YES)


def _find_chunk(options: Options, device: torch.device) -> int:
    is_given = "batch_size" in options.model_fields_set
    return options.batch_size if is_given and options.batch_size != "auto" else choose_chunk(device)


def _fit_batch_size(plan: Plan) -> Plan:
    """Chooses as many pictures, and altered copies, in a pass as fit into memory."""
    module, shape = plan.classifier.module, find_input_shape(plan.classifier)
    size = find_largest_batch(module, plan.request, shape, lambda n: plan.choice([None] * n))
    if size is None:
        return plan
    return replace(plan, batch_size=size, request=replace(plan.request, chunk=size))


def _limit_batch_size(plan: Plan) -> Plan:
    """Lowers the number of pictures in a pass to what fits into memory, and says so."""
    module, shape, asked = (
        plan.classifier.module,
        find_input_shape(plan.classifier),
        plan.batch_size,
    )
    size = find_largest_batch(module, plan.request, shape, lambda n: plan.choice([None] * n), asked)
    if size is None or size >= asked:
        return plan
    doubt = (
        f"a batch of {asked:,} pictures needs more memory than there is: batches have {size:,} "
        "pictures (--batch-size)"
    )
    return replace(
        plan,
        batch_size=size,
        request=replace(plan.request, chunk=size),
        doubts={**plan.doubts, "batch size": doubt},
    )


@contextmanager
def compile_model(plan: Plan) -> Iterator[int | None]:
    """Compiles the model's blocks for a run if that is asked for; yields their number.

    Raises ModelError if they cannot be compiled.
    """
    if not plan.compile:
        yield None
        return
    shape = find_input_shape(plan.classifier)
    with ExitStack() as stack:
        with stage("load"):
            compiling = blocks_compiled(
                plan.classifier.module, plan.request, shape, plan.batch_size
            )
            count = stack.enter_context(compiling)
        yield count


def _find_left_out(plan: Plan, methods: Sequence[str]) -> dict[str, str]:
    return find_incompatible_methods(
        plan.classifier.module,
        draw_grey_noise(plan.classifier),
        plan.choice([None]),
        plan.request,
        methods,
    )


def draw_grey_noise(classifier: Classifier) -> Tensor:
    """Draws a grey noise picture for checking which methods a network allows.  [1 3 H W]"""
    # noise, since a constant picture may give a gradient of zero
    shape, draw = find_input_shape(classifier), torch.Generator().manual_seed(0)
    return torch.rand(1, *shape, generator=draw)


def find_input_shape(classifier: Classifier) -> tuple[int, int, int]:
    """Returns the channels, height and width of the network's input."""
    return (len(classifier.preprocessing.mean), *classifier.preprocessing.size)


def _find_layers(
    classifier: Classifier, selected: MethodSelection, given: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, Layout], str, Mapping[str, str]]:
    shape = find_input_shape(classifier)
    inputs = torch.empty(1, *shape)
    module, reading = classifier.module, classifier.reading
    layers, layouts, doubts = find_selected_layers(module, inputs, selected, given, reading)
    if given or not layers:
        return layers, layouts, "named by --target-layers" if given else "", doubts
    return layers, layouts, find_default_layer(module, shape, reading).reason, doubts


def _list_swept_layers(classifier: Classifier, options: Options) -> tuple[str, ...]:
    """Lists layers from the coarsest grid to finer ones, where a sweep is asked for."""
    if not options.layers_sweep:
        return ()
    shape = find_input_shape(classifier)
    from_fine = spread_layers(classifier.module, shape, SWEPT_LAYERS, classifier.reading)
    return from_fine[::-1]


def _explain_combined(
    classifier: Classifier, selected: MethodSelection, options: Options
) -> Mapping[str, str]:
    """Returns {combination: why these methods and layers were chosen}."""
    if selected.recipe:
        return {BEST: selected.recipe.reason}
    if not selected.combined:
        return {}
    open_terms = [m for m in options.method if AT not in m and depends_on_layer(m)]
    if not open_terms:
        return {COMBINED: "named by --method"}
    if options.target_layers:
        return {COMBINED: "named by --target-layers"}
    shape, reading = find_input_shape(classifier), classifier.reading
    return {COMBINED: find_default_layer(classifier.module, shape, reading).reason}


def _check_has_classes(classifier: Classifier, terms: Sequence[str]) -> None:
    asking = [m for m in terms if m == BEST or depends_on_category(split_term(m)[0])]
    if asking and not classifier.num_classes:
        way_on = "give --num-classes with your own --checkpoint"
        if reads_words(classifier):
            way_on = 'say what to look for with --text "a cat"'
        elif classifier.origin == "python":
            way_on = "let your code return logits [b n], or name them with --output-key"
        raise ModelError(
            f"{classifier.name!r} has no classifier, so {asking[0]} has no class to explain: "
            f"{way_on}, compare it with a picture by --like PICTURE, or try --method eigencam."
        )


def _find_categories(classifier: Classifier, options: Options) -> tuple[int, ...] | int | None:
    if not classifier.num_classes:
        chosen = options.target_category or options.top_k or options.contrast
        if chosen or options.threshold is not None:
            raise UsageError(
                f"{classifier.name!r} has no classes to choose from: leave --target-category, "
                "--top-k, --threshold and --contrast out."
            )
        return None
    if classifier.reading.is_value:
        return _find_values(classifier, options)
    if options.threshold is not None:
        return min(options.top_k or classifier.num_categories, classifier.num_categories)
    if not options.target_category:
        k, known = options.top_k or 1, classifier.num_categories
        if k > known:
            raise UsageError(f"--top-k {k} is more than the {known} classes of the model.")
        return k
    return _match_categories(options.target_category, classifier)


def _find_values(classifier: Classifier, options: Options) -> tuple[int, ...]:
    if options.top_k or options.threshold is not None:
        raise UsageError(
            f"The outputs of {classifier.name!r} are values and not classes, so they cannot be "
            "ranked: leave --top-k and --threshold out (--outputs says what the outputs are)."
        )
    if options.target_category:
        return _match_categories(options.target_category, classifier)
    if classifier.reading.comparison:
        return tuple(range(classifier.num_classes))
    if classifier.num_classes > 1:
        raise UsageError(
            f"{classifier.name!r} puts out {classifier.num_classes} values: say with "
            "--target-category which ones are explained, by their index from 0."
        )
    return (0,)


def _make_target(
    classifier: Classifier, options: Options, categories: tuple[int, ...] | int | None
) -> Target:
    against = _match_categories(options.contrast, classifier)
    given = options.target if "target" in options.model_fields_set else None
    target = make_target(given, against, options.contrast_strength, classifier.reading)
    alone = [c for c in categories if {c} == set(against)] if isinstance(categories, tuple) else []
    if alone:
        raise UsageError(
            f"--contrast compares {label_name(classifier.labels, alone[0])!r} with itself: name "
            "another class, or let --target contrast choose."
        )
    return target


def _make_noise(options: Options) -> Noise | None:
    if options.noise_smooth:
        return Noise(options.noise_smooth, options.noise_sigma, options.seed)
    return None


def _match_categories(given: Sequence[str], classifier: Classifier) -> tuple[int, ...]:
    names = [name for text in given for name in _split_names(text, classifier)]
    indices = (find_category(n, classifier.labels, classifier.num_categories) for n in names)
    return tuple(dict.fromkeys(indices))


def _split_names(text: str, classifier: Classifier) -> list[str]:
    """Splits at commas, but not within a class name that contains commas (`tabby, tabby cat`)."""
    whole = text.strip().lower()
    if any(whole == known.lower() for known in classifier.labels or ()):
        return [text.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]
