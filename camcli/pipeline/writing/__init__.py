"""Where a run writes: whether its outputs fit, their files and videos, their common scale."""
