"""From sites to roles to a target: means, ranks, and what must be said beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from beftkit.scores.results import Inert, RoleScore, SiteScore


class HasInert(Protocol):
    """Anything that knows whether softmax ignores it."""

    @property
    def inert(self) -> Inert: ...


#: figure -> what it is; a role's figure is the mean over its sites
FIGURES = {
    "projection": "projection ratio",
    "magnitude_l1": "l1 norm of the change",
    "magnitude_l2": "l2 norm of the change",
    "magnitude_l1_mean": "mean absolute change",
    "magnitude_l2_mean": "root mean square change",
    "angle": "angle in degrees",
    "norm_change": "relative change of the norm",
    "norm_pre": "norm before",
    "norm_post": "norm after",
    "fisher": "empirical Fisher",
}
#: method -> the figure that ranks; those but ``fisher`` compare two checkpoints
METHODS = {"projection": "projection", "magnitude": "magnitude_l1"}
METHODS |= {name: name for name in FIGURES if name.startswith("magnitude_")}
METHODS |= {"angle": "angle", "fisher": "fisher"}
DEFAULT_CANDIDATES = ("q", "k", "v")


def rank_roles(sites: Iterable[SiteScore], method: str) -> dict[str, RoleScore]:
    """Average sites into roles and order them: learning roles by score, then the inert ones.

    Args:
        sites: scored sites in a stable order.
        method: key of `METHODS`.

    Returns:
        Role to its score, best first; ties keep the order of ``sites``.
    """
    grouped: dict[str, list[SiteScore]] = {}
    for site in sites:
        grouped.setdefault(site.role, []).append(site)
    figure = METHODS[method]
    unranked = {
        role: RoleScore(role, None, combine_inert(members), _means(members), tuple(members))
        for role, members in grouped.items()
    }
    scores = {role: one.figures[figure] for role, one in unranked.items()}
    order = best_first(scores, {role: one.inert for role, one in unranked.items()})
    return {
        role: replace(unranked[role], rank=None if scores[role] is None else rank)
        for rank, role in enumerate(order, start=1)
    }


def best_first(scores: Mapping[str, float | None], inert: Mapping[str, Inert]) -> list[str]:
    """Roles in order: those that learn by score, then the inert ones, last those without a score.

    Args:
        scores: of each role; ties keep its order.
        inert: of each role; one that is not there learns.
    """

    def order(role: str) -> tuple[bool, bool, float]:
        score = scores[role]
        return score is None, inert.get(role) == "yes", 0.0 if score is None else -score

    return sorted(scores, key=order)


def contenders(
    roles: Iterable[str],
    scores: Mapping[str, float | None],
    inert: Mapping[str, Inert],
    allow_inert: bool = False,
) -> list[str]:
    """Those of the roles that can be the target, best first; ties keep the order of ``roles``."""
    able = [role for role in roles if allow_inert or inert.get(role) != "yes"]
    known = {role: scores[role] for role in able if scores.get(role) is not None}
    return best_first(known, {})


def choose_target(
    roles: Mapping[str, RoleScore],
    method: str,
    candidates: Sequence[str],
    allow_inert: bool = False,
) -> tuple[str | None, list[str]]:
    """Choose the best candidate that is not inert (paper section 2.1, facts of inert biases).

    Returns:
        The target, or None, and the notes that belong beside it.
    """
    figure = METHODS[method]
    notes = []
    present = [role for role in candidates if role in roles]
    absent = [role for role in candidates if role not in roles]
    if absent:
        notes.append(f"candidate {', '.join(absent)}: no such bias was compared")
    scored = {role: value for role in present if (value := roles[role].figures[figure]) is not None}
    allowed = contenders(present, scored, {r: roles[r].inert for r in present}, allow_inert)
    target = allowed[0] if allowed else None
    if target is None:
        notes.append("no candidate can be the target")
    elif scored[target] == 0:
        return None, notes
    ties = [role for role in allowed[1:] if scored[role] == scored[allowed[0]]]
    if ties:
        notes.append(f"{target} and {', '.join(ties)} have equal scores; {target} is named first")
    for role in scored:
        if role not in allowed and target and scored[role] > scored[target]:
            notes.append(
                f"{role} scores higher ({scored[role]:.4g}) but is inert here: softmax ignores "
                "it, its change is optimiser noise, so it is not the target"
            )
    if allow_inert and target and roles[target].inert == "yes":
        notes.append(f"{target} is inert here: training it alone changes nothing but the head")
    return target, notes


def combine_inert(sites: Iterable[HasInert]) -> Inert:
    """A role learns if any of its sites does; it is inert if all are."""
    answers = {site.inert for site in sites}
    if "no" in answers:
        return "no"
    return "unknown" if "unknown" in answers else "yes"


def _means(sites: Sequence[SiteScore]) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for figure in sites[0].figures:
        values = [site.figures[figure] for site in sites]
        known = [value for value in values if value is not None]
        result[figure] = math.fsum(known) / len(known) if len(known) == len(values) else None
    return result
