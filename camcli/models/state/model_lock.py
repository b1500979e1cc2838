"""Lets one thread at a time call a model, because hooks would see every thread's pass.

What a call holds are the model's modules and parameters, all of them at once.  So models that share
some wait for each other, and all others run side by side.  Nothing is kept in a model or about it:
it is pickled and copied as ever, and a process of its own knows of no other's calls.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from torch import nn

from camcli.errors import ModelError
from camcli.keywords import check_keywords
from camcli.models.state.module_list import (
    ModelParts,
    check_is_module,
    has_notes,
    keep_notes,
    look_through,
)

# seconds after which a thread that waits looks again whether that can end
LOOK_AGAIN = 1.0
# methods of threads and futures that wait for their end
WAITING = {"join", "result", "exception"}

P = ParamSpec("P")
R = TypeVar("R")


class NestedCall(ModelError):
    """A call that would wait for itself: for its own thread, or in a circle of threads."""


@dataclass(eq=False)
class _Claim:
    """What a thread holds, or waits for: objects, by addresses that are theirs meanwhile."""

    objects: Sequence[object]
    is_call: bool = False
    thread: int = field(default_factory=threading.get_ident)

    @cached_property
    def ids(self) -> frozenset[int]:
        # only where there are other claims: many calls run alone
        return frozenset(map(id, self.objects))

    def holds(self, thing: object) -> bool:
        """Tells whether something is among the objects."""
        return thing is self.objects[0] or id(thing) in self.ids

    def stands_against(self, other: _Claim) -> bool:
        """Tells whether both cannot be held at the same time."""
        return self.thread != other.thread and not self.ids.isdisjoint(other.ids)


class _Claims:
    """All claims of this process: those that are held, and those that wait, in their order."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.held: list[_Claim] = []
        self.waiting: list[_Claim] = []
        # how many were given back so far
        self.ended = 0

    def take(self, claim: _Claim) -> None:
        """Waits until nobody holds any of it; raises NestedCall where that would be for ever."""
        with self.changed:
            self.waiting.append(claim)
            try:
                if self._is_circle(claim):
                    raise NestedCall(
                        "Two threads each hold a model that the other one waits for. In a hook, or "
                        "in `with camcli.lock_model(...)`, explain no other model that threads "
                        "share."
                    )
                while blocking := self._list_blocking(claim):
                    if any(_waits_for_this_thread(other.thread) for other in blocking):
                        raise NestedCall(
                            "This model is being explained in a thread that waits for this one: "
                            "let a hook wait for no thread that explains the same model."
                        )
                    self.changed.wait(LOOK_AGAIN)
                self.held.append(claim)
            finally:
                self.waiting.remove(claim)
                self.changed.notify_all()

    def give_back(self, claim: _Claim) -> None:
        """Releases a claim, if it was taken; Ctrl-C is handled afterwards."""
        interrupt: KeyboardInterrupt | None = None
        while claim in self.held:
            try:
                with self.changed:
                    self.ended += 1
                    self.held.remove(claim)
                    self.changed.notify_all()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt:
            raise interrupt

    def own(self) -> list[_Claim]:
        """Lists what the running thread holds."""
        thread = threading.get_ident()
        return [claim for claim in tuple(self.held) if claim.thread == thread]

    def _list_blocking(self, claim: _Claim) -> list[_Claim]:
        """Lists what a claim has to wait for."""
        earlier = self.waiting[: self.waiting.index(claim)]
        # in their order, so that none waits for ever; who holds something already cannot queue
        ahead = [] if self.own() else earlier
        return list(filter(claim.stands_against, (*self.held, *ahead)))

    def _is_circle(self, claim: _Claim) -> bool:
        """Tells whether the holder waits, directly or over others, for this thread."""
        threads, to_follow = {claim.thread}, [claim]
        for waiting in to_follow:
            for blocking in filter(waiting.stands_against, self.held):
                if blocking.thread == claim.thread:
                    return True
                if blocking.thread not in threads:
                    threads.add(blocking.thread)
                    to_follow += [c for c in self.waiting if c.thread == blocking.thread]
        return False


def _waits_for_this_thread(thread: int) -> bool:
    """Tells whether another thread goes on only when this one, or what it works on, has ended."""
    own: set[int] = {id(threading.current_thread())}
    # what a pool's thread works on
    own |= {id(item.future) for item in _selves(threading.get_ident()) if hasattr(item, "future")}
    return any(id(other) in own for other in _selves(thread, WAITING))


