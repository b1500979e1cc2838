"""Whether the map depends on the model at all: similarities and symmetries."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "equivariance",
    "hog_similarity.hog_similarity",
    "rank_correlation.correlate",
    "rank_correlation.rank",
    "rank_correlation.rank_correlation",
    "structural_similarity.structural_similarity",
)
