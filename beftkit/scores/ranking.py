"""From sites to roles to a target: means, ranks, and what must be said beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from beftkit.errors import BeftError

Inert = Literal["yes", "no", "unknown"]


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
METHODS = {
    "projection": "projection",
    "magnitude": "magnitude_l1",
    "magnitude_l1": "magnitude_l1",
    "magnitude_l2": "magnitude_l2",
    "magnitude_l1_mean": "magnitude_l1_mean",
    "magnitude_l2_mean": "magnitude_l2_mean",
    "angle": "angle",
    "fisher": "fisher",
}
DEFAULT_CANDIDATES = ("q", "k", "v")


@dataclass(frozen=True)
class SiteScore:
    """One bias vector in one place, before against after, or at one checkpoint.

    ``figures`` holds a float for some of `FIGURES`, or None where it is undefined. ``slice`` says
    which part of a fused tensor this is, None for a whole tensor. ``uses`` is how many layers
    share it. ``module`` is the runtime module that owns the bias, None for a free parameter.
    """

    name: str
    role: str
    layer: int
    tower: str
    attention: str
    width: int
    dtype_pre: str
    dtype_post: str
    slice: str | None
    uses: int
    module: str | None
    inert: Inert
    figures: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name, "layer": self.layer, "tower": self.tower,
            "attention": self.attention, "width": self.width, "slice": self.slice,
            "uses": self.uses, "dtype_pre": self.dtype_pre, "dtype_post": self.dtype_post,
            "inert": self.inert, **self.figures,
        }  # fmt: skip


@dataclass(frozen=True)
class RoleScore:
    """All sites of one role; ``figures`` are means over the sites, None if any is undefined.

    ``rank`` counts from 1 among all roles, inert ones last; None without a score.
    """

    role: str
    rank: int | None
    inert: Inert
    figures: Mapping[str, float | None]
    sites: tuple[SiteScore, ...]

    @property
    def width(self) -> int | None:
        """Length of the vectors, None if the sites differ."""
        widths = {site.width for site in self.sites}
        return widths.pop() if len(widths) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.figures, "inert": self.inert, "rank": self.rank, "width": self.width,
            "sites": [site.to_dict() for site in self.sites],
        }  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """What was compared. ``unscored`` biases have none of the roles (embeddings, heads)."""

    matched: int
    only_pre: tuple[str, ...]
    only_post: tuple[str, ...]
    unscored: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "matched": self.matched, "only_pre": list(self.only_pre),
            "only_post": list(self.only_post), "unscored": list(self.unscored),
        }  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """The result of scoring one POST against one PRE.

    Attributes:
        pre: reference and sha256 of the bias bytes of PRE; from the hub also its commit.
        post: the same of POST.
        family: what the biases were recognised as.
        method: key of `METHODS` that ranks.
        candidates: roles among which the target is chosen.
        target: the best candidate that can learn, or None.
        roles: role to its scores, best first.
        coverage: what was matched.
        notes: sentences that a reader of the numbers needs.
        changed: whether any compared bias differs.
        settings: of a Fisher score: data, examples, variant; empty for comparisons.
    """

    pre: Mapping[str, Any]
    post: Mapping[str, Any]
    family: str
    tower: str
    method: str
    candidates: tuple[str, ...]
    target: str | None
    roles: Mapping[str, RoleScore]
    coverage: Coverage
    notes: tuple[str, ...] = ()
    changed: bool = True
    bytes_read: int = field(default=0, compare=False)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[SiteScore, ...]:
        """All sites, role by role."""
        return tuple(site for role in self.roles.values() for site in role.sites)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``beftkit score --format json``."""
        return document([self])

    def post_dict(self) -> dict[str, Any]:
        """What that document says of this POST."""
        return {
            "post": dict(self.post),
            "target": self.target,
            "coverage": self.coverage.to_dict(),
            "notes": list(self.notes),
            "roles": {role: score.to_dict() for role, score in self.roles.items()},
        }

    def to_pandas(self) -> Any:
        """One row per site as a `pandas.DataFrame`; needs pandas."""
        try:
            import pandas
        except ImportError:
            raise BeftError("to_pandas needs pandas: pip install 'beftkit[pandas]'") from None
        return pandas.DataFrame([{"role": site.role, **site.to_dict()} for site in self.sites])


def document(results: Sequence[Scores]) -> dict[str, Any]:
    """The JSON document of one PRE and its POSTs, one entry each."""
    from beftkit import __version__

    first = results[0]
    return {
        "schema_version": 1,
        "beftkit_version": __version__,
        "pre": dict(first.pre),
        "family": first.family,
        "tower": first.tower,
        "method": first.method,
        "candidates": list(first.candidates),
        **({"settings": dict(first.settings)} if first.settings else {}),
        "posts": [one.post_dict() for one in results],
    }


def post_labels(results: Sequence[Scores]) -> list[str]:
    """A short name for each POST: the end of its path, as much of it as tells them apart."""
    paths = [one.post["path"].rstrip("/").split("/") for one in results]
    for count in range(1, max(map(len, paths)) + 1):
        labels = ["/".join(path[-count:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return ["/".join(path) for path in paths]


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
    unranked = [
        RoleScore(role, None, combine_inert(members), _means(members), tuple(members))
        for role, members in grouped.items()
    ]

    def order(score: RoleScore) -> tuple[bool, bool, float]:
        value = score.figures[figure]
        return value is None, score.inert == "yes", 0.0 if value is None else -value

    result = {}
    for rank, score in enumerate(sorted(unranked, key=order), start=1):
        shown = None if score.figures[figure] is None else rank
        result[score.role] = RoleScore(score.role, shown, score.inert, score.figures, score.sites)
    return result


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
    allowed = [role for role in scored if allow_inert or roles[role].inert != "yes"]
    target = max(allowed, key=lambda role: scored[role], default=None)
    if target is None:
        notes.append("no candidate can be the target")
    elif scored[target] == 0:
        return None, notes
    ties = [
        role for role in allowed if target and role != target and scored[role] == scored[target]
    ]
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
