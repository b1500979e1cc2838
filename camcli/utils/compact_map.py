"""A mapping of numbers that takes 16 bytes an entry, for millions of outputs."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

SORT_AT = 1 << 16  # so many entries stay in a dictionary before they are merged into the arrays


def hash_texts(*parts: str) -> int:
    """Hashes some texts to 64 bits."""
    # two of ten million texts have the same hash with a probability of 1 in 400,000
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


class CompactMap:
    """A map from numbers to numbers, each of 64 bits."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._keys = np.empty(0, np.uint64)
        self._values = np.empty(0, np.uint64)

    def __setitem__(self, key: int, value: int) -> None:
        self._recent[key] = value
        # at least an eighth of all, so that merging takes time in proportion to the entries
        if len(self._recent) >= max(SORT_AT, len(self._keys) // 8):
            self._settle()

    def get(self, key: int) -> int | None:
        """Returns the value that was last set for a key; None if there is none."""
        if key in self._recent:
            return self._recent[key]
        number = np.uint64(key)
        place = int(np.searchsorted(self._keys, number))
        is_present = place < len(self._keys) and self._keys[place] == number
        return int(self._values[place]) if is_present else None

    def values(self) -> set[int]:
        """Returns all values."""
        self._settle()
        return set(np.unique(self._values).tolist())

    def _settle(self) -> None:
        keys = np.fromiter(self._recent, np.uint64, len(self._recent))
        values = np.fromiter(self._recent.values(), np.uint64, len(self._recent))
        # if a key is there twice, the first one counts, which is the newer one
        self._keys, first = np.unique(np.concatenate([keys, self._keys]), return_index=True)
        self._values = np.concatenate([values, self._values])[first]
        self._recent.clear()
