"""Which bias is what: one declarative table from names, shapes and config to roles and sites."""

from beftkit.biases.config import choose_tower, in_tower
from beftkit.biases.layouts import ROLES
from beftkit.biases.matching import bias_free, match_sites, nearest_names
from beftkit.biases.missing import ADDABLE, missing_sites
from beftkit.biases.names import ADDED, Tensor, is_bias, plain_name
from beftkit.biases.recognise import Recognition, Site, recognise
from beftkit.biases.table import BUILT_IN, Table, load_table

__all__ = [
    "ADDABLE",
    "ADDED",
    "BUILT_IN",
    "ROLES",
    "Recognition",
    "Site",
    "Table",
    "Tensor",
    "bias_free",
    "choose_tower",
    "in_tower",
    "is_bias",
    "load_table",
    "match_sites",
    "missing_sites",
    "nearest_names",
    "plain_name",
    "recognise",
]
