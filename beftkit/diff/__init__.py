"""PRE against POST: open both, match their sites, score the pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.biases import BUILT_IN, choose_tower, in_tower, load_table, match_sites
from beftkit.checkpoints import BiasSet, load_config
from beftkit.diff.compare import (
    Pair,
    check_finite,
    check_pairs,
    inert_notes,
    other_families,
    refuse_empty,
    score_measured,
    score_pairs,
    settle_candidates,
)
from beftkit.diff.on_device import measure
from beftkit.diff.sides import Reference, Sides, expand_runs, passed_over
from beftkit.errors import UsageError, option
from beftkit.scores import METHODS, Coverage, Identity, Scores, SiteScore, choose_target, rank_roles
from beftkit.spelling import meant

__all__ = ["Comparison", "Sides", "compared", "comparison", "score", "score_all"]
_THREADS = 4  # POSTs read side by side; each holds its biases alone, so memory stays flat


def score(
    pre: Reference | None,
    post: Reference,
    *,
    candidates: Sequence[str] | None = None,
    method: str = "projection",
    tower: str | None = None,
    model_config: str | Path | None = None,
    families: str | Path | None = None,
    allow_inert: bool = False,
    allow_nonfinite: bool = False,
    download: bool = False,
    digest: bool = False,
) -> Scores:
    """Score how far each bias of POST moved from PRE, per site and per role.

    Reads the headers and the bias bytes of both checkpoints, nothing else; all arithmetic is in
    float64. A role's figures are means over all its sites. Two models in memory on one GPU are
    compared there: only sums come back, and there is no digest of their biases unless asked for.

    Args:
        pre: a ``.safetensors`` file, an index of shards, a model folder, one on the hub
            (``owner/name[@revision]``), a pickled ``.bin`` or ``.pt``, or a module or state dict
            in memory. None: the base that POST, an adapter, names.
        post: the same after fine-tuning, or a PEFT adapter (BEFT, or LoRA with biases), which
            means PRE with the adapter merged into it.
        candidates: roles among which the target is chosen; default q, k, v.
        method: what ranks: ``projection``, ``magnitude`` (= ``magnitude_l1``), ``magnitude_l2``,
            ``magnitude_l1_mean``, ``magnitude_l2_mean`` or ``angle``.
        tower: which tower of several (``text``, ``vision``, ``text.encoder``, ``all``); default
            the text tower.
        model_config: a ``config.json`` to use for both instead of those beside the weights.
        families: a TOML file with rows for families that beftkit does not know.
        allow_inert: let a bias that softmax ignores be the target.
        allow_nonfinite: score tensors that hold NaN or infinity as undefined, not as an error.
        download: fetch whole weight files from the hub into its cache, not parts of them.
        digest: read the biases of two models on one GPU, too, for a digest; others have one.

    Returns:
        The scores; ``.target`` is the bias to fine-tune.

    Raises:
        BeftError: unreadable or damaged checkpoints, nothing to compare, shapes that differ.

    Example:
        >>> scores = score("bert-base", "bert-base-sst2")  # doctest: +SKIP
        >>> scores.target, scores.roles["v"].figures["projection"]  # doctest: +SKIP
        ('v', 0.35)
    """
    options: dict[str, Any] = {"candidates": candidates, "method": method, "tower": tower}
    options |= {"model_config": model_config, "families": families, "download": download}
    options |= {"allow_inert": allow_inert, "allow_nonfinite": allow_nonfinite, "digest": digest}
    [found] = score_all(pre, [post], **options, expand=False)
    return found


def score_all(
    pre: Reference | None,
    posts: Sequence[Reference],
    *,
    candidates: Sequence[str] | None = None,
    method: str = "projection",
    tower: str | None = None,
    model_config: str | Path | None = None,
    families: str | Path | None = None,
    allow_inert: bool = False,
    allow_nonfinite: bool = False,
    download: bool = False,
    digest: bool = False,
    expand: bool = True,
) -> list[Scores]:
    """Score several POSTs against one PRE, reading them side by side.

    Args:
        pre: as for `score`.
        posts: as for `score`; with ``expand``, the folder of a run stands for the checkpoints in
            it (``checkpoint-100``, ``checkpoint-200``, ..., or snapshots), in natural order.
        expand: whether folders of runs are expanded.

    The other arguments, and what is raised: as for `score`.

    Returns:
        One result for each POST, in order.
    """
    methods = [name for name in METHODS if name != "fisher"]  # needs data, not another checkpoint
    if method not in methods:
        expected = f"expected one of {', '.join(methods)}{meant(method, methods)}"
        raise UsageError(f"{option('method', method)}: {expected}")
    given = load_config(model_config) if model_config else None
    sides = Sides(pre, given, load_table(families), download)

    def one(post: Reference) -> Scores:
        found = _compare(sides, post, tower, allow_nonfinite, digest)
        return found.ranked(method, candidates, allow_inert)

    wanted = expand_runs(posts) if expand else list(posts)
    first = [one(post) for post in wanted[:1]]  # opens PRE, once for all
    if len(wanted) == 1:
        return first
    with ThreadPoolExecutor(_THREADS) as pool:
        return first + list(pool.map(one, wanted[1:]))


def comparison(pre: Reference, post: Reference) -> Comparison:
    """Read PRE and POST once; the figures are then ranked by as many methods as wanted.

    An adapter's sums stay as they are, where `score` rounds them to PRE's dtype as a merge does.

    Args:
        pre: as for `score`.
        post: as for `score`.

    Raises:
        BeftError: as by `score`.
    """
    return _compare(Sides(pre, None, BUILT_IN, False, merged=False), post, None, False)


@dataclass(frozen=True)
class Comparison:
    """Every figure of one POST against one PRE, before anything is ranked.

    Attributes:
        sites: scored, in a stable order.
        changed: whether any compared bias differs.
        rounding: whether no change is beyond the rounding of the coarser dtype.
        notes: what reading and matching had to say.
    """

    pre: Identity
    post: Identity
    family: str
    tower: str
    sites: tuple[SiteScore, ...]
    coverage: Coverage
    changed: bool
    rounding: bool
    notes: tuple[str, ...]
    bytes_read: int

    def ranked(
        self, method: str, candidates: Sequence[str] | None = None, allow_inert: bool = False
    ) -> Scores:
        """The scores by one method; arguments as of `score`."""
        roles = rank_roles(self.sites, method)
        wanted = settle_candidates(candidates, roles)
        target, said = choose_target(roles, method, wanted, allow_inert)
        notes = list(self.notes)
        if not self.changed:
            notes.append("PRE and POST hold equal biases: nothing changed, so there is no target")
        elif self.rounding:
            target, said = None, []
            notes.append(
                "rounding only: every change is within the rounding of the coarser dtype, so there "
                "is no target"
            )
        notes += said + inert_notes(roles, wanted)
        if len({(site.tower, site.attention) for site in self.sites}) > 1:
            notes.append(
                "a role's score is the mean over all its sites, of every tower and attention"
            )
        what = self.pre, self.post, self.family, self.tower, method, tuple(wanted), target, roles
        return Scores(*what, self.coverage, tuple(notes), self.changed, self.bytes_read)


def compared(
    sides: Sides,
    post: Reference,
    tower: str | None = None,
    allow_nonfinite: bool = False,
    digest: bool = False,
) -> tuple[Comparison, Callable[[int], npt.NDArray[np.float64]]]:
    """The same under options of many POSTs, and how each bias changed.

    Args:
        sides: opens both, PRE once for all.
        post: as for `score`, or an opened `Checkpoint`.
        tower: as for `score`.
        allow_nonfinite: as for `score`.
        digest: as for `score`.

    Returns:
        The comparison; and of which the number of one of its sites gives post - pre, ``[D]``.

    Raises:
        BeftError: as by `score`; its ``kind`` says what is wrong with POST.
    """
    left, right = sides.pair(post)
    refuse_empty(left, right)
    told = [*left.recognition.notes, *right.recognition.notes, *passed_over(post)]
    notes = list(dict.fromkeys(told))
    notes += other_families(left, right)
    pairs, only_pre, only_post = match_sites(left.sites, right.sites)
    check_pairs(pairs, left, right)
    measured = measure(pairs, left, right)
    if measured is None:  # else all of both is finite
        notes += check_finite(left, right, allow_nonfinite)
    chosen, tower_notes = choose_tower([a.tower for a, _ in pairs], tower)
    notes += tower_notes
    inside = [i for i, pair in enumerate(pairs) if in_tower(pair[0].tower, chosen)]
    pairs = [pairs[i] for i in inside]
    if measured is None:
        sites, changed, rounding = score_pairs(pairs, left, right)
    else:
        sites, changed, rounding = score_measured(pairs, measured.of(inside))
    mine, theirs = (tuple(sorted({one.name for one in some})) for some in (only_pre, only_post))
    unscored = sorted({*left.recognition.unscored, *right.recognition.unscored})
    coverage = Coverage(len(pairs), mine, theirs, tuple(unscored))
    read = measured is None or digest
    who = left.identity(digest=read), right.identity(digest=read)
    what = *who, left.recognition.family, chosen, tuple(sites), coverage
    found = Comparison(*what, changed, rounding, tuple(notes), _bytes_read(left, right))
    return found, partial(_change, pairs, left, right)


def _compare(
    sides: Sides, post: Reference, tower: str | None, allow_nonfinite: bool, digest: bool = False
) -> Comparison:
    return compared(sides, post, tower, allow_nonfinite, digest)[0]


def _change(
    pairs: Sequence[Pair], left: BiasSet, right: BiasSet, number: int
) -> npt.NDArray[np.float64]:
    before, after = pairs[number]
    change: npt.NDArray[np.float64] = right.vector(after) - left.vector(before)
    return change


def _bytes_read(*sides: BiasSet) -> int:
    opened = {id(side.checkpoint): side.checkpoint for side in sides}
    for side in sides:
        base = getattr(side, "base", None)
        if base is not None:
            opened[id(base.checkpoint)] = base.checkpoint
    return sum(checkpoint.bytes_read for checkpoint in opened.values())
