"""Measures where the cells of a layer's grid lie in the picture, by brightening parts of it.

A shape does not tell whether tokens are in reading order, or are places at all: Hiera orders its
tokens by its next poolings, and Perceiver's latents have no place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import nan, prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from camcli.models.inspection.autograd_graph import is_in_place
from camcli.models.inspection.layout import (
    TOKENS,
    Layout,
    convert_to_tokens,
    find_tensor,
    measure_layout,
)
from camcli.models.outputs.folded_batch import count_slices
from camcli.models.state import in_this_thread, list_modules, make_recordable, preserve_state

Captured = TypeVar("Captured")

SEED = 0
# a strip along an edge takes this share of a side: little more than a column of most grids, so that
# tokens that are read one place too late are seen at the other edge
STRIP = 1 / 8
EDGES = ("top", "bottom", "left", "right")
# the brightening added to noise of standard deviation 1: large ones are lost in some networks of
# random weights, small ones in others
BRIGHTER = (0.3, 0.03)
DRAWS = 6
# how far towards the brightened edge the change lies, at most 1: some hundred models had 0.5 to 1
# at the default layer, and at most 0.3 where places were mixed up or did not exist
CLEAR, NONE, NONE_OF_FEW = 0.45, 0.25, 0.7
# below the first value an order of tokens is searched; one at least as good as the second is used
ORDERLY, ORDERED = 0.8, 0.85
# fewer cells may be in some order by chance
FEWEST = 9
# the number of parts along a side that locate a token, and the number to try if these do not
HATS, MOST = 9, 64
# pictures in a pass; each takes much memory if pixels are tokens
TOGETHER = 9
# smaller variances count as zero in BatchNorms that have seen no data yet
FAINT = 1e-12
FAILING = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)


NO_PLACES = "has cells that are no places of the picture"


@dataclass(frozen=True)
class Places:
    """A layer's layout with its tokens in order, and how clearly changes stay where they are made.

    `clarity` is 1 if changes lie at the brightened edge, 0 if they lie anywhere, and nan if nothing
    changes.  `unseen` lists the edges whose changes do not reach the layer.
    """

    layout: Layout
    clarity: float
    unseen: tuple[str, ...] = ()

    @property
    def has_none(self) -> bool:
        """Whether changes of the picture may lie anywhere in the grid."""
        # in a few cells changes may lie towards an edge by chance
        return self.clarity < (NONE if prod(self.layout.grid) >= FEWEST else NONE_OF_FEW)

    @property
    def may_be_out_of_order(self) -> bool:
        """Whether to search for an order; the limit is higher for tokens than for maps."""
        orderly = ORDERLY if self.layout.kind in TOKENS else CLEAR
        return self.clarity < orderly and prod(self.layout.grid) >= FEWEST

    @property
    def has_doubt(self) -> bool:
        """Whether it is uncertain that changes lie where the picture was changed."""
        return self.has_none or self.clarity < CLEAR or bool(self.unseen)

    def doubt(self, layer: str) -> str:
        """Says what is wrong with a map of this layer; empty if nothing is."""
        if not self.has_doubt:
            return ""
        grid = "x".join(map(str, self.layout.grid))
        if self.unseen:
            return (
                f"Layer {layer!r} does not see the picture's {', '.join(self.unseen)}: changes "
                "there do not reach it (the model may cut it off). Its map shows the rest, but is "
                "drawn over the whole picture: do not read places from it."
            )
        if self.has_none:
            return (
                f"The {grid} cells of layer {layer!r} are no places of the picture: brightening a "
                "strip at an edge changes cells anywhere. Do not read places from its map, and "
                "choose another layer (camviz --preview-model)."
            )
        return (
            f"It is uncertain whether the {grid} cells of layer {layer!r} lie where the picture's "
            "parts do: brightening a strip at an edge changes cells elsewhere, too. Compare its "
            "map with that of an earlier layer."
        )


def measure_places(
    module: nn.Module, inputs_shape: tuple[int, int, int], layers: Sequence[str]
) -> dict[str, Places]:
    """Finds where the cells of layers lie, for inputs (channels, H, W), by a few passes of noise.

    Layers without a grid are left out; all are, if the model does not run on noise.
    """
    look = _PlaceFinder(module, inputs_shape)
    places_seen: dict[str, Places] = {}
    layers_by_slices = {1: list(layers)}
    with suppress(*FAILING):
        unmoved = look.find_unmoved(layers)
        places_seen = {layer: Places(layout, 1.0) for layer, layout in unmoved.items()}
        layers_by_slices = look.group_by_slices([n for n in layers if n not in unmoved])
    for slices, names in layers_by_slices.items():
        places_seen |= find_moved_places(module, inputs_shape, names, slices)
    return places_seen


def find_moved_places(
    module: nn.Module, inputs_shape: tuple[int, int, int], layers: Sequence[str], slices: int = 1
) -> dict[str, Places]:
    """Finds the places of layers behind operations that may move places.

    The layers put out a row for each picture, or for each of its `slices`.
    """
    look = _PlaceFinder(module, inputs_shape, slices)
    places_seen: dict[str, Places] = {}
    # if a pass of noise fails, the run itself raises a better error
    with suppress(*FAILING):
        places_seen |= look.look_at_edges(layers, draws=1)
        places_seen |= look.find_token_order(places_seen)
        places_seen |= look.find_order_by_others(places_seen)
        unclear = {n: p.layout for n, p in places_seen.items() if p.has_doubt}
        places_seen |= look.look_at_edges(list(unclear), draws=DRAWS, layouts=unclear)
        unclear = {n: p.layout for n, p in places_seen.items() if n in unclear and p.has_doubt}
        places_seen |= look.look_untrained(unclear, places_seen)
    return places_seen


@dataclass
class _PlaceFinder:
    """Passes of noise through one model, with parts of the noise brightened."""

    module: nn.Module
    inputs_shape: tuple[int, int, int]
    slices: int = 1
    known: dict[str, Layout] = field(default_factory=dict)
    folded: dict[str, int] = field(default_factory=dict)
    normalising: bool = True

    def find_unmoved(self, layers: Sequence[str]) -> dict[str, Layout]:
        """Finds layers behind nothing but convolutions, norms, poolings and sums.

        Their places are known; measuring could fail where every cell sees the whole picture.
        """
        with torch.inference_mode(False), preserve_state(self.module), torch.enable_grad():
            images = self._noise(0).to(**self._like()).requires_grad_()
            with self._capture_outputs(layers, 1, lambda tensor, _: tensor.grad_fn) as steps:
                # a leaf cannot be changed in place, but its clone can
                make_recordable(self.module)(images.clone())
            in_place = {layer for layer, step in steps.items() if is_in_place(step)}
        return {
            n: layout for n, layout in self.known.items() if n in in_place and layout.kind == "nchw"
        }

    def group_by_slices(self, layers: Sequence[str]) -> dict[int, list[str]]:
        """Groups the layers of a captured pass by how many slices of a picture they put out."""
        like = torch.empty(1, *self.inputs_shape, **self._like())
        groups: dict[int, list[str]] = {}
        for layer in layers:
            rows = self.folded.get(layer, 1)
            groups.setdefault(count_slices(self.module, layer, like, rows), []).append(layer)
        return groups

    def look_at_edges(
        self, layers: Sequence[str], *, draws: int, layouts: Mapping[str, Layout] | None = None
    ) -> dict[str, Places]:
        """Brightens a strip along each edge, and measures how far towards it each layer changes."""
        if not layers:
            return {}
        _, height, width = self.inputs_shape
        # the whole picture comes last: it shows which edges are cut off and which cells never
        # change
        parts = [
            _list_edge_strips(height, width),
            _list_edge_strips(width, height).mT,
            torch.ones(1, height, width),
        ]
        total: dict[str, Tensor] = {}
        amounts: dict[str, Tensor] = {}
        for draw in range(draws):
            for layer, change in self.measure_changes(layers, torch.cat(parts), draw).items():
                amount = change.sum(1, keepdim=True)
                amounts[layer] = amounts.get(layer, torch.zeros(())) + amount[:, 0]
                total[layer] = total.get(layer, torch.zeros(())) + (change / amount)[:-1]
        places = {}
        for layer, shares in total.items():
            layout = (layouts or self.known)[layer]
            *at_edges, everywhere = amounts[layer].tolist()
            changed = zip(EDGES, at_edges, strict=True)
            unseen = tuple(edge for edge, amount in changed if everywhere > 0 and amount == 0)
            clarity = _measure_clarity(_to_grid(shares / draws, layout))
            places[layer] = Places(layout, clarity, unseen)
        return places

    def look_untrained(
        self, layouts: Mapping[str, Layout], places_seen: Mapping[str, Places]
    ) -> dict[str, Places]:
        """Measures untrained models again, with their BatchNorms left as they are.

        Normalising by the batch may make a branch that mixes all places too strong.
        """
        norms = (part for part in list_modules(self.module) if isinstance(part, _BatchNorm))
        if not any(map(_is_untrained, norms)):
            return {}
        look = replace(self, normalising=False)
        untrained_places = look.look_at_edges(list(layouts), draws=DRAWS, layouts=layouts)
        return {
            n: places
            for n, places in untrained_places.items()
            if places.clarity > places_seen[n].clarity
        }

    def find_token_order(self, places_seen: Mapping[str, Places]) -> dict[str, Places]:
        """Finds the order of tokens that puts changes at the brightened edges."""
        out_of_order = {name: p.layout for name, p in places_seen.items() if p.may_be_out_of_order}
        layouts = self.measure_orders(out_of_order, HATS)
        finer = {
            name: layout
            for name, layout in out_of_order.items()
            if name not in layouts
            and HATS < max(layout.grid) <= MOST
            and places_seen[name].clarity < CLEAR
        }
        layouts |= self.measure_orders(finer, MOST)
        ordered = self.look_at_edges(list(layouts), draws=1, layouts=layouts)
        return {
            name: places
            for name, places in ordered.items()
            if places.clarity > max(ORDERED, places_seen[name].clarity)
        }

    def find_order_by_others(self, places_seen: Mapping[str, Places]) -> dict[str, Places]:
        """Finds the order of tokens from earlier layers if the tokens themselves see too far."""
        unclear = {
            name: places
            for name, places in places_seen.items()
            if places.layout.kind in TOKENS
            and places.may_be_out_of_order
            and not places.layout.order
        }
        if not unclear:
            return {}
        others = [
            name for name, _ in self.module.named_modules() if name and name not in places_seen
        ]
        grids = {(p.layout.kind, p.layout.grid) for p in unclear.values()}
        alike = {
            name: places
            for name, places in self.look_at_edges(others, draws=1).items()
            if (places.layout.kind, places.layout.grid) in grids
        }
        ordered = {
            places.layout for places in self.find_token_order(alike).values() if places.layout.order
        }
        ordered_places: dict[str, Places] = {}
        for layout in ordered:
            candidates = {
                name: replace(places.layout, order=layout.order)
                for name, places in unclear.items()
                if replace(places.layout, order=layout.order) == layout
            }
            for name, places in self.look_at_edges(
                list(candidates), draws=1, layouts=candidates
            ).items():
                if places.clarity > (ordered_places.get(name) or places_seen[name]).clarity:
                    ordered_places[name] = places
        return ordered_places

    def measure_orders(self, layouts: Mapping[str, Layout], most: int) -> dict[str, Layout]:
        """Finds each cell's token by brightening part after part, if every cell has one."""
        if not layouts:
            return {}
        _, height, width = self.inputs_shape
        h, w = (max(layout.grid[axis] for layout in layouts.values()) for axis in (0, 1))
        down, right = _make_hats(height, min(h, most)), _make_hats(width, min(w, most))
        parts = torch.cat(
            [down[:, :, None].expand(-1, -1, width), right[:, None].expand(-1, height, -1)]
        )
        layouts_by_layer: dict[str, Layout] = {}
        for layer, change in self.measure_changes(list(layouts), parts, 0).items():
            if layout := _find_order(layouts[layer], change[: len(down)], change[len(down) :]):
                layouts_by_layer[layer] = layout
        return layouts_by_layer

    def measure_changes(self, layers: Sequence[str], parts: Tensor, draw: int) -> dict[str, Tensor]:
        """Measures how brightening parts [parts H W] changes each token.  -> {layer: [parts n]}"""
        noise = self._noise(draw)
        layer_changes: dict[str, list[Tensor]] = {}
        for some in torch.split(parts, TOGETHER):
            images = noise + BRIGHTER[draw % len(BRIGHTER)] * some[:, None]
            for layer, change in self._measure_changes(layers, torch.cat([noise, images])).items():
                layer_changes.setdefault(layer, []).append(change)
        return {layer: torch.cat(changes) for layer, changes in layer_changes.items()}

    def _noise(self, draw: int) -> Tensor:
        # drawn on the CPU, so that every device sees the same noise
        generator = torch.Generator().manual_seed(SEED + draw)
        return torch.randn(1, *self.inputs_shape, generator=generator)

    def _like(self) -> dict[str, Any]:
        """Returns the model's device and precision, for `to`."""
        some = next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(0))
        return {"device": some.device, "dtype": some.dtype}

    def _measure_changes(self, layers: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        """Measures how far the other pictures are from the first one.  {layer: [b-1 n]}"""
        images = images.to(**self._like())
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            preserve_state(self.module),
            _normalise_by_batch(self.module) if self.normalising else nullcontext(),
        ):
            try:
                take = partial(_measure_distance_to_first, self.slices)
                with self._capture_outputs(layers, len(images), take) as changes:
                    self.module(images)
                return changes
            except FAILING:  # a model may take only one picture at a time
                return self._measure_one_by_one(layers, images)

    def _measure_one_by_one(self, layers: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        """Measures the same with a pass for each picture.  {layer: [b-1 n]}"""
        first: dict[str, Tensor] = {}
        changes: dict[str, list[Tensor]] = {}
        for image in torch.split(images, 1):
            with self._capture_outputs(layers, 1, _copy_tokens) as tokens:
                self.module(image)
            for layer, these in tokens.items():
                both = torch.cat([first.setdefault(layer, these), these]).float()
                distance = (both[len(these) :] - both[: len(these)]).abs_().sum((0, 1))
                changes.setdefault(layer, []).append(distance.cpu())
        return {layer: torch.stack(rest) for layer, (_, *rest) in changes.items()}

    @contextmanager
    def _capture_outputs(
        self, layers: Sequence[str], batch: int, take: Callable[[Tensor, Layout], Captured]
    ) -> Iterator[dict[str, Captured]]:
        """Keeps a part of each layer's last output, if it has a grid."""
        taken: dict[str, Captured] = {}

        def keep(layer: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            tensor = find_tensor(output)
            if tensor is None or not tensor.is_floating_point():
                return
            rows = batch * self.slices
            layout = measure_layout(tuple(tensor.shape), self.inputs_shape[1:], batch=rows)
            if layout is not None:
                self.known[layer] = layout
                taken[layer] = take(tensor, layout)
            elif tensor.ndim > 2 and len(tensor) % batch == 0:
                self.folded[layer] = len(tensor) // batch

        with ExitStack() as stack:
            for layer in layers:
                taking = in_this_thread(partial(keep, layer))
                hook = self.module.get_submodule(layer).register_forward_hook(taking)
                stack.callback(hook.remove)
            yield taken


@contextmanager
def _normalise_by_batch(module: nn.Module) -> Iterator[None]:
    """Lets untrained BatchNorms normalise by the batch within its block.

    With their initial statistics, values grow from layer to layer until attention looks at single
    places anywhere.
    """
    norms = [
        part
        for part in list_modules(module)
        if isinstance(part, _BatchNorm) and _is_untrained(part)
    ]
    states = [(norm, norm.momentum, norm.num_batches_tracked, norm.eps) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.momentum, norm.num_batches_tracked = True, 0.0, None
            # so that values of small initial weights do not fall below it from layer to layer
            norm.eps = FAINT
        yield
    finally:
        for norm, momentum, tracked, eps in states:
            norm.training, norm.momentum, norm.num_batches_tracked = False, momentum, tracked
            norm.eps = eps
            assert norm.running_mean is not None and norm.running_var is not None
            # momentum 0 leaves the statistics as they were, unless the batch is not finite
            norm.running_mean.fill_(0)
            norm.running_var.fill_(1)


def _is_untrained(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or mean.is_inference():
        return False
    return not norm.training and not mean.any() and bool((variance == 1).all())


def _measure_distance_to_first(slices: int, output: Tensor, layout: Layout) -> Tensor:
    """Measures how far tokens are from the first picture's, slice by slice.  -> [b-1 n]"""
    # computed at once, since the outputs of all layers together take gigabytes
    tokens = convert_to_tokens(output, layout).float()
    first, *others = tokens.view(-1, slices, *tokens.shape[1:])
    return torch.stack([(other - first).abs_().sum((0, 1)) for other in others]).cpu()


def _copy_tokens(output: Tensor, layout: Layout) -> Tensor:
    # the next layer may change the output in place
    return convert_to_tokens(output, layout).clone()


def _list_edge_strips(length: int, across: int) -> Tensor:
    """Returns a strip along the first and one along the last edge of a side.  [2 length across]"""
    thick = max(1, round(length * STRIP))
    parts = torch.zeros(2, length, across)
    parts[0, :thick], parts[1, -thick:] = 1, 1
    return parts


def _make_hats(length: int, count: int) -> Tensor:
    """Makes overlapping parts of a side that add up to 1 everywhere.  [count length]"""
    at = torch.linspace(0, count - 1, length)
    return (1 - (at - torch.arange(count)[:, None]).abs()).clamp(min=0)


def _find_order(layout: Layout, rows: Tensor, columns: Tensor) -> Layout | None:
    """Assigns tokens [parts n] to cells by what changed them; None unless all cells get one."""
    (h, w), extra = layout.grid, rows.shape[1] - prod(layout.grid)
    rows, columns = (_subtract_common(part / part.sum(1, keepdim=True)) for part in (rows, columns))
    # extra tokens change with all parts alike
    sharpness = rows.amax(0) * columns.amax(0)
    places = sharpness.argsort(descending=True, stable=True)[: h * w].sort().values
    cells = _deal_tokens(rows[:, places], h) * w + _deal_tokens(columns[:, places], w)
    if len(set(cells.tolist())) < h * w:
        return None
    order = places[cells.argsort()]
    prefix = min(extra, int(order.min()))
    order = order - prefix
    in_order = torch.equal(order, torch.arange(h * w))
    indices = () if in_order else tuple(order.tolist())
    return replace(layout, prefix=prefix, suffix=extra - prefix, order=indices)


def _deal_tokens(changes: Tensor, count: int) -> Tensor:
    """Assigns equally many tokens to each row or column, by the parts that changed them.  [n]"""
    # not by the part that changes a token most, since overlapping patches see their neighbours as
    # well
    middle = torch.arange(len(changes), dtype=changes.dtype) @ changes / changes.sum(0)
    return middle.argsort(stable=True).argsort() // (changes.shape[1] // count)


def _to_grid(shares: Tensor, layout: Layout) -> Tensor:
    """Lays out the values of tokens in the grid.  [parts n] -> [parts h w]"""
    n = prod(layout.grid)
    order = torch.tensor(layout.order) if layout.order else torch.arange(n)
    return shares[:, layout.prefix + order].view(-1, *layout.grid)


def _subtract_common(shares: Tensor) -> Tensor:
    """Subtracts the change that all parts share, which attention and pooled gates make."""
    return (shares - shares.mean(0)).clamp(min=0)


def _measure_clarity(shares: Tensor) -> float:
    """Returns how far towards the brightened edges changes lie, for the worse axis.  [4 h w]"""
    shares_by_axis = []
    for pair, axis in ((shares[:2], 1), (shares[2:], 2)):
        n = shares.shape[axis]
        across = _subtract_common(shares)[:2] if axis == 1 else _subtract_common(shares)[2:]
        amount = across.sum((1, 2))
        if n < 2 or not (amount > 0).all() or not pair.isfinite().all():
            continue
        at = ((torch.arange(n) + 0.5) / n - 0.5) / min((n - 1) / (2 * n), (1 - STRIP) / 2)
        first, last = (across.sum(3 - axis) @ at) / amount
        shares_by_axis.append((last - first).item() / 2)
    return min(shares_by_axis, default=nan)
