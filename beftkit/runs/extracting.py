"""`beftkit.extract`: what a fine-tuning did to the biases, as an adapter of its base."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from beftkit.adapters import check_format, default_format, write_adapter
from beftkit.adapters.heads import (
    MULTI_LABEL,
    PROBLEM_TYPE,
    architecture,
    head_modules,
    labels_of,
    problem_type,
    task_type,
)
from beftkit.biases import (
    ROLES,
    Site,
    bias_free,
    choose_tower,
    in_tower,
    load_table,
    match_sites,
)
from beftkit.checkpoints import BiasSet, load_config
from beftkit.checkpoints.digest import vectors_digest
from beftkit.diff.compare import ANOTHER, check_finite, check_pairs, other_families
from beftkit.diff.sides import Sides
from beftkit.errors import BeftError, UsageError, option
from beftkit.files import headed, path_or_name, plain_of
from beftkit.runs.bases import bare, base_named, prefix_lacking
from beftkit.runs.extract_notes import said_of
from beftkit.runs.made_card import extract_card, outputs_of
from beftkit.runs.whole import MADE_ADAPTER, made_whole, make_place
from beftkit.shown import Shown
from beftkit.spelling import OF_ROLES, meant
from beftkit.weights.beside import Beside, look_beside
from beftkit.weights.extracting import Taken, changed_beside, loose_pairs, of_tower, taken


@dataclass(frozen=True, repr=False)
class ExtractResult(Shown):
    """What `extract` wrote, and what it left behind.

    Attributes:
        output: the adapter's folder.
        pre: the base, as given.
        post: the fine-tuned model, as given.
        bias: which biases.
        adapter_format: ``beft``, ``lora`` or ``biases``.
        vectors: how many bias vectors, the head's apart.
        scalars: how many scalars in them.
        added: how many of the vectors PRE has not.
        norms: Euclidean length of the change of each role.
        head: modules of POST that came along whole.
        unreached: scalars where base and adapter together miss POST's value after rounding.
        rounded: scalars of POST that the base's dtype cannot hold.
        beside: what else differs, which the adapter has not.
        notes: what a reader should know.
    """

    output: str
    pre: str
    post: str
    bias: str
    adapter_format: str
    vectors: int
    scalars: int
    added: int
    norms: Mapping[str, float]
    head: tuple[str, ...]
    unreached: int
    rounded: int
    beside: Beside
    notes: tuple[str, ...]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "output bias adapter_format vectors scalars norms head")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        lists = {"head": list(self.head), "notes": list(self.notes), "norms": dict(self.norms)}
        return headed({**vars(self), **lists, "beside": self.beside.to_dict()})


def extract(
    pre: str | Path,
    post: str | Path,
    bias: str = "v",
    *,
    output: str | Path,
    adapter_format: str = "auto",
    deep: bool = False,
    tower: str | None = None,
    model_config: str | Path | None = None,
    families: str | Path | None = None,
    download: bool = False,
    overwrite: bool = False,
) -> ExtractResult:
    """Write what a fine-tuning did to the biases of its base as an adapter.

    Reads headers, biases, and the head of POST; with ``deep`` every tensor, piece by piece. Base
    and adapter together have POST's biases (to the bit in float32; else after rounding to the
    base's dtype), and nothing else of it: the adapter is the fine-tuning only if nothing else
    changed, which the result's ``beside`` says in numbers. A bias that POST alone has becomes an
    added one. POST's classification head comes along whole, with a pooler's bias that changed.

    Args:
        pre: the base, as `beftkit.score` takes it: a file, a folder, ``owner/name`` on the hub.
        post: the same after fine-tuning.
        bias: roles (``v``, ``q,v``), or ``all``.
        output: the folder to make, whole or not at all.
        adapter_format: ``beft``, ``lora``, ``biases``, or ``auto``: the first that holds it all.
        deep: compare all other tensors too.
        tower: which tower of several; default the text tower.
        model_config: a ``config.json`` to use instead of those beside the weights.
        families: a TOML file with rows for families that beftkit does not know.
        download: fetch whole weight files from the hub into its cache, not parts of them.
        overwrite: replace what `extract` or `average` made there before.

    Raises:
        UsageError: ``bias`` or ``adapter_format`` is none.
        BeftError: unreadable or damaged, no such bias in POST, shapes that differ, NaN or infinity.
        Refusal: something else lies in ``output``.
    """
    pre, post = path_or_name(pre, "PRE"), path_or_name(post, "POST")
    roles = _roles(bias)
    if adapter_format != "auto":
        check_format([], adapter_format)
    inputs = {Path(pre): "base", Path(post): "fine-tuned model"}
    cleared = make_place(Path(output), MADE_ADAPTER, inputs, overwrite=overwrite)
    given = load_config(model_config) if model_config else None
    sides = Sides(pre, given, load_table(families), download)
    left, right = sides.pair(post)
    for side, one in (("PRE", left), ("POST", right)):
        if one.checkpoint.adapter is not None:
            raise BeftError(
                f"{one.checkpoint.reference}: is an adapter already; expected a model as {side}"
            )
    if not right.sites:
        raise BeftError(f"{post}: {bias_free(right.recognition)}")
    pairs, only_pre, only_post = match_sites(left.sites, right.sites)
    if pairs:
        check_pairs(pairs, left, right)
    notes = [*cleared, *other_families(left, right), *check_finite(left, right, False, ANOTHER)]
    chosen, told = choose_tower([site.tower for site in right.sites], tower)
    notes += told
    wanted = roles or [*dict.fromkeys(site.role for site in right.sites)]
    mine = [(a, b) for a, b in pairs if b.role in wanted and in_tower(b.tower, chosen)]
    added = [b for b in only_post if b.role in wanted and in_tower(b.tower, chosen)]
    lost = [a for a in only_pre if in_tower(a.tower, chosen)]
    _check(wanted, [b for _, b in mine] + added, lost, left, right, bias)
    config = given or right.checkpoint.config
    task = task_type(config)
    loose = [] if roles else loose_pairs(left, right)
    others = [p for p in loose if not _of_head(p[1], task) and of_tower(p[1], right.sites, chosen)]
    found = taken(
        left, right, [*_added(left, mine), *((None, site) for site in added)], others,
        task=task, prefix=prefix_lacking(left, right, notes),
    )  # fmt: skip
    if task not in (None, "CAUSAL_LM") and not found.head:
        notes.append(
            f"the head of POST, a {architecture(config)}, is not known by its names, so it is not "
            "in the adapter"
        )
        task = None
    rest = [(a, b) for a, b in pairs if (a, b) not in mine]
    compared = {b.name for _, b in pairs} | {b for _, b in loose_pairs(left, right)}
    beside = look_beside(
        left.checkpoint, right.checkpoint, deep=deep, read={*found.read, *compared},
        brought=found.read, biases=changed_beside(left, right, rest, found.read),
    )  # fmt: skip
    format, why = adapter_format, ""
    if format == "auto":
        format, why = default_format(found.tuned, task)
    notes += [why] if why else []
    if format == "biases":  # values, not changes
        found = replace(found, unreached=found.unheld)
    _check_inputs(found, format)
    base, revision = base_named(left.checkpoint, pre, notes)
    metadata = _metadata(left, found, config, bias, pre, post)
    said = said_of(found, left, right, beside, config)
    card = extract_card(
        [(pre, left.bias_sha256), (post, right.bias_sha256)], found.tuned, bias,
        base=base, revision=revision, format=format, task_type=task, metadata=metadata,
        scalars=found.scalars,
    )  # fmt: skip
    with made_whole(Path(output), MADE_ADAPTER, overwrite=overwrite) as (work, _):
        notes += write_adapter(
            work,
            found.tuned,
            format=format,
            base=base,
            task_type=task,
            metadata=metadata,
            revision=revision,
        )
        notes += said
        card.write(work, notes[len(cleared) :])
    return ExtractResult(
        str(output), pre, post, bias, format, found.vectors, found.scalars, found.added,
        found.norms, found.head, found.unreached, found.rounded, beside,
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _roles(bias: str) -> tuple[str, ...]:
    """The roles that are meant; none of them: all."""
    if not isinstance(bias, str):
        raise UsageError(f"{option('bias', bias)}: expected roles as one text, as 'q,v'")
    words = [word for word in bias.replace(" ", "").split(",") if word]
    if words == ["all"]:
        return ()
    if not words or (unknown := [word for word in words if word not in ROLES]):
        likely = meant(unknown[0], (*ROLES, "all"), OF_ROLES) if words else ""
        raise UsageError(
            f"{option('bias', bias)}: expected roles out of {', '.join(ROLES)} (several with "
            f"commas), or all{likely}"
        )
    return tuple(role for role in ROLES if role in words)


def _added(left: BiasSet, pairs: Sequence[tuple[Site, Site]]) -> list[tuple[Site | None, Site]]:
    """The pairs, without PRE's site where its file has none and a zero stands in for it."""
    there = left.checkpoint.tensors
    return [(a if a.name in there else None, b) for a, b in pairs]


