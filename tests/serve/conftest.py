"""A server that several tests ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from camcli.serve.offered_models import OfferedModel
from tests.serve.visitors import Visitor, offer_small, serving


@pytest.fixture(scope="package")
def offered() -> OfferedModel:
    return offer_small()


@pytest.fixture(scope="package")
def _served(offered: OfferedModel) -> Iterator[Visitor]:
    with serving(offered) as visitor:
        yield visitor


@pytest.fixture
def visitor(_served: Visitor) -> Iterator[Visitor]:
    """Asks the server, which must not have failed at anything."""
    yield _served
    told = list(_served.told)
    _served.told.clear()
    assert told == []
