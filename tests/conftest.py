"""What all tests share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _a_few_masks() -> Iterator[None]:
    """Lets RISE draw 200 masks where a test names no number: its 4,000 take a second a map."""
    from camcli.methods.perturbation import rise

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rise.__kwdefaults__, "masks", 200)
        yield
