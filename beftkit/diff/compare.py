"""Score matched pairs of biases: figures per site, whether anything changed, what must be noted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from beftkit.biases import ROLES, Site, bias_free, nearest_names
from beftkit.checkpoints import BiasSet
from beftkit.diff.on_device import Measured
from beftkit.errors import BeftError, UsageError, option
from beftkit.scores import DEFAULT_CANDIDATES, RoleScore, SiteScore
from beftkit.scores.statistics import metrics, pair_stats, stats_from_sums, within_rounding
from beftkit.spelling import OF_ROLES, meant

Pair = tuple[Site, Site]
_BATCH = 1 << 16  # elements per side of one batch: half a MiB in float64, in a core's cache


def other_families(left: BiasSet, right: BiasSet) -> list[str]:
    """Say where two checkpoints call themselves models of two kinds."""
    mine, theirs = (one.recognition.family for one in (left, right))
    if mine == theirs or any("by its names" in name for name in (mine, theirs)):
        return []
    return [f"PRE is a {mine}, POST a {theirs}: matched by their names alone"]


def refuse_empty(*sides: BiasSet) -> None:
    """Say what a checkpoint without any role's bias holds instead."""
    for one in sides:
        if one.sites:
            continue
        reference, found = one.checkpoint.reference, one.recognition
        if found.without_bias or not found.biases:
            raise BeftError(f"{reference}: {bias_free(found)}", "no biases")
        raise BeftError(
            f"{reference}: no bias of an attention block among its {found.biases} biases; nearest "
            f"names: {', '.join(nearest_names(found.unscored))}",
            "no biases",
        )


def check_pairs(pairs: Sequence[Pair], left: BiasSet, right: BiasSet) -> None:
    """Refuse checkpoints that have nothing in common, or shapes that differ."""
    pre, post = (one.checkpoint.reference for one in (left, right))
    if not pairs:
        names = (dict.fromkeys(site.name for site in one.sites) for one in (left, right))
        mine, theirs = (", ".join(nearest_names(some, 3)) for some in names)
        raise BeftError(
            f"no bias of {pre} matches one of {post}: PRE has {mine}; POST has {theirs}; are these "
            "the same architecture?",
            "other architecture",
        )
    for a, b in pairs:
        if a.width != b.width:
            raise BeftError(
                f"{a.name}: {a.width} elements in {pre}, but {b.width} in {post} ({b.name}); these "
                "are not the same architecture",
                "other width",
            )


def check_finite(left: BiasSet, right: BiasSet, allowed: bool) -> list[str]:
    """Refuse NaN and infinity by name, or note them where they are allowed."""
    notes = []
    for one in (left, right):
        names = one.nonfinite()
        if names and not allowed:
            raise BeftError(
                f"{one.checkpoint.reference}: {names[0]} holds NaN or infinity"
                f"{f' (and {len(names) - 1} more)' if len(names) > 1 else ''}; the checkpoint is "
                "damaged or diverged; --allow-nonfinite scores the rest",
                "damaged",
            )
        if names:
            notes.append(f"not finite in {one.checkpoint.reference}: {', '.join(names)}")
        notes += one.beside_notes()
    return notes


def score_pairs(
    pairs: Sequence[Pair], left: BiasSet, right: BiasSet
) -> tuple[list[SiteScore], bool, bool]:
    """Score the pairs in batches of equal width; also: did any change, was all of it rounding."""
    by_width: dict[int, list[int]] = {}
    for index, (a, _) in enumerate(pairs):
        by_width.setdefault(a.width, []).append(index)
    figures: dict[int, dict[str, float | None]] = {}
    changed, rounding = False, True
    for width, members in by_width.items():
        step = max(1, _BATCH // max(width, 1))
        for begin in range(0, len(members), step):
            batch = members[begin : begin + step]
            pre = np.stack([left.vector(pairs[index][0]) for index in batch])
            post = np.stack([right.vector(pairs[index][1]) for index in batch])
            columns = metrics(pair_stats(pre, post))
            for row, index in enumerate(batch):
                figures[index] = {name: _plain(values[row]) for name, values in columns.items()}
                dtypes = left.dtype(pairs[index][0]), right.dtype(pairs[index][1])
                if not np.array_equal(pre[row], post[row], equal_nan=True):
                    changed = True
                    rounding = rounding and within_rounding(pre[row], post[row], *dtypes)
    return _site_scores(pairs, figures), changed, rounding


def score_measured(pairs: Sequence[Pair], measured: Measured) -> tuple[list[SiteScore], bool, bool]:
    """The same from what the device of two live models said of these pairs."""
    figures: dict[int, dict[str, float | None]] = {}
    widths = np.array([a.width for a, _ in pairs])
    for width in dict.fromkeys(widths.tolist()):
        members = np.flatnonzero(widths == width)
        columns = metrics(stats_from_sums(measured.sums[members], width))
        for row, index in enumerate(members.tolist()):
            figures[index] = {name: _plain(values[row]) for name, values in columns.items()}
    changed, rounding = bool(measured.changed.any()), bool(measured.rounding.all())
    return _site_scores(pairs, figures), changed, rounding


def _site_scores(
    pairs: Sequence[Pair], figures: Mapping[int, dict[str, float | None]]
) -> list[SiteScore]:
    return [
        SiteScore.of(a, figures[index], b.dtype, _shorter(a.module, b.module))
        for index, (a, b) in enumerate(pairs)
    ]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _shorter(pre: str | None, post: str | None) -> str | None:
    """Of two names of one module the one without a prefix: it fits bare and task models alike."""
    if pre and post:
        return pre if post.endswith(pre) else post
    return pre or post


def settle_candidates(given: Sequence[str] | None, roles: Iterable[str]) -> list[str]:
    """The roles among which the target is chosen, checked against what is there."""
    there = [*roles]
    raw = [role for role in there if role not in ROLES]
    if given is None:
        usual = any(role in there for role in DEFAULT_CANDIDATES)
        return [*DEFAULT_CANDIDATES] if usual or not raw else raw
    unknown = [role for role in given if role not in ROLES and role not in raw]
    if unknown or not given:
        known = [*ROLES, *raw]
        likely = meant(unknown[0], known, OF_ROLES) if unknown else ""
        place = option("candidates", ",".join(unknown))
        raise UsageError(f"{place}: expected some of {', '.join(known)}{likely}")
    return list(dict.fromkeys(given))


def inert_notes(roles: Mapping[str, RoleScore], candidates: Iterable[str]) -> list[str]:
    """Say what is left open where inertness is unknown."""
    unknown = [role for role in candidates if role in roles and roles[role].inert == "unknown"]
    if not unknown:
        return []
    return [
        f"{', '.join(unknown)}: unknown whether inert; under plain softmax attention a key bias "
        "cannot learn and its score means nothing; the model's config.json would tell "
        "(--model-config PATH)"
    ]
