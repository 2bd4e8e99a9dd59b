"""Analysis of trained adapters, with any initialiser: tables, figures and a report."""

from recyclelora.adapters.rank import effective_rank, product_singular_values
from recyclelora.adapters.trained_pair import Factor, TrainedPair, trained_pairs

from .measures import analyze_adapters
from .norms import ColumnNorms, column_norms
from .similarity import random_similarity, row_cosines, subspace_similarity

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
