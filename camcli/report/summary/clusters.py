"""Clusters the maps of a class: whether its pictures are recognised in different ways.

Spectral clustering of the maps, as SpRAy does it (Lapuschkin et al., "Unmasking Clever Hans
predictors and assessing what machines really learn", 2019), on the graph of nearest neighbours; the
gap in the spectrum says how many there are.
"""

from __future__ import annotations

import importlib.util
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST, MOST = 10, 600  # maps that are clustered; of more, the rest goes to the nearest mean
MOST_CLUSTERS = 6
LEAST_DIFFERENCE = 0.25  # share of the heat that lies elsewhere in another cluster's mean
HOW_TO_INSTALL = "pip install 'camviz[summary]'"


def can_cluster() -> bool:
    """Tells whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


def cluster_maps(maps: Array) -> NDArray[np.intp]:
    """Numbers the cluster of each map, the largest 0: [n h w] of shares -> [n].

    All zeros where there are few maps, or where they differ by less than a quarter of their heat.
    """
    alone = np.zeros(len(maps), np.intp)
    if len(maps) < FEWEST:
        return alone
    flat = maps.reshape(len(maps), -1)
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(len(maps), MOST)).round().astype(int))
    affinity = _link_neighbours(flat[chosen])
    for count in range(_count_by_gap(affinity), 1, -1):
        means = _find_means(flat[chosen], _split(affinity, count), count)
        if means is None:
            continue
        differences = [measure_difference(a, b) for a, b in combinations(means, 2)]
        if min(differences) >= LEAST_DIFFERENCE:
            nearest = np.stack([np.abs(flat - mean).sum(1) for mean in means]).argmin(0)
            return _sort_by_size(nearest)
    return alone


def measure_difference(one: Array, other: Array) -> float:
    """Returns the share of the heat that lies elsewhere in another map of shares, 0..1."""
    return float(np.abs(one - other).sum() / 2)


def _link_neighbours(flat: Array) -> Array:
    """Links each map to its nearest neighbours: symmetric [n n]."""
    from sklearn.neighbors import kneighbors_graph

    neighbours = max(3, round(np.log(len(flat)) * 2))
    graph = kneighbors_graph(flat, min(neighbours, len(flat) - 1)).toarray()
    # a little of everything, for a graph in pieces has no unique spectrum
    return np.asarray((graph + graph.T) / 2 + 1e-4)


def _count_by_gap(affinity: Array) -> int:
    """Counts the clusters by the largest gap between the smallest eigenvalues of the Laplacian."""
    scale = 1 / np.sqrt(affinity.sum(1))
    laplacian = np.eye(len(affinity)) - scale[:, None] * affinity * scale
    smallest = np.linalg.eigvalsh(laplacian)[: MOST_CLUSTERS + 1]
    return int(np.diff(smallest).argmax()) + 1


def _split(affinity: Array, count: int) -> NDArray[np.intp]:
    from sklearn.cluster import spectral_clustering

    return np.asarray(spectral_clustering(affinity, n_clusters=count, random_state=0), np.intp)


def _find_means(flat: Array, numbers: NDArray[np.intp], count: int) -> Array | None:
    """Returns the mean map of each cluster [count cells]; None where one has a single map."""
    sizes = np.bincount(numbers, minlength=count)
    if sizes.min() < 2:
        return None
    return np.stack([flat[numbers == n].mean(0) for n in range(count)])


def _sort_by_size(numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    order = np.argsort(-np.bincount(numbers), kind="stable")
    return np.asarray(np.argsort(order)[numbers], np.intp)
