"""Finds a model's softmaxed attention, its tokens, and the tokens that the head reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from camcli.errors import MethodError
from camcli.models.inspection.layout import Layout, find_tensor, read_tokens
from camcli.models.inspection.probing_pass import LayerObserver, run_probing_pass
from camcli.models.state import check_hookable, in_this_thread, switch_off
from camcli.utils.shared_setting import SharedSetting

# softmaxed attention [b heads q n] at a site -> what replaces it, or None
Instead = Callable[[Tensor], Tensor | None]

FUSED = ("fused_attn",)
# the tolerance in bfloat16 of a row's sum, which is one
ROUNDING = 0.02

# attention modules whose dropout comes too late: the child whose input is the softmaxed attention,
# and the order of dimensions that makes it [b heads q n]
READ_FROM_INPUT: Mapping[str, tuple[str, tuple[int, ...]]] = {
    # CaiT mixes its heads behind the softmax, so that rows no longer sum to one
    "TalkingHeadAttn": ("proj_w", (0, 3, 1, 2)),
}
# attention modules whose dropouts are not sites, for the reason above or the one given here
SKIPPED_MODULES: Mapping[str, str] = {
    **dict.fromkeys(READ_FROM_INPUT, "read elsewhere"),
    "OutlookAttention": "VOLO weights the neighbours of each place, as a convolution does",
}
# attention modules whose softmax is not the whole attention
DERIVED: Mapping[str, str] = {
    "DiffAttention": "is one of two whose difference counts",
    "DiffParallelScalingBlock": "is one of two whose difference counts",
}
# the attribute by which transformers chooses an attention, and the choice whose softmax can be seen
CONFIG, IMPLEMENTATION, SEEN = "config", "_attn_implementation_internal", "eager"
# blocks that are attention modules themselves; other blocks have one inside
OWN_BLOCKS = ("ParallelScalingBlock",)
MHA = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")


@dataclass(frozen=True)
class AttentionBlock:
    """A block with attention, and its sites: where softmaxed attention can be read."""

    name: str
    sites: tuple[str, ...]


@dataclass(frozen=True)
class AttentionLayout:
    """A model's blocks in order, the layout of its tokens, and the tokens that the head reads.

    If a class token joins later, earlier blocks attend only among the last of these tokens.
    """

    blocks: tuple[AttentionBlock, ...]
    layout: Layout
    tokens: int
    readers: tuple[int, ...]
    # the axis of the blocks' outputs that counts the pictures
    batch_axis: int = 0


def measure_attentions(module: nn.Module, inputs_shape: tuple[int, int, int]) -> AttentionLayout:
    """Finds a model's attention by one forward and one backward pass of noise (channels, H, W).

    Raises MethodError if attention cannot be read, or if its tokens are not the same in all blocks.
    """
    module = check_hookable(module)
    sites = tuple(_list_candidates(module))
    observer = _AttentionObserver(
        inputs_shape[1:], around={_find_block(module, site) for site in sites}
    )
    with capture_attention(module, sites, observer.take):
        run_probing_pass(module, inputs_shape, observer)
    observer.leave_out_pooling(module)
    softmaxed_sites = [site for site, _ in observer.softmaxed]
    # without a gradient only methods that alter the picture work
    other = "occlusion" if observer.problem else "gradcam"
    kind, ways_on = type(module).__name__, f"Try --method {other}."
    if not softmaxed_sites:
        raise MethodError(
            f"This {kind} shows no softmaxed attention: it has none, or not in modules like timm's "
            f"attn_drop or torch's MultiheadAttention. {ways_on}"
        )
    for site, shape in observer.softmaxed:
        if why_not := _explain_unreadable(module, site, shape, observer):
            raise MethodError(
                f"Attention of this {kind} cannot be read: {site!r} {why_not}. {ways_on}"
            )
    counts = [shape[-1] for _, shape in observer.softmaxed]
    layout = read_tokens(max(counts), observer.input_size)
    if (
        layout is None
        or min(counts) < prod(layout.grid)
        or len(set(softmaxed_sites)) < len(softmaxed_sites)
    ):
        among = ", then ".join(str(count) for count, _ in groupby(counts))
        raise MethodError(
            f"Attention of this {kind} is among {among} tokens: these methods need the same grid "
            f"of tokens in all blocks, and each block called once. {ways_on}"
        )
    named = groupby(softmaxed_sites, partial(_find_block, module))
    blocks = tuple(AttentionBlock(name, tuple(inside)) for name, inside in named)
    gathers = observer.softmaxed[-1][1][-2] == 1
    readers = (0,) if gathers else observer.readers(blocks[-1].name, max(counts))
    return AttentionLayout(
        blocks, layout, max(counts), readers, int(observer.is_sequence_first(blocks[-1].name))
    )


def _list_candidates(module: nn.Module) -> Iterator[str]:
    """Yields the names of modules where softmaxed attention may be read.

    These are dropouts, torch's MultiheadAttention, modules of transformers, and `READ_FROM_INPUT`.
    """
    for name, layer in module.named_modules():
        kind, around = type(layer).__name__, module.get_submodule(name.rpartition(".")[0])
        if kind in READ_FROM_INPUT:
            yield f"{name}.{READ_FROM_INPUT[kind][0]}"
        elif type(around).__name__ in SKIPPED_MODULES:
            continue
        elif isinstance(layer, nn.Dropout | nn.MultiheadAttention) or _calls_dropout(layer):
            yield name


def _calls_dropout(layer: nn.Module) -> bool:
    """Tells whether a layer may attend with dropout called as a function (transformers)."""
    inside = [part for part in layer.modules() if part is not layer]
    return _has_implementation(layer) and not any(
        isinstance(part, nn.Dropout) or _has_implementation(part) for part in inside
    )


def _has_implementation(layer: nn.Module) -> bool:
    return hasattr(getattr(layer, CONFIG, None), IMPLEMENTATION)


def _find_attention_module(module: nn.Module, site: str) -> str:
    """Returns the name of the attention module that a site belongs to."""
    layer = module.get_submodule(site)
    own = isinstance(layer, nn.MultiheadAttention) or _has_implementation(layer)
    return site if own else site.rpartition(".")[0]


def _find_block(module: nn.Module, site: str) -> str:
    """Returns the name of a site's block: the first module around its attention that does more."""
    attention = _find_attention_module(module, site)
    if type(module.get_submodule(attention)).__name__ in OWN_BLOCKS:
        return attention
    name = attention.rpartition(".")[0]
    while name and _only_holds(module.get_submodule(name), module.get_submodule(attention)):
        name = name.rpartition(".")[0]
    return name


