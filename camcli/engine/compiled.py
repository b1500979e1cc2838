"""Blocks of a model compiled for a long run; the target layers, and all around them, stay as is.

A model compiled as a whole is deaf to hooks that come after its first pass, and each pass of ours
brings its own.  So its blocks are compiled one by one, and each runs as it was written where a hook
looks into it, where a gradient is recorded, and on inputs of another size than it was compiled for.
What a compiled block puts out is held against what it put out before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from camcli.engine.precision import chosen, running_in
from camcli.engine.probe import pictures_together
from camcli.engine.run import Request, like
from camcli.errors import ModelError, reason
from camcli.models.blocks import blocks_to_compile
from camcli.models.fusing import is_left_off, switched_on
from camcli.models.memory_format import network_input
from camcli.models.model_lock import lock_loading, lock_model, lock_to_restore
from camcli.models.state import left_as_found, set_stance, standing_in, watchable
from camcli.registry import METHODS, needed
from camcli.shared_setting import SharedSetting

# what lies behind a break in the graph is in code that blocks share, and torch stops at eight of
# them unless it is told
MOST_SHAPES = 256
# how far a compiled block may be off, as a share of its largest value
TOLERANCE = {"float32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}


# of blocks that run, inside that of all calls
_stance: SharedSetting[str] = SharedSetting(set_stance)


class Block:
    """A block of a model, compiled and as it was written, which stands in for its `forward`.

    Attention that is to be fused is so in the compiled one alone.
    """

    def __init__(
        self, name: str, layer: nn.Module, tolerance: float, to_be_fused: Sequence[nn.Module] = ()
    ) -> None:
        self.name, self.layer, self.tolerance = name, layer, tolerance
        self.to_be_fused = to_be_fused
        self.plain: Callable[..., Any] = layer.forward
        self.compiled: Callable[..., Any] = torch.compile(
            _in_code_of_its_own(layer.forward), dynamic=False
        )
        # a hook on the block itself is called outside of its forward
        self.inside = tuple(layer.modules())[1:]
        self.run = self.learn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the block, compiled where nobody looks inside."""
        if torch.is_grad_enabled() or any(map(_is_watched, self.inside)):
            return self.plain(*args, **kwargs)
        return self.run(*args, **kwargs)

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        """Compiles the block for these inputs; raises ModelError where that fails."""
        wanted = self.plain(*_copied(args), **_copied(kwargs))
        try:
            with _stance.held_at("default"), switched_on(self.to_be_fused):
                found = self.compiled(*args, **kwargs)
        except Exception as error:  # its plain form has just run: this is the compiler's own
            raise ModelError(
                f"--compile failed at {self.name!r}: {reason(error)}. It needs a C++ compiler, on a"
                " GPU Triton, and a model that torch.compile takes: leave --compile out."
            ) from error
        if not _alike(found, wanted, self.tolerance):
            self.run = self.plain
        return wanted

    def known(self, *args: Any, **kwargs: Any) -> Any:
        """Runs what was compiled; inputs for which nothing was take the plain way."""
        with _stance.held_at("eager_on_recompile"), switched_on(self.to_be_fused):
            return self.compiled(*args, **kwargs)


def _in_code_of_its_own(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that does the same, and that torch tells from those of other blocks.

    It keeps what it compiled by code, which blocks of one kind share: at each call it would look
    through those of all others.  To leave out its guards on modules, too, was tried: where a graph
    breaks, the rest of it is in code that is shared, and ran with another block's weights.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return FunctionType(run.__code__.replace(), run.__globals__, closure=run.__closure__)


def _is_watched(layer: nn.Module) -> bool:
    # those in front of linear layers note the head's input (`hooks.record`), which no block holds
    before = layer._forward_pre_hooks and not isinstance(layer, nn.Linear)
    # another forward may stand in for its own, too, as `trunk` does it
    return bool(before or layer._forward_hooks or "forward" in vars(layer))


@contextmanager
def compiled(
    module: nn.Module, request: Request, shape: tuple[int, int, int], batch: int
) -> Iterator[int]:
    """Compiles a model's blocks for batches of inputs (channels, H, W), and gives their number.

    Raises ModelError, before anything is explained, where they cannot be compiled.
    """
    module = watchable(module)
    device = _device(module)
    running, precision = running_in(request.precision, device), chosen(request.precision, device)
    altering = "score" in needed(METHODS[name] for name in request.methods)
    sizes = {batch, pictures_together(request.chunk, device)} if altering else {batch}
    passes = [network_input(module, like(module, _noise((size, *shape)))) for size in sorted(sizes)]
    stack = ExitStack()
    try:
        with lock_loading(), lock_model(module):
            found = [
                Block(name, layer, TOLERANCE[precision], _to_be_fused(layer, precision))
                for name, layer in blocks_to_compile(module, passes[0], request.layers).items()
            ]
            for block in found:
                stack.enter_context(standing_in(block.layer, block))
            with (
                running,
                left_as_found(module),
                torch._dynamo.config.patch(recompile_limit=MOST_SHAPES),
                _weights_packed(device),
            ):
                for inputs in passes:
                    # the mode in which `hooks.record` runs what lies in front of the target layer
                    with torch.no_grad() if request.graph else torch.inference_mode():
                        module(inputs)
            for block in found:
                block.run = block.known if block.run == block.learn else block.run
        # other calls may come in between the batches of a run
        yield sum(block.run == block.known for block in found)
    finally:
        with lock_to_restore(module):
            stack.close()


def _to_be_fused(block: nn.Module, precision: str) -> list[nn.Module]:
    """Lists attention that is fused without compiling, too: on a CPU, and in float32."""
    plain = precision == "float32" and _device(block).type == "cpu"
    return [layer for layer in block.modules() if is_left_off(layer)] if plain else []


def _weights_packed(device: torch.device) -> AbstractContextManager[Any]:
    """Has weights laid out for the matrix products once, and norms taken into convolutions.

    Swin-T took 0.82 of the time at batch 8, and 0.99 without (2 cores of an AMD EPYC, 2026-11-27);
    on a GPU they stay as they are.
    """
    import torch._inductor.config as inductor

    packed: AbstractContextManager[Any] = inductor.patch(freezing=device.type == "cpu")
    return packed


def _noise(shape: tuple[int, int, int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters(), torch.empty(0)).device


def _copied(value: Any) -> Any:
    # a block may change its input in place
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value


def _alike(found: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(wanted, Tensor):
        apart = (found.float() - wanted.float()).abs().max()
        return bool(apart <= tolerance * wanted.float().abs().max())
    if type(wanted) in (list, tuple):
        pairs = zip(found, wanted, strict=True)
        return all(_alike(one, other, tolerance) for one, other in pairs)
    return bool(found == wanted)
