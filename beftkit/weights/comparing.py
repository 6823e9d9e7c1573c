"""`beftkit.compare`: how alike the changes of several adapters or fine-tunings are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beftkit.adapters import meant
from beftkit.biases import ROLES, Site, choose_tower, in_tower, load_table, match_sites
from beftkit.checkpoints import BiasSet, Checkpoint, load_config, open_checkpoint
from beftkit.diff.compare import check_finite, check_pairs, other_families, refuse_empty
from beftkit.diff.sides import Sides
from beftkit.errors import BeftError, UsageError
from beftkit.weights.changes import Changes, read_changes, sites_of
from beftkit.weights.cosines import Alike, CosineResult, Matrix
from beftkit.weights.sums import Array, angle, cosine, norm


@dataclass(frozen=True, eq=False)
class _Moved:
    """One of the K: the change of each of its sites."""

    reference: str
    sites: tuple[Site, ...]
    vectors: Mapping[Site, Array]
    notes: tuple[str, ...]
    base: str | None = None  # as an adapter names it


def compare(
    *references: str | Path,
    base: str | Path | None = None,
    tower: str | None = None,
    model_config: str | Path | None = None,
    families: str | Path | None = None,
    download: bool = False,
) -> CosineResult:
    """The cosine and the angle between what several trainings did to the biases of one base.

    An adapter is its own change (in float32, as its file holds it); of a checkpoint it is the
    difference to ``base``. Heads and a pooler's bias are each task's own and not compared. Where a
    change is zero there is no angle, and the figure is None, not 0.

    Args:
        references: two or more adapters (folders, those of runs, ``owner/name`` on the hub) or
            checkpoints, as `beftkit.score` takes them.
        base: what the checkpoints were trained from; of adapters what says which bias is which,
            in the place of the base that each names.
        tower: which tower of several; default the text tower.
        model_config: a ``config.json`` to use instead of those beside the weights.
        families: a TOML file with rows for families that beftkit does not know.
        download: fetch whole weight files from the hub into its cache, not parts of them.

    Raises:
        UsageError: fewer than two, or a checkpoint without ``base``.
        BeftError: unreadable or damaged, NaN or infinity, or of different widths.

    Example:
        >>> found = beftkit.compare("runs/sst2", "runs/rte")  # doctest: +SKIP
        >>> found.cosines[0][1]  # doctest: +SKIP
        0.18
    """
    if len(references) < 2:
        raise UsageError(f"{len(references)} given to compare; expected two adapters or more")
    given = load_config(model_config) if model_config else None
    sides = Sides(None if base is None else str(base), given, load_table(families), download)
    moved = [_moved(str(one), sides) for one in references]
    names = tuple(one.reference for one in moved)
    keys, found = _aligned(moved)
    chosen, told = choose_tower([site.tower for site in keys], tower)
    keep = [n for n, site in enumerate(keys) if in_tower(site.tower, chosen)]
    keys, found = [keys[n] for n in keep], [[row[n] for n in keep] for row in found]
    notes = [*dict.fromkeys(note for one in moved for note in one.notes), *told]
    bases = list(dict.fromkeys(one.base for one in moved if one.base))
    if len(bases) > 1:
        notes.append(
            f"they name different bases ({', '.join(bases)}): an angle between changes of two "
            "models means nothing"
        )
    roles = list(dict.fromkeys(site.role for site in sorted(keys, key=_place)))

    def alike(members: Sequence[int], site: Site | None, role: str | None) -> Alike:
        vectors = [_joined(row, keys, members) for row in found]
        cut = None if site is None or site.cut is None else str(site.cut)
        norms = tuple(norm(vector) for vector in vectors)
        width = sum(keys[n].width for n in members)
        return Alike(
            role=role,
            layer=None if site is None else site.layer,
            tower=None if site is None else site.tower,
            attention=None if site is None else site.attention,
            slice=cut,
            width=width,
            norms=norms,
            cosines=_table(vectors, cosine, 1.0),
            angles=_table(vectors, angle, 0.0),
        )

    every = range(len(keys))
    of_roles = [alike([n for n in every if keys[n].role == r], None, r) for r in roles]
    order = sorted(every, key=lambda n: _place(keys[n]))
    of_sites = [alike([n], keys[n], keys[n].role) for n in order]
    whole = alike([*every], None, None)
    for name, length in zip(names, whole.norms, strict=True):
        if not length:
            notes.append(f"{name}: changes none of these biases, so it has no angle to anything")
    for number, name in enumerate(names):
        still = [str(r.role) for r in of_roles if any(r.norms) and not r.norms[number]]
        if still and whole.norms[number]:
            notes.append(
                f"{name}: no change of {', '.join(still)}, so there is no cosine; over all biases "
                "together it counts as zeros"
            )
    rest = tuple(of_roles), tuple(of_sites), tuple(notes)
    return CosineResult(names, None if base is None else str(base), whole, *rest)


def _moved(reference: str, sides: Sides) -> _Moved:
    checkpoint = open_checkpoint(meant(reference), download=sides.download)
    if checkpoint.adapter is None:
        if sides.pre is None:
            raise UsageError(
                f"{reference}: is no adapter but a checkpoint, which holds no change by itself; "
                "give what it was trained from: --base=PRE"
            )
        return _moved_checkpoint(checkpoint, sides)
    base, notes = base_of(checkpoint, sides)
    changes = read_changes(checkpoint, base)
    return _moved_adapter(reference, changes, base, [*notes], given=sides.pre is not None)


def base_of(checkpoint: Checkpoint, sides: Sides) -> tuple[Callable[[], BiasSet], list[str]]:
    """What opens an adapter's base when it is asked for: the one given, or that it names."""

    def opened() -> BiasSet:
        if sides.pre is None:
            found = sides.base_of(checkpoint)
        elif (found := sides.kept(sides.pre)).adapter is not None:
            raise BeftError(f"--base: {sides.pre} is an adapter; expected a model")
        return sides.biases(found, sides.given or found.config)

    return opened, list(checkpoint.notes)