def _only_holds(around: nn.Module, attention: nn.Module) -> bool:
    """Tells whether a module is a list, or only attention and the projection of its output."""
    if isinstance(around, nn.Sequential | nn.ModuleList):
        return True
    own = set(attention.modules())
    others = [part for part in around.modules() if part not in own and not list(part.children())]
    projections = [part for part in others if isinstance(part, nn.Linear)]
    idle = [part for part in others if isinstance(part, nn.Dropout | nn.Identity)]
    return len(projections) == 1 and len(projections) + len(idle) == len(others)


def _explain_unreadable(
    module: nn.Module, site: str, shape: tuple[int, ...], observer: _AttentionObserver
) -> str | None:
    attention, block = _find_attention_module(module, site), _find_block(module, site)
    if kind := DERIVED.get(type(module.get_submodule(attention)).__name__):
        return kind
    given = observer.find_input_shape(attention)
    if len(shape) != 4 or shape[0] != 1 or given[:1] != (1,):
        return f"looks through windows or has no batch in front, {list(shape)} for one picture"
    queries, keys = shape[-2:]
    if queries not in (1, keys) or keys not in _count_tokens(given):
        return f"is among channels or skips tokens, {list(shape)} for an input {list(given)}"
    out = _move_batch_first(observer.outputs[block].shape) if block in observer.outputs else ()
    if not {queries, keys} & {*_count_tokens(out)}:
        return f"has no block around it that puts out its {keys} tokens, but {block!r} {list(out)}"
    return None


