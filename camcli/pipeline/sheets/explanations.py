"""What `explain` gives: explanations one after the other, which a notebook shows as a sheet."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NoReturn

from camcli.errors import UsageError

if TYPE_CHECKING:
    from camcli.pipeline.explanation import Explanation

MOST_SHOWN = 32
ONE_BY_ONE = "made one by one: next(...) gives the first, list(...) all"


class Explanations(Iterator["Explanation"]):
    """An iterator of explanations, made when they are asked for, and shown as a sheet.

    A notebook that shows it has the first 32 made, and they are still given one after the other
    afterwards.

    Example:
        >>> import camcli
        >>> classifier = camcli.load_model(device="cpu")
        >>> explanations = camcli.explain(classifier, "demo_images/chelsea.png", top_k=2)
        >>> png = explanations._repr_png_()   # as a notebook does
        >>> [e.label for e in explanations]
        ['tiger cat', 'Egyptian cat']
    """

    def __init__(self, explanations: Generator[Explanation, None, None]) -> None:
        self._rest = explanations
        # made for a notebook to show, and not yet asked for
        self._shown: deque[Explanation] = deque()

    def __repr__(self) -> str:
        """Says on a line what it is, and makes none of them."""
        return f"<Explanations, {ONE_BY_ONE}>"

    def __getitem__(self, place: object) -> NoReturn:
        """Says how the first one is had, which many ask for by its index."""
        raise UsageError(f"Explanations have no [{place!r}]: {ONE_BY_ONE}.")

    def __getattr__(self, name: str) -> NoReturn:
        """Says whose an attribute is."""
        raise AttributeError(f"Explanations have no {name!r}, though each may have: {ONE_BY_ONE}")

    def __next__(self) -> Explanation:
        return self._shown.popleft() if self._shown else next(self._rest)

    def close(self) -> None:
        """Ends it: no further explanation is made.

        Example:
            >>> import camcli
            >>> classifier = camcli.load_model(device="cpu")
            >>> explanations = camcli.explain(classifier, "demo_images/chelsea.png", top_k=2)
            >>> explanations.close()
            >>> list(explanations)
            []
        """
        self._shown.clear()
        self._rest.close()

    def _repr_png_(self) -> bytes | None:
        # others need no sheet, and so nothing of what draws one
        from camcli.pipeline.sheets.sheet import Sheet

        self._shown.extend(islice(self._rest, MOST_SHOWN - len(self._shown)))
        return Sheet(self._shown)._repr_png_() if self._shown else None
