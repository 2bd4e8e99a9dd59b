"""Analysis of trained adapters, with any initialiser: tables, figures and a report."""

from .measures import analyze_adapters
from .norms import ColumnNorms, column_norms
from .rank import effective_rank, product_singular_values
from .similarity import random_similarity, row_cosines, subspace_similarity
from .trained_pair import Factor, TrainedPair, trained_pairs

__all__ = [
    "ColumnNorms",
    "Factor",
    "TrainedPair",
    "analyze_adapters",
    "column_norms",
    "effective_rank",
    "product_singular_values",
    "random_similarity",
    "row_cosines",
    "subspace_similarity",
    "trained_pairs",
]
