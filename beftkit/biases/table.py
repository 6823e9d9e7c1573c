"""The families table as one value: the built-in rows, and what a user's TOML file adds."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from beftkit.biases.inertness import RULES, rules_by_type
from beftkit.biases.layouts import LAYOUTS, TORCH, TORCH_CROSS, Layout, parameter
from beftkit.biases.splits import SPLIT_RULES, SPLITS
from beftkit.errors import BeftError

_CROSS = re.compile(r"cross|multihead_attn|encoder_attn")


@dataclass(frozen=True)
class Table:
    """All rows that recognition looks at.

    Attributes:
        layouts: built-in rows; ``own`` rows come after these and overrule them.
        splits: fused parameter name -> ((model types, rule), ...).
        rule_of: model type -> inertness rule.
    """

    layouts: tuple[Layout, ...]
    splits: Mapping[str, tuple[tuple[str, str], ...]]
    rule_of: Mapping[str, str]
    own: tuple[Layout, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """Every parameter name that stands in some row."""
        return frozenset(leaf for row in (*self.layouts, *self.own) for leaf in row.names())

    def roles(self, leaves: set[str]) -> dict[str, tuple[str, Layout]]:
        """Name -> role and row in a stack that holds ``leaves``; rows with needs come last."""
        result: dict[str, tuple[str, Layout]] = {}
        general = sorted(self.layouts, key=lambda row: bool(row.needs))
        for row in (*general, *self.own):
            if all(parameter(leaf) in leaves for leaf in row.needs.split()):
                result |= {leaf: (role, row) for leaf, role in row.names().items()}
        for leaf in leaves - result.keys():
            if is_torch_fused(leaf):
                result[leaf] = ("qkv", TORCH_CROSS if _CROSS.search(leaf) else TORCH)
        return result

    def split_rule(self, leaf: str, types: frozenset[str]) -> str | None:
        """The split rule for a fused name under these model types, or None if no row says."""
        rows = self.splits.get(leaf, ())
        rule = next((rule for row_types, rule in rows if types & set(row_types.split())), None)
        return rule or ("thirds" if is_torch_fused(leaf) else None)


BUILT_IN = Table(LAYOUTS, SPLITS, rules_by_type(RULES))


def is_torch_fused(leaf: str) -> bool:
    """Whether this is torch.nn.MultiheadAttention's bias: [q|k|v] by its code, in any model."""
    return leaf.rpartition(".")[2] == "in_proj_bias"


def load_table(path: str | Path | None) -> Table:
    """The built-in table, widened by a TOML file if one is given.

    The file holds ``[[layout]]`` tables with the keys of `Layout`, ``[[split]]`` tables with
    ``name``, ``model_types`` and ``rule``, and an ``[inert]`` table that maps the rules ``plain``
    and ``keyed`` to model types. Its rows overrule the built-in ones.

    Raises:
        BeftError: unreadable, not TOML, or a key or rule that does not exist.
    """
    if path is None:
        return BUILT_IN
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BeftError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, a number of 5000 digits
        reason = " ".join(str(error).split())[:200]
        raise BeftError(f"{path}: not a TOML file ({reason}); see docs/families-file.md") from None
    _only(document, {"layout", "split", "inert"}, f"{path}")
    known = {field.name for field in fields(Layout)}
    own = []
    for number, row in enumerate(_tables(document, "layout", path), start=1):
        _texts(row, known, f"{path}, layout {number}")
        own.append(Layout(**{"name": f"layout {number} of {path}", **row}))
    splits = dict(BUILT_IN.splits)
    for number, row in enumerate(_tables(document, "split", path), start=1):
        where, needed = f"{path}, split {number}", {"name", "model_types", "rule"}
        _texts(row, needed, where)
        if set(row) != needed or row["rule"] not in SPLIT_RULES:
            raise BeftError(
                f"{where}: expected name, model_types and a rule out of {', '.join(SPLIT_RULES)}"
            )
        leaf = parameter(row["name"])
        splits[leaf] = ((row["model_types"], row["rule"]), *splits.get(leaf, ()))
    inert = document.get("inert", {})
    if not isinstance(inert, dict):
        raise BeftError(f"{path}: inert must be a table of rules")
    _texts(inert, {"plain", "keyed"}, f"{path}, inert")
    rule_of = {**BUILT_IN.rule_of, **rules_by_type(inert)}
    return replace(BUILT_IN, own=tuple(own), splits=splits, rule_of=rule_of)


def _tables(document: Mapping[str, Any], key: str, path: str | Path) -> list[dict[str, Any]]:
    rows = document.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BeftError(f"{path}: {key} must be written as [[{key}]] tables")
    return rows


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise BeftError(f"{where}: unknown key {unknown[0]!r}; expected {', '.join(sorted(known))}")


def _texts(table: Mapping[str, Any], known: set[str], where: str) -> None:
    _only(table, known, where)
    for key, value in table.items():
        if not isinstance(value, str):
            raise BeftError(f"{where}: {key} must be text (names separated by blanks)")
