"""Two maps of one picture, and two models of its classes, held against each other."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "map_comparison.compare_maps",
    "model_comparison.compare_plans",
    "model_comparison.explain_by_both",
)
