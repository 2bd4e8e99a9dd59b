"""Adapters for linear layers: initialise, inject, train, switch, merge, save."""

from .dependencies import unreached_linears
from .inject import adapt
from .layer import DualLoRALinear
from .loading import load_adapters
from .merging import MergeableLinear, merge, merged, unmerge
from .saving import save_adapters
from .settings import AdapterSettings
from .several_pairs import activate_pairs, pairs_per_sample
from .state import (
    activate_pair,
    active,
    adapted_layers,
    adapter_parameters,
    add_pair,
    export,
    pair_names,
    remove_adapters,
)
from .table import AdapterTable, adapter_table

__all__ = [
    "AdapterSettings",
    "AdapterTable",
    "DualLoRALinear",
    "MergeableLinear",
    "activate_pair",
    "activate_pairs",
    "active",
    "adapt",
    "adapted_layers",
    "adapter_parameters",
    "adapter_table",
    "add_pair",
    "export",
    "load_adapters",
    "merge",
    "merged",
    "pair_names",
    "pairs_per_sample",
    "remove_adapters",
    "save_adapters",
    "unmerge",
    "unreached_linears",
]
