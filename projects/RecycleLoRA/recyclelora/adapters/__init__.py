"""Adapters for linear layers: initialise, inject, train, switch, merge, save."""

from .dependencies import unreached_linears
from .files import load_adapters, save_adapters
from .inject import adapt
from .layer import DualLoRALinear
from .merging import MergeableLinear, merge, merged, unmerge
from .settings import AdapterSettings
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
    "remove_adapters",
    "save_adapters",
    "unmerge",
    "unreached_linears",
]
