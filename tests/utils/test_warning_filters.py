"""Warnings are ignored in a block, and the filters that were there come back in any order."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from camcli.media.pictures import read
from camcli.models.checkpoints.pickle_survey import check_published
from camcli.utils.warning_filters import ignore_warnings


def test_all_warnings_are_ignored_in_the_block_alone() -> None:
    with ignore_warnings():
        warnings.warn("quiet", stacklevel=1)
    with pytest.warns(UserWarning, match="loud"):
        warnings.warn("loud", stacklevel=1)


def test_only_those_of_a_module_are_ignored() -> None:
    with ignore_warnings(r"PIL\."):
        warnings.warn_explicit("quiet", UserWarning, "Image.py", 1, module="PIL.Image")
        with pytest.raises(UserWarning, match="loud"):
            warnings.warn_explicit("loud", UserWarning, "a.py", 1, module="a.PIL.Image")


@pytest.mark.parametrize("last", [0, 1])
def test_filters_are_as_before_in_whatever_order_blocks_end(last: int) -> None:
    before = list(warnings.filters)
    blocks = ExitStack(), ExitStack()
    blocks[0].enter_context(ignore_warnings())
    blocks[1].enter_context(ignore_warnings(r"PIL\."))
    blocks[1 - last].close()
    warnings.warn_explicit("quiet", UserWarning, "Image.py", 1, module="PIL.Image")
    if last == 1:
        with pytest.raises(UserWarning, match="loud"):
            warnings.warn("loud", stacklevel=1)
    blocks[last].close()
    assert list(warnings.filters) == before


def test_a_load_that_overlaps_the_reading_of_pictures_leaves_no_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    before, reading, load = list(warnings.filters), ExitStack(), torch.load

    def load_while_pictures_begin(*args: object, **kwargs: object) -> object:
        reading.enter_context(read.PILLOW.allow_pixels())
        return load(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "load", load_while_pictures_begin)
    check_published(tmp_path / "a.pth")
    reading.close()
    assert list(warnings.filters) == before
