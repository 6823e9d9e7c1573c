"""Scores to a document: each POST's roles, and what speaks for the target. No arithmetic here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from beftkit.biases import ROLES
from beftkit.errors import BeftError, UsageError, option
from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.words import MEANING, count, marks, noted, number, source, sparkline
from beftkit.scores import FIGURES, METHODS, RoleScore, Scores, document, post_labels
from beftkit.spelling import OF_ROLES, meant

Cells = Mapping[str, Callable[[RoleScore], str]]
WIDTH: Cells = {"width": lambda score: count(score.width, "mixed")}
_SECOND: Mapping[str, Cells] = {
    "projection": {"projection": lambda score: number(score.figures["projection"])},
    "l1": {"l1 change": lambda score: number(score.figures["magnitude_l1"])},
}
#: which columns go first on a narrow terminal; others that are not in the way of the score: 3
_SPARE = {"width": 6, "‖pre‖": 5, "angle": 4}
_ANGLE: Cells = {"angle": lambda score: number(score.figures["angle"], "°")}


def scores_document(results: Sequence[Scores]) -> Document:
    """One PRE and its POSTs: a table of roles, a CSV row a POST and site."""
    second = _SECOND["l1" if METHODS[results[0].method] == "projection" else "projection"]
    return ranked(results, _headline(results), "score", {**second, **_ANGLE, **WIDTH})


def ranked(results: Sequence[Scores], lines: Sequence[str], score: str, more: Cells) -> Document:
    """Results and their headline as a document, whatever ranks.

    Args:
        results: one for each POST, in order; several get a column of their own.
        lines: what stands above the table.
        score: heading of the score.
        more: further columns: heading -> a role's cell.
    """
    several = len(results) > 1
    body, strong, rows = [], [], []
    for name, one in zip(post_labels(results), results, strict=True):
        figure, label = METHODS[one.method], name
        largest = max((site.figures[figure] or 0.0 for site in one.sites), default=0.0)
        for role, found in one.roles.items():
            sites = sorted(found.sites, key=lambda site: (site.tower, site.attention, site.layer))
            spark = sparkline([site.figures[figure] for site in sites], largest)
            cells = [count(found.rank), role, number(found.figures[figure]), spark]
            cells += [number(found.figures["norm_pre"]), *(cell(found) for cell in more.values())]
            target = role == one.target
            cells.append(marks(found.inert, "<- target" if target else ""))
            body.append([label, *cells] if several else cells)
            strong.append(target)
            label = ""  # the name stands once
        rows += [{"post": one.post.path, "role": s.role, **s.to_dict()} for s in one.sites]
    columns = texts(*(["post"] if several else []), folds=True)
    columns += [*numbers("rank", spare=1), *texts("role"), *numbers(score)]
    columns += texts("per layer", spare=2)
    for heading in ("‖pre‖", *more):
        columns += numbers(heading, spare=_SPARE.get(heading, 3))
    columns += texts("", folds=True, name="inert, target")
    notes = Lines(noted(_notes(results)), bullets=True)
    blocks: list[Block] = [Lines(lines, bullets=True), Table(columns, body, strong), notes]
    said = dict.fromkeys(note for one in results for note in one.notes)
    return Document(document(results), rows, blocks, list(said))


def target_line(results: Sequence[Scores], show: Callable[[float | None], str] = number) -> str:
    """The target and its score, or the targets of several POSTs."""
    targets = [one.target or "none" for one in results]
    if len(results) > 1:
        steps = zip(targets, targets[1:], post_labels(results)[1:], strict=False)
        changes = [f"{old} -> {new} at {label}" for old, new, label in steps if old != new]
        return f"target: {targets[0]}" + (f"; {', '.join(changes)}" if changes else " throughout")
    [one] = results
    if one.target is None:
        return "target: none"
    best = one.roles[one.target].figures[METHODS[one.method]]
    return f"target: {one.target} ({MEANING.get(one.target, 'raw name')}), {show(best)}"


def failures(results: Sequence[Scores], on_change: bool, target: str | None) -> list[str]:
    """Why a run that checks its checkpoints must fail: one sentence each, none if all is well.

    Raises:
        UsageError: the target that is wanted is no role, so every run would fail.
    """
    known = list(dict.fromkeys([*ROLES, *(role for one in results for role in one.roles)]))
    if target is not None and target not in known:
        expected = f"expected one of {', '.join(known)}{meant(target, known, OF_ROLES)}"
        raise UsageError(f"{option('fail_if_target_not', target)}: {expected}")
    labels = post_labels(results)
    found = []
    if on_change:
        changed = [label for label, one in zip(labels, results, strict=True) if one.changed]
        found += [f"changed: {', '.join(changed)}"] if changed else []
    if target is not None:
        for label, one in zip(labels, results, strict=True):
            if one.target != target:
                found.append(f"{label}: the target is {one.target or 'none'}, not {target}")
    return found


def target_modules(scores: Scores) -> list[str | None]:
    """The target's modules, as PEFT takes them for ``target_modules``.

    Raises:
        BeftError: there is no target, or its biases are not whole biases of modules of their own.
    """
    if scores.target is None:
        why = scores.notes[0] if scores.notes else "no candidate was compared"
        raise BeftError(f"no target to name modules of: {why}")
    sites = scores.roles[scores.target].sites
    for site in sites:
        if site.module is None and site.slice is not None:
            raise BeftError(
                f"target {scores.target} is a part ({site.slice}) of the fused {site.name}; PEFT "
                "can only train a whole bias there, queries and keys with it"
            )
        if site.module is None:
            raise BeftError(
                f"target {scores.target} is {site.name}, a free parameter and no Linear's bias; "
                "PEFT's target_modules cannot name it"
            )
    return [site.module for site in sites]


def _notes(results: Sequence[Scores]) -> list[str]:
    """All notes; those that not every POST has name theirs."""
    notes: dict[str, list[str]] = {}
    for label, one in zip(post_labels(results), results, strict=True):
        for note in one.notes:
            notes.setdefault(note, []).append(label)
    return [
        note if len(labels) == len(results) else f"{', '.join(labels)}: {note}"
        for note, labels in notes.items()
    ]


def _headline(results: Sequence[Scores]) -> list[str]:
    first = results[0]
    score, coverage = FIGURES[METHODS[first.method]], first.coverage
    pre, what = f"PRE   {source(first.pre)}", f"{first.family}, {first.tower} tower"
    target = target_line(results, lambda best: f"{best:.4g}")
    if len(results) > 1:
        how = f"{what}; score: {score}, mean over a role's sites"
        return [pre, f"POST  {len(results)} checkpoints", how, target]
    layers = len({(site.tower, site.layer) for site in first.sites})
    scale = " (0 unchanged, 1 orthogonal, 2 negated)" if first.method == "projection" else ""
    return [
        pre,
        f"POST  {source(first.post)}",
        f"{what}, {layers} layers; {coverage.matched} biases matched, {len(coverage.only_pre)} "
        f"only in PRE, {len(coverage.only_post)} only in POST, {len(coverage.unscored)} outside "
        "the roles",
        f"score: {score}{scale}, mean over a role's sites",
        target,
    ]
