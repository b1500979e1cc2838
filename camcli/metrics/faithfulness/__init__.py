"""Whether the score comes from where the map says: metrics of altered pictures."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "adcc",
    "arcc",
    "coherency",
    "complexity",
    "confidence",
    "deletion",
    "infidelity",
    "insertion",
    "road",
    "saco",
    "sensitivity",
)
