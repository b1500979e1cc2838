"""Candidates: how they are written, what their maps are, and which of them are paired."""

from __future__ import annotations

import numpy as np
import torch

from camcli.methods.combine import combine
from camcli.methods.postprocessing import enlarge
from camcli.pipeline.tuning.candidates import Candidate, choose_paired, list_pairs

SIZE = (8, 12)
ONE, OTHER, NONE = ("hirescam", "layer3"), ("gradcam", "layer4"), ("genericattention", "")


def test_a_candidate_is_written_as_a_person_writes_it() -> None:
    assert str(Candidate((ONE,))) == "hirescam@layer3"
    assert str(Candidate((ONE, NONE), "product")) == "hirescam@layer3 x genericattention"
    assert str(Candidate((NONE, OTHER), "mean")) == "genericattention + gradcam@layer4"
    assert Candidate((ONE, NONE), "mean").is_same(Candidate((NONE, ONE), "mean"))
    assert not Candidate((ONE, NONE), "mean").is_same(Candidate((NONE, ONE), "product"))
    assert Candidate((ONE, NONE), "mean").terms == ("hirescam@layer3", "genericattention")


def test_a_single_map_is_enlarged_and_pairs_are_combined() -> None:
    draw = torch.Generator().manual_seed(0)
    raw = {ONE: torch.randn(4, 6, generator=draw), OTHER: torch.randn(2, 3, generator=draw)}
    single = Candidate((ONE,)).make_map(raw, SIZE)
    torch.testing.assert_close(single, enlarge(raw[ONE], SIZE))
    assert single.min() < 0
    pair = Candidate((ONE, OTHER), "product").make_map(raw, SIZE)
    torch.testing.assert_close(pair, combine([raw[ONE], raw[OTHER]], SIZE, "product"))
    # of a picture's slices the mean, as a run draws it
    slices = {
        ONE: torch.randn(3, 4, 6, generator=draw),
        OTHER: torch.randn(3, 2, 3, generator=draw),
    }
    assert Candidate((ONE,)).make_map(slices, SIZE).shape == SIZE
    each = [
        Candidate((ONE, OTHER), "mean").make_map({k: v[t] for k, v in slices.items()}, SIZE)
        for t in range(3)
    ]
    together = Candidate((ONE, OTHER), "mean").make_map(slices, SIZE)
    torch.testing.assert_close(together, torch.stack(each).mean(0))


def test_of_each_layer_the_best_are_paired_and_the_same_map_only_once() -> None:
    names = [("a", "1"), ("b", "1"), ("c", "1"), ("a", "2"), ("d", "")]
    ranked = [Candidate((part,)) for part in names]
    values = {c: np.array([float(place), 0.5]) for place, c in enumerate(ranked)}
    # b is a under another name
    values[ranked[1]] = values[ranked[0]] + 1e-8
    paired = choose_paired(ranked, 2, values)
    assert [c.parts[0] for c in paired] == [("a", "1"), ("c", "1"), ("a", "2"), ("d", "")]
    assert [c.parts[0] for c in choose_paired(ranked, 1, values)] == [
        ("a", "1"), ("a", "2"), ("d", ""),
    ]  # fmt: skip
    pairs = list(list_pairs(paired))
    assert len(pairs) == len(set(pairs)) == 2 * 6
    assert pairs[:2] == [
        Candidate((("a", "1"), ("c", "1")), "mean"),
        Candidate((("a", "1"), ("c", "1")), "product"),
    ]
