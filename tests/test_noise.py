"""How far scores move by the seed alone, and what that does not tell apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from beftkit.present.noise import noise_words
from beftkit.scores import Inert
from beftkit.selection import CellResult
from beftkit.selection.cells import Cell
from beftkit.selection.ranks import MethodTable, RoleRank
from beftkit.selection.summary import summarise
from beftkit.settings.select import SelectSettings


def one(seed: int, scores: dict[str, float]) -> CellResult:
    def inert(role: str) -> Inert:
        return "yes" if role == "k" else "no"

    roles = {role: RoleRank(s, 1, inert(role), 4, 1.0, (s, s)) for role, s in scores.items()}
    cell = Cell("low", None, 1e-3, 4, seed)
    return CellResult(cell, f"cells/{seed}", methods={"projection": MethodTable("v", roles)})


def test_the_floor_is_the_distance_of_two_seeds_and_blurs_what_is_nearer() -> None:
    scores = [
        {"v": 0.50, "q": 0.40, "m1": 0.10, "k": 0.9},
        {"v": 0.56, "q": 0.55, "m1": 0.11, "k": 0.1},
        {"v": 0.53, "q": 0.46, "m1": -0.08, "k": 0.2},
    ]
    settings = SelectSettings(seeds=(0, 1, 2), candidates=("q", "k", "v", "m1"))
    cells = [one(seed, values) for seed, values in enumerate(scores)]
    [group] = summarise(cells, settings, None, True)
    table = group.projection
    for role in scores[0]:
        pairs = [abs(a[role] - b[role]) for a, b in combinations(scores, 2)]
        assert table.roles[role].floor == pytest.approx(np.mean(pairs))
    assert table.target == "v" and table.blurred == ("q",), "k is inert, m1 far away"
    assert table.unmoved == ("m1", "k")
    [line] = noise_words(group, settings.candidates)
    assert line.startswith("projection, by the seed alone: v by 0.0400, q by 0.1000, ")
    assert "; q not told apart from v; m1 and k moved no more than that" in line
    [alone] = summarise(cells[:1], settings, None, True)
    assert alone.projection.roles["v"].floor is None and not alone.projection.blurred
    assert noise_words(alone, settings.candidates) == []
    [apart] = summarise(cells[:1] * 2, settings, None, True)
    assert "all candidates told apart from v" in noise_words(apart, ("v", "q"))[0]


def test_a_seed_without_a_score_leaves_no_floor() -> None:
    """Its distance to the others is not known; that of the rest alone would be too small."""
    cells = [one(seed, {"v": 0.5 + seed, "q": 0.1}) for seed in range(3)]
    table = cells[2].methods["projection"]
    lost = {**table.roles, "v": replace(table.roles["v"], score=None)}
    cells[2] = replace(cells[2], methods={"projection": replace(table, roles=lost)})
    [group] = summarise(cells, SelectSettings(seeds=(0, 1, 2)), None, True)
    roles = group.projection.roles
    assert roles["v"].floor is None and roles["q"].floor == 0.0
