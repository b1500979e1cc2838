"""Sentences that a reader had to read twice stay out of code, help and handbook."""

from __future__ import annotations

import re

import pytest

from tests.checkout import ROOT

# each was found by somebody who tried camviz with its help and handbook alone
READ_TWICE = (
    "nothing is to be gone on with",
    "of a class its logit",
    "under its whole name is meant",
    "means the network that the weights fit",
    "as a whole does not hear",
    "not what stands beside it",
    "an earlier layer has a finer grid and",
)
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "camcli").rglob("*.md"),
        *(ROOT / "camcli").rglob("*.py"),
    ]
}


def flatten(text: str) -> str:
    """Joins a text's lines, and the parts of texts in code, in lower case."""
    return re.sub(r"\s+", " ", re.sub(r'"\s*\n\s*f?"|\n\s*#', " ", text)).lower()


@pytest.mark.parametrize("sentence", READ_TWICE)
def test_a_sentence_that_had_to_be_read_twice_is_not_back(sentence: str) -> None:
    assert [name for name, text in TEXTS.items() if sentence in flatten(text)] == []


def test_sentences_are_found_across_lines_and_parts_of_a_text() -> None:
    assert "of a class its logit" in flatten("Of a\n    class its logit")
    assert "of a class its logit" in flatten('("of a class"\n    f" its logit")')
    assert "of a class its logit" in flatten("# of a class\n    # its logit")
