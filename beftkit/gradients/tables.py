"""From sums of squares to the scores of a model's roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beftkit.biases import Site, bias_free, choose_tower, in_tower
from beftkit.checkpoints import BiasSet, recognise_checkpoint
from beftkit.checkpoints.live import LiveCheckpoint
from beftkit.diff.compare import inert_notes, refuse_empty, settle_candidates
from beftkit.errors import BeftError
from beftkit.scores import Coverage, FisherFacts, Scores, SiteScore, choose_target, rank_roles

REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True, eq=False)
class Measured:
    """The biases of a live model that are to be measured.

    Attributes:
        held: all of them, with their values.
        tower: the tower that was chosen.
        sites: the sites of that tower.
        notes: what recognising them had to say.
    """

    held: BiasSet
    tower: str
    sites: tuple[Site, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The parameters that hold the sites, by the model's own names."""
        return list(dict.fromkeys(site.name for site in self.sites))


def sites_of(model: Any, tower: str | None = None, reference: str | None = None) -> Measured:
    """The bias vectors of a model in memory.

    Args:
        model: a transformers model.
        tower: which tower of several; by default the text tower.
        reference: what it was loaded from, for messages; None: it was given in memory.

    Raises:
        BeftError: it has no biases in attention blocks, or no such tower.
    """
    checkpoint = LiveCheckpoint(model, reference)
    held = BiasSet(checkpoint, recognise_checkpoint(checkpoint, checkpoint.config))
    refuse_empty(held)
    chosen, notes = choose_tower([site.tower for site in held.sites], tower)
    sites = tuple(site for site in held.sites if in_tower(site.tower, chosen))
    return Measured(held, chosen, sites, (*held.recognition.notes, *notes))


def listed_sites(
    model: Any, tower: str | None = None, reference: str | None = None
) -> tuple[Site, ...]:
    """As `sites_of`, of a model that may have no weights: where they are alone.

    Raises:
        BeftError: the same.
    """
    checkpoint = LiveCheckpoint(model, reference)
    found = recognise_checkpoint(checkpoint, checkpoint.config)
    if not found.sites:
        raise BeftError(f"{checkpoint.reference}: {bias_free(found)}")
    chosen, _ = choose_tower([site.tower for site in found.sites], tower)
    return tuple(site for site in found.sites if in_tower(site.tower, chosen))


def fisher_scores(
    measured: Measured,
    means: Mapping[str, Any],
    *,
    reduce: str = "mean",
    candidates: Sequence[str] | None = None,
    allow_inert: bool = False,
    reference: str | None = None,
    settings: FisherFacts | None = None,
    notes: Sequence[str] = (),
) -> Scores:
    """Roles ranked by their Fisher scores.

    Args:
        measured: from `sites_of`.
        means: parameter to the mean over examples of its squared gradient, float64 ``[D]``.
        reduce: a site's score is the ``mean`` (as published) or the ``sum`` over its coordinates.
        candidates: roles among which the target is chosen; default q, k, v.
        allow_inert: let a bias that softmax ignores be the target.
        reference: what to call the model.
        settings: how it was measured, for the record.
        notes: to be said beside the scores.

    Raises:
        BeftError: an unknown reduction, or candidates that are no roles.
    """
    if reduce not in REDUCTIONS:
        raise BeftError(f"reduce {reduce!r}: expected one of {', '.join(REDUCTIONS)}")
    held = measured.held
    scored = []
    for site in measured.sites:
        part = site.take(np.asarray(means[site.name].cpu(), np.float64))
        value = part.mean() if reduce == "mean" else part.sum()
        norm = np.linalg.norm(held.vector(site))
        figures = {"fisher": float(value), "norm_pre": float(norm)}
        scored.append(SiteScore.of(site, figures, site.dtype, site.module))
    roles = rank_roles(scored, "fisher")
    wanted = settle_candidates(candidates, roles)
    target, said = choose_target(roles, "fisher", wanted, allow_inert)
    noise = [role for role, one in roles.items() if one.inert == "yes"]
    if noise:
        why = "inert here, softmax ignores it; its Fisher score is rounding noise"
        said = [f"{', '.join(noise)}: {why}", *said]
    identity = held.identity()
    if reference is not None:
        identity = replace(identity, path=reference)
    what = identity, identity, held.recognition.family, measured.tower, "fisher"
    coverage = Coverage(len(scored), (), (), tuple(sorted(held.recognition.unscored)))
    told = (*measured.notes, *notes, *said, *inert_notes(roles, wanted))
    return Scores(*what, tuple(wanted), target, roles, coverage, told, settings=settings)
