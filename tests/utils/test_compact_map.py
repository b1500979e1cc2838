"""The small table of numbers does what a dictionary does."""

import random
import sys

import pytest

from camcli.utils import compact_map
from camcli.utils.compact_map import CompactMap, hash_texts


def test_it_is_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_map, "SORT_AT", 8)
    draw, table, known = random.Random(0), CompactMap(), {}
    for _ in range(2000):
        key = draw.choice([draw.randrange(300), 2**64 - 1 - draw.randrange(3), 2**63])
        assert table.get(key) == known.get(key)
        if draw.random() < 0.6:
            table[key] = known[key] = draw.randrange(2**64)
    assert table.values() == set(known.values())
    assert CompactMap().get(0) is None and CompactMap().values() == set()


def test_a_million_entries_are_small() -> None:
    table = CompactMap()
    for key in range(1_000_000):
        table[key * 11_400_714_819_323_198_485 % 2**64] = 1
    held = table._keys.nbytes + table._values.nbytes + sys.getsizeof(table._recent)
    assert held < 30e6
    assert table.get(11_400_714_819_323_198_485) == 1


def test_numbers_tell_texts_apart() -> None:
    texts = [("a", "b"), ("ab",), ("a", "b", ""), ("\udcff",), ("",), ("a\0b",)]
    assert len({hash_texts(*text) for text in texts}) == len(texts) - 1  # no name holds a zero
    assert all(0 <= hash_texts(str(n)) < 2**64 for n in range(1000))
