"""Compiles blocks of a model for a long run; target layers and whatever holds them stay as they
are.

A model that is compiled as a whole ignores hooks that are set after its first pass, and every pass
here sets hooks.  So its blocks are compiled one by one.  A block runs uncompiled if a hook is
inside it, if a gradient is recorded, or if its inputs have another size than those it was compiled
for.  The output of a compiled block is compared with that of the uncompiled one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from camcli.engine.answer_request import move_to_model
from camcli.engine.batch_context import choose_picture_chunk
from camcli.engine.device.precision import choose_precision, use_precision
from camcli.engine.explain_request import ExplainRequest
from camcli.errors import ModelError, first_line
from camcli.models.acceleration import (
    can_fuse,
    copy_to_model_format,
    find_compile_targets,
    switch_on_fused_attention,
)
from camcli.models.state import (
    StandIn,
    check_hookable,
    lock_loading,
    lock_model,
    lock_to_restore,
    patch_forward,
    preserve_state,
    set_stance,
)
from camcli.registry import METHODS, collect_evidence
from camcli.utils.shared_setting import SharedSetting

# blocks share the code behind a graph break, and torch compiles it for eight shapes by default
MOST_SHAPES = 256
# the allowed difference of a compiled block's output, as a share of its largest value
TOLERANCE = {"float32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}


# the compiler's stance (torch.compiler.set_stance) while a block runs
_stance: SharedSetting[str] = SharedSetting(set_stance)


class CompiledBlock(StandIn):
    """A block's `forward`, which runs compiled wherever that is safe.

    Attention is fused only while the block runs compiled.
    """

    def __init__(
        self, name: str, layer: nn.Module, tolerance: float, to_be_fused: Sequence[nn.Module] = ()
    ) -> None:
        self.name, self.layer, self.tolerance = name, layer, tolerance
        self.to_be_fused = to_be_fused
        self.plain: Callable[..., Any] = layer.forward
        self.compiled: Callable[..., Any] = torch.compile(_copy_code(layer.forward), dynamic=False)
        # a hook on the block itself runs outside of its forward, so it does not matter
        self.inside = tuple(layer.modules())[1:]
        self.run = self.compile

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the block: compiled if no hook is inside and no gradient is recorded."""
        if torch.is_grad_enabled() or any(map(_is_hooked, self.inside)):
            return self.plain(*args, **kwargs)
        return self.run(*args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Compiles the block for these inputs; raises ModelError if that fails."""
        expected = self.plain(*_copy(args), **_copy(kwargs))
        try:
            with _stance.hold_at("default"), switch_on_fused_attention(self.to_be_fused):
                output = self.compiled(*args, **kwargs)
        except (
            Exception
        ) as error:  # the uncompiled block has just run, so this is the compiler's error
            raise ModelError(
                f"--compile failed at {self.name!r}: {first_line(error)}. It needs a C++ compiler "
                "(on a GPU also Triton) and a model that torch.compile supports: leave --compile "
                "out."
            ) from error
        if not _is_close(output, expected, self.tolerance):
            self.run = self.plain
        return expected

    def run_compiled(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the compiled block; inputs of other shapes run uncompiled."""
        with _stance.hold_at("eager_on_recompile"), switch_on_fused_attention(self.to_be_fused):
            return self.compiled(*args, **kwargs)


def _copy_code(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a copy of a forward with a code object of its own.

    torch caches compiled code by code object, and blocks of one class share theirs, so that each
    call would search the code of all blocks.  Guards on modules stay on: blocks still share the
    code behind a graph break, and without guards it ran with another block's weights.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return FunctionType(run.__code__.replace(), run.__globals__, closure=run.__closure__)


def _is_hooked(layer: nn.Module) -> bool:
    # pre-hooks on linear layers only record the head's input (`hooks.record`), and no block has a
    # head
    before = layer._forward_pre_hooks and not isinstance(layer, nn.Linear)
    # a patched forward counts as well, such as that of `replay_prefix`
    return bool(before or layer._forward_hooks or "forward" in vars(layer))


@contextmanager
def compile_model(
    module: nn.Module, request: ExplainRequest, shape: tuple[int, int, int], batch: int
) -> Iterator[int]:
    """Compiles a model's blocks for batches of inputs (channels, H, W); yields their number.

    Raises ModelError, before anything is explained, if a block cannot be compiled.
    """
    module = check_hookable(module)
    device = _find_device(module)
    running, precision = (
        use_precision(request.precision, device),
        choose_precision(request.precision, device),
    )
    altering = "score" in collect_evidence(METHODS[name] for name in request.all_methods)
    sizes = {batch, choose_picture_chunk(request.chunk, device)} if altering else {batch}
    passes = [
        copy_to_model_format(module, move_to_model(module, _make_noise((size, *shape))))
        for size in sorted(sizes)
    ]
    stack = ExitStack()
    try:
        with lock_loading(), lock_model(module):
            blocks = [
                CompiledBlock(
                    name, layer, TOLERANCE[precision], _list_fusable_attention(layer, precision)
                )
                for name, layer in find_compile_targets(
                    module, passes[0], request.all_layers
                ).items()
            ]
            for block in blocks:
                stack.enter_context(patch_forward(block.layer, block))
            with (
                running,
                preserve_state(module),
                torch._dynamo.config.patch(recompile_limit=MOST_SHAPES),
                _enable_freezing(device),
            ):
                for inputs in passes:
                    # the mode in which `hooks.record` runs what lies in front of the target layer
                    with torch.no_grad() if request.graph else torch.inference_mode():
                        module(inputs)
            for block in blocks:
                block.run = block.run_compiled if block.run == block.compile else block.run
        # other calls may use the model between the batches of a run
        yield sum(block.run == block.run_compiled for block in blocks)
    finally:
        with lock_to_restore(module):
            stack.close()


def _list_fusable_attention(block: nn.Module, precision: str) -> list[nn.Module]:
    """Lists the attention layers that also run fused without compiling: on a CPU, in float32."""
    plain = precision == "float32" and _find_device(block).type == "cpu"
    return [layer for layer in block.modules() if can_fuse(layer)] if plain else []


def _enable_freezing(device: torch.device) -> AbstractContextManager[Any]:
    """Lets torch.compile prepack weights and fold norms into convolutions, on a CPU only."""
    import torch._inductor.config as inductor

    freezing: AbstractContextManager[Any] = inductor.patch(freezing=device.type == "cpu")
    return freezing


def _make_noise(shape: tuple[int, int, int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _find_device(module: nn.Module) -> torch.device:
    return next(module.parameters(), torch.empty(0)).device


def _copy(value: Any) -> Any:
    # a block may change its input in place
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return type(value)(map(_copy, value)) if type(value) in (list, tuple) else value


def _is_close(actual: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, Tensor):
        apart = (actual.float() - expected.float()).abs().max()
        return bool(apart <= tolerance * expected.float().abs().max())
    if type(expected) in (list, tuple):
        pairs = zip(actual, expected, strict=True)
        return all(_is_close(one, other, tolerance) for one, other in pairs)
    return bool(actual == expected)
