"""How far scores move by the seed alone, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from beftkit.present.regrets import NAMES
from beftkit.present.verdicts import listed
from beftkit.present.words import number

if TYPE_CHECKING:
    from beftkit.selection import GroupResult


def noise_words(group: GroupResult, candidates: Sequence[str]) -> list[str]:
    """A line a method, of several seeds: the noise floor, and who is not told apart by it."""
    lines = []
    for name, table in group.methods.items():
        roles = table.roles
        known = [role for role in roles if role in candidates and roles[role].floor is not None]
        if table.target not in known:
            continue
        floors = ", ".join(f"{role} by {number(roles[role].floor)}" for role in known)
        near = [role for role in table.blurred if role in candidates]
        still = [role for role in table.unmoved if role in candidates]
        said = f"{listed(near)} not told apart from {table.target}" if near else ""
        said = said or f"all candidates told apart from {table.target}"
        said += f"; {listed(still)} moved no more than that" if still else ""
        lines.append(f"{NAMES[name]}, by the seed alone: {floors}; {said}")
    return lines