def _move_batch_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Turns the shape [n 1 c] of one picture's tokens into [1 n c]; others stay."""
    sequence_first = len(shape) == 3 and shape[0] != 1 and shape[1] == 1
    return (1, shape[0], shape[2]) if sequence_first else shape


def _count_tokens(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the two possible numbers of tokens: channels last [1 n c], or second [1 c h w]."""
    return prod(shape[1:-1]), prod(shape[2:])


@dataclass
class _AttentionObserver(LayerObserver):
    """Observes attention in a pass of noise, beside what is observed of every layer."""

    around: set[str] = field(default_factory=set)
    softmaxed: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def take(self, site: str, attention: Tensor) -> None:
        """Notes which tensors at the candidate sites are softmaxed."""
        if _is_softmaxed(attention):
            self.softmaxed.append((site, tuple(attention.shape)))

    def note(self, name: str, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Notes the inputs of modules, and on which of their tokens the score depends."""
        output = super().note(name, layer, args, output)
        if args and isinstance(args[0], Tensor):
            self.inputs[name] = tuple(args[0].shape)
        tensor = find_tensor(output)
        if name in self.around and tensor is not None and tensor.requires_grad:
            tensor.register_hook(partial(self.gradients.__setitem__, name))  # type: ignore[no-untyped-call]
        return output

    def find_input_shape(self, attention: str) -> tuple[int, ...]:
        """Returns the shape of an attention module's tokens [1 n c]."""
        shape = self.inputs.get(attention)
        if (
            shape is None and attention in self.outputs
        ):  # the tokens were passed by keyword, so the output tells
            shape = tuple(self.outputs[attention].shape)
        return _move_batch_first(shape or ())

    def leave_out_pooling(self, module: nn.Module) -> None:
        """Leaves out a last attention with one query that is no token (SigLIP's pooling)."""
        if len(self.softmaxed) > 1:
            site, shape = self.softmaxed[-1]
            given = self.find_input_shape(_find_attention_module(module, site))
            if shape[-2] == 1 < shape[-1] and given[1:2] == (1,):
                del self.softmaxed[-1]

    def is_sequence_first(self, block: str) -> bool:
        """Tells whether a block's tokens come before the batch, [n b c]."""
        shape = self.outputs[block].shape if block in self.outputs else ()
        return _move_batch_first(shape) != shape

    def readers(self, block: str, n: int) -> tuple[int, ...]:
        """Returns the tokens of a block's n on which the score depends; all n if there are none."""
        if block not in self.gradients:
            return tuple(range(n))
        gradient, layout = self.gradients[block], self.outputs[block].layout
        if layout and layout.kind == "nchw":
            gradient = gradient.permute(0, 2, 3, 1)
        if self.is_sequence_first(block):
            gradient = gradient.transpose(0, 1)
        used = gradient.flatten(1, -2).ne(0).any(2)[0]
        return tuple((used if used.any() else ~used).nonzero().flatten().tolist())


def _is_softmaxed(tensor: Tensor) -> bool:
    if tensor.ndim < 3 or tensor.shape[-1] < 2 or not tensor.is_floating_point():
        return False
    values = tensor.detach().float()
    return bool((values >= 0).all() and ((values.sum(-1) - 1).abs() < ROUNDING).all())


@contextmanager
def capture_attention(
    module: nn.Module, sites: Iterable[str], take: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Calls `take` with each site's name and its softmaxed attention [b heads q n].

    If `take` returns a tensor, this replaces the attention.  Attention is not fused in the block,
    because a fused kernel never holds it.
    """
    with ExitStack() as stack:
        stack.enter_context(switch_off(module.modules(), FUSED))
        stack.enter_context(_show_attention(module.modules()))
        stack.enter_context(_fastpath.hold_at(False))
        for site in sites:
            for handle in _attach_hooks(module, site, partial(take, site)):
                stack.callback(handle.remove)
        yield


@contextmanager
def _show_attention(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Lets models of transformers attend by a softmax that can be seen; restores their choice."""
    # all layers share one configuration
    states = {
        id(layer.config): vars(layer.config) for layer in layers if _has_implementation(layer)
    }
    before = [
        (state, state[IMPLEMENTATION]) for state in states.values() if IMPLEMENTATION in state
    ]
    try:
        for state, _ in before:
            state[IMPLEMENTATION] = SEEN
        yield
    finally:
        for state, value in before:
            state[IMPLEMENTATION] = value


@contextmanager
def _with_fastpath(is_on: bool) -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(is_on)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


_fastpath: SharedSetting[bool] = SharedSetting(_with_fastpath)


def _attach_hooks(module: nn.Module, site: str, take: Instead) -> Iterator[Any]:
    layer, around = module.get_submodule(site), module.get_submodule(site.rpartition(".")[0])
    if isinstance(layer, nn.MultiheadAttention):
        yield layer.register_forward_pre_hook(in_this_thread(_ask_for_weights), with_kwargs=True)
        yield layer.register_forward_hook(in_this_thread(partial(_attend_again, take)))
    elif type(around).__name__ in READ_FROM_INPUT:
        _, order = READ_FROM_INPUT[type(around).__name__]
        yield layer.register_forward_pre_hook(in_this_thread(partial(_take_input, take, order)))
    elif _has_implementation(layer):
        yield from _watch_dropout(layer, take)
    else:
        yield layer.register_forward_hook(in_this_thread(lambda _, __, output: take(output)))


class _DropoutWatch(TorchFunctionMode):
    """While it is on, calls `take` with the output of the function dropout."""

    def __init__(self, take: Instead) -> None:
        super().__init__()
        self.take = take

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        instead = self.take(result) if func is F.dropout else None
        return result if instead is None else instead


def _watch_dropout(layer: nn.Module, take: Instead) -> Iterator[Any]:
    watching = ExitStack()

    def begin(*_: Any) -> None:
        watching.enter_context(_DropoutWatch(take))

    def end(*_: Any) -> None:
        watching.close()

    yield layer.register_forward_pre_hook(in_this_thread(begin))
    # also if the layer raises
    yield layer.register_forward_hook(in_this_thread(end), always_call=True)


def _take_input(
    take: Instead, order: tuple[int, ...], _: nn.Module, args: tuple[Tensor]
) -> Tensor | None:
    instead = take(args[0].permute(order))
    back = [order.index(dimension) for dimension in range(len(order))]
    return None if instead is None else instead.permute(back)


def _ask_for_weights(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    asked = {"need_weights": True, "average_attn_weights": False}
    named = {**dict(zip(MHA, args, strict=False)), **kwargs, **asked}
    return tuple(named.pop(name) for name in MHA[:3]), named


def _attend_again(
    take: Instead,
    layer: nn.MultiheadAttention,
    args: tuple[Tensor, Tensor, Tensor],
    output: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor] | None:
    """Multiplies the values again, since the weights that the module returns get no gradient."""
    instead = take(output[1])
    if instead is None:
        return None
    given = args[2] if layer.batch_first else args[2].transpose(0, 1)
    b, n, c = given.shape
    stacked: Tensor | None = layer.in_proj_weight
    weight = layer.v_proj_weight if stacked is None else stacked[-c:]
    bias = None if layer.in_proj_bias is None else layer.in_proj_bias[-c:]
    values = F.linear(given, weight, bias).view(b, n, layer.num_heads, -1).transpose(1, 2)
    gathered = layer.out_proj((instead @ values).transpose(1, 2).flatten(2))
    return gathered if layer.batch_first else gathered.transpose(0, 1), instead
