"""From sites to roles to a target: means, ranks, and what must be said beside them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
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
#: what else ranks where the projection ratio cannot
_INSTEAD = "magnitude (--method magnitude) and Fisher (beftkit fisher) can rank such biases"


def rank_roles(sites: Iterable[SiteScore], method: str) -> dict[str, RoleScore]:
    """Average sites into roles and order them: learning roles by score, then the inert ones.

    Roles whose score means nothing (`unmeasured`) come between the two.

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
    empty = unmeasured(method, {role: one.figures["norm_pre"] for role, one in unranked.items()})
    order = best_first(scores, {role: one.inert for role, one in unranked.items()}, empty)
    return {
        role: replace(unranked[role], rank=None if scores[role] is None else rank)
        for rank, role in enumerate(order, start=1)
    }


def unmeasured(method: str, norms: Mapping[str, float | None]) -> frozenset[str]:
    """Roles that are zero before training, of which the projection ratio is 1 whatever changed.

    Args:
        method: key of `METHODS`.
        norms: of each role the mean norm before.
    """
    if METHODS[method] != "projection":
        return frozenset()
    return frozenset(role for role, norm in norms.items() if norm == 0)


def best_first(
    scores: Mapping[str, float | None],
    inert: Mapping[str, Inert],
    empty: Collection[str] = (),
) -> list[str]:
    """Roles in order: those that learn by score, then the inert ones, last those without a score.

    Args:
        scores: of each role; ties keep its order.
        inert: of each role; one that is not there learns.
        empty: roles whose score means nothing; they come before the inert ones.
    """

    def order(role: str) -> tuple[bool, bool, bool, float]:
        score = scores[role]
        last = 0.0 if score is None else -score
        return score is None, inert.get(role) == "yes", role in empty, last

    return sorted(scores, key=order)


def contenders(
    roles: Iterable[str],
    scores: Mapping[str, float | None],
    inert: Mapping[str, Inert],
    allow_inert: bool = False,
    empty: Collection[str] = (),
) -> list[str]:
    """Those of the roles that can be the target, best first; ties keep the order of ``roles``."""
    able = [role for role in roles if allow_inert or inert.get(role) != "yes"]
    known = {role: scores[role] for role in able if scores.get(role) is not None}
    return [role for role in best_first(known, {}) if role not in empty]


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
    empty = unmeasured(method, {role: one.figures["norm_pre"] for role, one in roles.items()})
    notes += _empty_notes(roles, method, empty, scored)
    inert = {role: roles[role].inert for role in present}
    allowed = contenders(present, scored, inert, allow_inert, empty)
    target = allowed[0] if allowed else None
    if target is None:
        notes.append("no candidate can be the target")
    elif scored[target] == 0:
        return None, notes
    ties = [role for role in allowed[1:] if scored[role] == scored[allowed[0]]]
    if ties:
        notes.append(f"{target} and {', '.join(ties)} have equal scores; {target} is named first")
    for role in scored:
        if role not in (*allowed, *empty) and target and scored[role] > scored[target]:
            notes.append(
                f"{role} scores higher ({scored[role]:.4g}) but is inert here: softmax ignores "
                "it, its change is optimiser noise, so it is not the target"
            )
    if allow_inert and target and roles[target].inert == "yes":
        notes.append(f"{target} is inert here: training it alone changes nothing but the head")
    return target, notes


def _empty_notes(
    roles: Mapping[str, RoleScore], method: str, empty: Collection[str], scored: Mapping[str, float]
) -> list[str]:
    """Say where the projection ratio means nothing, in whole or in part."""
    figure = METHODS[method]
    if not any(roles[role].figures[figure] for role in empty):
        empty = ()  # nothing in them changed either
    notes = []
    if empty and len(empty) == len(roles):
        notes.append(
            "every compared bias is zero in PRE (a fresh model, or biases added at zero): the "
            "projection ratio is then 1 whatever changed and means nothing, so it names no target; "
            f"{_INSTEAD}"
        )
    elif named := [role for role in roles if role in empty]:
        notes.append(
            f"{', '.join(named)}: zero in PRE, so the projection ratio is 1 whatever changed and "
            f"cannot make them the target; {_INSTEAD}"
        )
    if figure == "angle" and (zero := [r for r in roles if roles[r].figures["norm_pre"] == 0]):
        notes.append(f"{', '.join(zero)}: zero in PRE, so there is no angle; {_INSTEAD}")
    if figure == "projection":
        for role in scored:
            sites = [one.figures for one in roles[role].sites if one.figures["norm_pre"] == 0]
            counted = sum(bool(one["projection"]) for one in sites)
            if counted and role not in empty:
                notes.append(
                    f"{role}: {counted} of {len(roles[role].sites)} biases are zero in PRE, and "
                    "count 1 each in the mean whatever changed"
                )
    return notes


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