def _check(
    wanted: Sequence[str],
    there: Sequence[Site],
    only_pre: Sequence[Site],
    left: BiasSet,
    right: BiasSet,
    bias: str,
) -> None:
    pre, post = (one.checkpoint.reference for one in (left, right))
    for role in wanted:
        lost = [site.name for site in only_pre if site.role == role]
        if lost:
            raise BeftError(
                f"{option('bias', bias)}: {post} lacks {lost[0]}, which {pre} has"
                f"{f' (and {len(lost) - 1} more)' if len(lost) > 1 else ''}; are these one "
                "architecture?"
            )
        if role not in {site.role for site in there}:
            roles = ", ".join(dict.fromkeys(site.role for site in right.sites))
            said = f"it has {roles}" if roles else bias_free(right.recognition)
            if roles and not {*ROLES} & {site.role for site in right.sites}:
                said += ", which no role has; --families FILE gives them roles"
            raise BeftError(f"{option('bias', role)}: {post} has no such bias; {said}")


def _of_head(name: str, task: str | None) -> bool:
    """Whether a bias goes with the head: that itself, and the pooler's."""
    return name in head_modules([name], task) or "pooler" in name.split(".")


def _check_inputs(found: Taken, format: str) -> None:
    lacking = [
        one.parameter for one in found.tuned
        if format == "lora" and one.kind in ("linear", "conv1d") and not one.shape_in
    ]  # fmt: skip
    if lacking:
        raise BeftError(
            f"{lacking[0]}: the files do not say how wide its module's input is, which the format "
            "needs; --adapter-format=beft does not"
        )


def _metadata(
    left: BiasSet, found: Taken, config: Mapping[str, Any] | None, bias: str, pre: str, post: str
) -> dict[str, str]:
    """What the header says: the base, the classes, where it is from; no path of this machine."""
    base = {"given": bare(pre), "digest": vectors_digest(left.checkpoint)}
    base["is"] = f"{left.recognition.family}, {len(left.checkpoint.tensors)} tensors"
    said = {"beftkit.bias": bias, "beftkit.base": json.dumps(base)}
    said["beftkit.extract"] = json.dumps({"pre": bare(pre), "post": bare(post)})
    rows = outputs_of(found.tuned)
    labels = None if rows is None else labels_of(config, rows)
    if found.head and labels is not None:
        said["beftkit.labels"] = json.dumps(list(labels))
        if problem_type(config) == MULTI_LABEL:
            said[PROBLEM_TYPE] = MULTI_LABEL
    return said