def base_if_there(base: Callable[[], BiasSet], notes: list[str], *, given: bool) -> BiasSet | None:
    """An adapter's base, by which roles are told; None, and a note, where it is not to be had.

    Args:
        base: opens it.
        notes: to which the reason is added.
        given: whether it was given, not only named by the adapter: then it has to be there.
    """
    try:
        return base()
    except BeftError as error:
        if given:
            raise
        notes.append(f"roles are told by names alone: {error.told}")
        return None


def _moved_adapter(
    reference: str,
    changes: Changes,
    base: Callable[[], BiasSet],
    notes: list[str],
    *,
    given: bool,
) -> _Moved:
    there = base_if_there(base, notes, given=given)
    widths = {name: one.change.size for name, one in changes.biases.items()}
    sites = sites_of(widths, there)
    vectors = {}
    for name, mine in sites.items():
        whole = changes.biases[name].change.reshape(-1)
        for site in mine:
            if site.cut is None and site.width != whole.size:
                raise BeftError(
                    f"{reference}: {name} has {whole.size} elements, but that bias of its base has "
                    f"{site.width}; is this the adapter's base?"
                )
            part = site.take(whole)
            if site.cut is None or part.any() or not whole.any():
                vectors[site] = part  # of a fused bias no parts that nothing trained
    beside = [name for name in changes.biases if name not in sites]
    if beside:
        notes.append(f"biases outside the layers are not compared (e.g. {beside[0]})")
    if changes.head or changes.pooler:
        notes.append("heads and a pooler's bias belong to each task, and are not compared")
    if changes.products:
        notes.append(
            f"{reference}: a LoRA that changes {len(changes.products)} weights as well, which are "
            "not compared"
        )
    if not vectors:
        raise BeftError(f"{reference}: changes no bias of a layer, so there is nothing to compare")
    named = "@".join(filter(None, (changes.info.base, changes.info.revision)))
    return _Moved(reference, tuple(vectors), vectors, tuple(dict.fromkeys(notes)), named)


def _moved_checkpoint(checkpoint: Checkpoint, sides: Sides) -> _Moved:
    reference = checkpoint.reference
    left, right = sides.pair_with(checkpoint)
    refuse_empty(left, right)
    pairs, only_pre, only_post = match_sites(left.sites, right.sites)
    check_pairs(pairs, left, right)
    notes = [*left.recognition.notes, *right.recognition.notes, *check_finite(left, right, False)]
    notes += other_families(left, right)
    for lacking, where in ((only_pre, sides.pre), (only_post, reference)):
        if lacking:
            notes.append(f"{len(lacking)} biases are in {where} alone, and are not compared")
    vectors = {a: right.vector(b) - left.vector(a) for a, b in pairs}
    return _Moved(reference, tuple(vectors), vectors, tuple(notes))


def _aligned(moved: Sequence[_Moved]) -> tuple[list[Site], list[list[Array | None]]]:
    """The sites of all, and the change of each of the K there; None where it has none."""
    keys: list[Site] = []
    rows: list[dict[int, Array]] = []
    for one in moved:
        pairs, _, new = match_sites(keys, one.sites)
        places = {id(site): n for n, site in enumerate(keys)}
        row = {}
        for mine, theirs in pairs:
            if mine.width != theirs.width:
                raise BeftError(
                    f"{one.reference}: {theirs.name} has {theirs.width} elements, but that of "
                    f"{moved[0].reference} has {mine.width}; these are not of one base"
                )
            row[places[id(mine)]] = one.vectors[theirs]
        for site in new:
            row[len(keys)] = one.vectors[site]
            keys.append(site)
        rows.append(row)
    return keys, [[row.get(n) for n in range(len(keys))] for row in rows]


def _joined(row: Sequence[Array | None], keys: Sequence[Site], members: Iterable[int]) -> Array:
    found = [np.zeros(keys[n].width) if (one := row[n]) is None else one for n in members]
    return np.concatenate([np.zeros(0), *found])


def _table(
    vectors: Sequence[Array], figure: Callable[[Array, Array], float | None], itself: float
) -> Matrix:
    """``[K, K]``, symmetric to the bit; ``itself``: of a vector with itself."""
    size = range(len(vectors))
    upper = {(i, j): figure(vectors[i], vectors[j]) for i in size for j in size if i < j}
    same = [itself if one.any() else None for one in vectors]
    return tuple(
        tuple(same[i] if i == j else upper[min(i, j), max(i, j)] for j in size) for i in size
    )


def _place(site: Site) -> tuple[int, str, str, int, str, str]:
    rank = ROLES.index(site.role) if site.role in ROLES else len(ROLES)
    return rank, site.role, site.tower, site.layer, site.attention, site.leaf