def _selves(thread: int, names: Container[str] | None = None) -> Iterator[Any]:
    """Yields whose methods a thread is in, the innermost first; only those of these names."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if names is None or frame.f_code.co_name in names:
            yield frame.f_locals.get("self")
        frame = frame.f_back


_claims = _Claims()
_loading = object()
# models that were in the middle of a call in another thread when this process was forked off
_torn: WeakSet[nn.Module] = WeakSet()


@check_keywords()
@contextmanager
def lock_model(module: nn.Module) -> Iterator[None]:
    """Keeps all other threads from explaining a model in its block, and waits for those that do.

    camviz's own functions do so by themselves. Your own code needs it where it trains, changes,
    copies or saves a model that another thread may explain.

    Args:
        module: The model; what shares a module or a parameter with it waits as well.

    Raises:
        ModelError: A wait that would never end; or, in a forked process, a model that another
            thread was at work on.

    Example:
        >>> import camcli
        >>> model = camcli.load_model(device="cpu").module
        >>> with camcli.lock_model(model):
        ...     weights = {name: value.clone() for name, value in model.state_dict().items()}
    """
    with _lock(module, is_call=False):
        yield


@contextmanager
def call_on_model(module: nn.Module) -> Iterator[None]:
    """Does the same for one call; raises NestedCall inside another one of the same thread.

    Hooks and forwards of the user's run in the middle of a pass that is looked at, and a second
    pass would be taken for the first.
    """
    with _lock(module, is_call=True) as parts, keep_notes(module, parts, is_call=True):
        yield


@contextmanager
def lock_to_restore(module: nn.Module) -> Iterator[None]:
    """Locks a model to restore its state; Ctrl-C is handled when that is done."""
    interrupt: KeyboardInterrupt | None = None
    claim = _Claim(_list_objects(module, look_through(module)))
    try:
        while claim not in _claims.held:
            try:
                _claims.take(claim)
            except KeyboardInterrupt as error:
                interrupt = error
        yield
    finally:
        _claims.give_back(claim)
    if interrupt:
        raise interrupt


@contextmanager
def lock_loading() -> Iterator[None]:
    """Lets one model at a time be built: it takes the random state, and runs the user's code."""
    with _hold_claim(_Claim([_loading])):
        yield


def locks_model(function: Callable[P, R]) -> Callable[P, R]:
    """Has a function hold the model that it is given first, or as `module`."""

    @wraps(function)
    def call_locked(*args: P.args, **kwargs: P.kwargs) -> R:
        module: Any = args[0] if args else kwargs["module"]
        if is_in_hand(module):
            return function(*args, **kwargs)
        with _lock(module, is_call=False) as parts, keep_notes(module, parts):
            return function(*args, **kwargs)

    return call_locked


def in_this_thread(
    function: Callable[..., Any], otherwise: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Returns a function that acts in the running thread alone, so that other passes are left out.

    In other threads it does nothing, or calls `otherwise`.
    """
    thread = threading.get_ident()

    @wraps(function, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread:
            return function(*args, **kwargs)
        return otherwise(*args, **kwargs) if otherwise else None

    return run


def is_in_hand(module: nn.Module) -> bool:
    """Tells whether this thread holds a model and keeps notes of it, so that nothing is to do."""
    return has_notes(module) and any(claim.holds(module) for claim in _claims.own())


@contextmanager
def _lock(module: nn.Module, *, is_call: bool) -> Iterator[ModelParts | None]:
    """Locks a model, and gives its parts where nobody can have changed them since it was."""
    check_is_module(module)
    own = _claims.own()
    if not is_call and any(claim.holds(module) for claim in own):
        yield None
        return
    ended = _claims.ended
    parts = look_through(module)
    claim = _Claim(_list_objects(module, parts), is_call)
    if is_call and any(c.is_call and not c.ids.isdisjoint(claim.ids) for c in own):
        raise NestedCall(
            f"This {type(module).__name__} is being explained, and one of its hooks, or its own"
            " forward, asks for an explanation of it in the middle of a pass: ask when the pass is"
            " done, or explain a copy (copy.deepcopy)."
        )
    with _hold_claim(claim):
        # who held it in between may have changed it
        yield parts if ended == _claims.ended else None


@contextmanager
def _hold_claim(claim: _Claim) -> Iterator[None]:
    try:
        # inside, so that Ctrl-C between the two leaves nothing held
        _claims.take(claim)
        yield
    finally:
        _claims.give_back(claim)


def _list_objects(module: nn.Module, parts: ModelParts) -> list[object]:
    """Lists a module, all that is in it, and its parameters; keeping them keeps their addresses."""
    if _torn and any(part in _torn for part in parts.modules):
        raise ModelError(
            f"This {type(module).__name__} was being explained in another thread when this process"
            " was forked off, and stands in the middle of that. Load it anew here, or start the"
            ' process with "spawn", or before the thread.'
        )
    return [*parts.modules, *parts.parameters]


def _begin_anew() -> None:
    """Forgets, in a forked process, the threads that were not forked with it."""
    global _claims
    before, _claims = _claims, _Claims()
    thread = threading.get_ident()
    for claim in before.held:
        if claim.thread == thread:
            _claims.held.append(claim)
        else:
            _torn.update(o for o in claim.objects if isinstance(o, nn.Module))


def _hold_still() -> None:
    _claims.changed.acquire()


def _go_on() -> None:
    _claims.changed.release()


if hasattr(os, "register_at_fork"):
    # what is copied is no half-written list
    os.register_at_fork(before=_hold_still, after_in_parent=_go_on, after_in_child=_begin_anew)
