"""What methods say of a cell, and of a group of them: scores and ranks of the roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beftkit.scores import Inert
from beftkit.selection.certainty import Margin
from beftkit.shown import Shown

METHODS = ("projection", "magnitude", "fisher")
ADAM, NORM, ALWAYS = "adam", "norm", "always-v"
#: methods that cost no more than the probe, or nothing (`beftkit.selection.free`)
FREE = (ADAM, NORM, ALWAYS)


@dataclass(frozen=True)
class RoleRank:
    """One role as one method sees it in one cell.

    Attributes:
        score: mean over its sites; None if any is undefined.
        rank: from 1, inert ones last; None without a score.
        inert: whether softmax ignores it.
        width: length of its vectors, None if they differ.
        norm_pre: mean norm before.
        layers: scores by site, in the order of the layers.
    """

    score: float | None
    rank: int | None
    inert: Inert
    width: int | None
    norm_pre: float | None
    layers: tuple[float | None, ...]


@dataclass(frozen=True, repr=False)
class MethodTable(Shown):
    """What a method says of one cell: the target, and each role, best first."""

    target: str | None
    roles: Mapping[str, RoleRank]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        scores = {role: one.score for role, one in self.roles.items()}
        return {"target": self.target, "scores": scores}


@dataclass(frozen=True)
class RoleMean:
    """One role as one method sees it over the seeds of a group.

    Attributes:
        score: mean over seeds, None if any has none.
        deviation: over seeds; None of a single one.
        inert, width, norm_pre, rank: as in `RoleRank`.
        floor: how far the score moves by the seed alone: the mean distance between two seeds'
            probes; None of a single seed.
    """

    score: float | None
    deviation: float | None
    inert: Inert
    width: int | None
    norm_pre: float | None
    rank: int | None
    floor: float | None = None


@dataclass(frozen=True, repr=False)
class MethodMean(Shown):
    """What a method says of a group: the target, by how much it leads, each role, best first."""

    target: str | None
    margin: Margin | None
    roles: Mapping[str, RoleMean]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        scores = {role: one.score for role, one in self.roles.items()}
        return {"target": self.target, "scores": scores}

    @property
    def ahead(self) -> tuple[str, ...]:
        """Roles that score higher than the target: no candidates, inert, or zero before."""
        mine = self.roles[self.target].score if self.target else None
        scores = {role: one.score for role, one in self.roles.items()}
        return tuple(r for r, one in scores.items() if mine is not None and (one or 0) > mine)

    @property
    def blurred(self) -> tuple[str, ...]:
        """Roles nearer to the target than the seed alone moves either of them: not told apart."""
        first = self.roles.get(self.target) if self.target else None
        if first is None or first.score is None or first.floor is None:
            return ()
        near = []
        for role, one in self.roles.items():
            if role != self.target and one.score is not None and one.inert != "yes":
                if abs(first.score - one.score) <= max(first.floor, one.floor or 0.0):
                    near.append(role)
        return tuple(near)

    @property
    def unmoved(self) -> tuple[str, ...]:
        """Roles whose score is no more than what the seed alone moves it by."""
        known = [(role, one.score, one.floor) for role, one in self.roles.items()]
        return tuple(
            r
            for r, score, floor in known
            if score is not None and floor is not None and abs(score) <= floor
        )
