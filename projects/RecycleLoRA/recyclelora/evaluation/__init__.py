"""Scoring on many domains: confusion matrix, sliding window, protocols, pictures."""

from .confusion import ConfusionMatrix
from .constant import constant_prediction, majority_class
from .domains import domain_table, evaluate_domains, preview_domains
from .pictures import Row, draw_rows, save_rows
from .protocol import Protocol
from .protocols import multi_scale, native, paper, rein
from .sliding_window import sliding_window_logits

__all__ = [
    "ConfusionMatrix",
    "Protocol",
    "Row",
    "constant_prediction",
    "domain_table",
    "draw_rows",
    "evaluate_domains",
    "majority_class",
    "multi_scale",
    "native",
    "paper",
    "preview_domains",
    "rein",
    "save_rows",
    "sliding_window_logits",
]
