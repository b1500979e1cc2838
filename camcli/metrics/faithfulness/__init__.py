"""Whether the score comes from where the map says: metrics of altered pictures."""
