"""Compares two maps of one picture, and two models of the same classes."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "map_comparison.compare_maps",
    "model_comparison.compare_plans",
    "model_comparison.explain_by_both",
)
