"""Evaluation on many domains: confusion matrix, sliding windows, protocols, pictures."""

from .confusion import ConfusionMatrix
from .constant import constant_prediction, majority_class
from .domains import evaluate_domains, preview_domains
from .protocol import Protocol
from .protocols import multi_scale, native, paper, rein
from .sliding_window import sliding_window_logits

__all__ = [
    "ConfusionMatrix",
    "Protocol",
    "constant_prediction",
    "evaluate_domains",
    "majority_class",
    "multi_scale",
    "native",
    "paper",
    "preview_domains",
    "rein",
    "sliding_window_logits",
]
