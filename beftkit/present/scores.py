"""Results in, text out: tables for a terminal, CSV, JSON and Markdown. No arithmetic on biases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from beftkit.errors import BeftError
from beftkit.present.rendering import csv_text, json_text, markdown_table, rich_table
from beftkit.scores import FIGURES, METHODS, Identity, RoleScore, Scores, document, post_labels

if TYPE_CHECKING:
    from beftkit.inspection import Inspection

FORMATS = ("table", "json", "csv", "markdown")
SPARKS = "▁▂▃▄▅▆▇█"
WIDEST_SPARKLINE = 32
MEANING = {
    "q": "query", "k": "key", "v": "value", "m1": "attention output", "m2": "MLP in",
    "m3": "MLP out", "ln1": "attention LayerNorm", "ln2": "MLP LayerNorm",
}  # fmt: skip


def scores_text(results: Sequence[Scores], form: str) -> str:
    """Render scores as ``json``, ``csv`` (one row a POST and site) or ``markdown``."""
    if form == "json":
        return json_text(document(results))
    if form == "csv":
        return csv_text(
            [
                {"post": one.post.path, "role": site.role, **site.to_dict()}
                for one in results
                for site in one.sites
            ]
        )
    head, body, _ = _cells(results)
    lines = [f"- {line}" for line in _headline(results)]
    notes = [f"- note: {note}" for note in all_notes(results)]
    return "\n".join([*lines, "", *markdown_table(head, body), "", *notes]).rstrip() + "\n"


def inspection_text(inspection: Inspection, form: str) -> str:
    """Render an inspection as ``json``, ``csv`` or ``markdown``."""
    if form == "json":
        return json_text(inspection.to_dict())
    rows = [{"role": role.role, **role.to_dict()} for role in inspection.roles]
    for row in rows:
        row.update(width=_join(row["width"]), dtype=_join(row["dtype"]))
    if form == "csv":
        return csv_text(rows)
    head, body = _inspection_cells(inspection)
    return "\n".join([*_inspection_lines(inspection), "", *markdown_table(head, body), ""])


def scores_table(results: Sequence[Scores]) -> list[Any]:
    """Rich renderables: headline, table of roles (of each POST, if there are several), notes."""
    head, body, bold = _cells(results)
    return [*_headline(results), "", rich_table(head, body, bold), "", *bullets(all_notes(results))]


def inspection_table(inspection: Inspection) -> list[Any]:
    """Rich renderables: headline, table of roles, notes."""
    head, body = _inspection_cells(inspection)
    table = [rich_table(head, body, [False] * len(body)), ""] if body else []
    return [*_inspection_lines(inspection), "", *table, *bullets(inspection.notes)]


def demo_text(
    folder: str, before: float, after: float, majority: float, train: int, evaluated: int
) -> str:
    """What a demo run showed, what it did not, and what to try next."""
    return (
        f"\nTraining only the biases on {train} sentences took accuracy on {evaluated} unseen ones "
        f"from {before:.3f} to {after:.3f} (always the commoner label: {majority:.3f}).\n"
        "The language is made up and the model tiny: this shows how to read the table, not what "
        "your task would choose.\n"
        f"In {folder}: pre/ and post/ (ordinary Hugging Face folders), scores.json, scores.png, "
        "select.json, and the sentences\n"
        f"Also: beftkit score {folder}/pre {folder}/post --method magnitude\n"
        "      beftkit score your-base your-finetuned --plot biases.png\n"
    )


def failures(results: Sequence[Scores], on_change: bool, target: str | None) -> list[str]:
    """Why a run that checks its checkpoints must fail: one sentence each, none if all is well."""
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


def target_modules(scores: Scores) -> str:
    """The target's modules as a JSON list that PEFT takes as ``target_modules``.

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
    return json_text([site.module for site in sites])


def sparkline(values: Sequence[float | None], largest: float) -> str:
    """One block character a value, at most `WIDEST_SPARKLINE` (neighbours averaged beyond)."""
    groups = min(len(values), WIDEST_SPARKLINE)
    text = ""
    for group in range(groups):
        part = values[group * len(values) // groups : (group + 1) * len(values) // groups]
        known = [value for value in part if value is not None]
        if not known:
            text += "·"
        elif largest <= 0:
            text += SPARKS[0]
        else:
            share = max(0.0, sum(known) / len(known) / largest)
            text += SPARKS[min(int(share * len(SPARKS)), len(SPARKS) - 1)]
    return text


def all_notes(results: Sequence[Scores]) -> list[str]:
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
    if len(results) == 1:
        return _score_lines(results[0])
    first, targets = results[0], [one.target or "none" for one in results]
    changes = [
        f"{targets[index - 1]} -> {target} at {label}"
        for index, (label, target) in enumerate(zip(post_labels(results), targets, strict=True))
        if index and target != targets[index - 1]
    ]
    return [
        f"PRE   {place(first.pre)}",
        f"POST  {len(results)} checkpoints",
        f"{first.family}, {first.tower} tower; score: {FIGURES[METHODS[first.method]]}, mean "
        "over a role's sites",
        f"target: {targets[0]}" + (f"; {', '.join(changes)}" if changes else " throughout"),
    ]


def _cells(results: Sequence[Scores]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Heading, rows, and which rows are targets; several POSTs get a column of their own."""
    body: list[list[str]] = []
    bold: list[bool] = []
    head: list[str] = []
    for label, one in zip(post_labels(results), results, strict=True):
        head, rows = _score_cells(one)
        for row, role in zip(rows, one.roles, strict=True):
            body.append([label, *row] if len(results) > 1 else row)
            bold.append(role == one.target)
            label = "" if len(results) > 1 else label  # the name stands once
    return ["post", *head] if len(results) > 1 else head, body, bold


def _score_lines(scores: Scores) -> list[str]:
    coverage = scores.coverage
    layers = len({(site.tower, site.layer) for site in scores.sites})
    method = scores.method
    scale = " (0 unchanged, 1 orthogonal, 2 negated)" if method == "projection" else ""
    lines = [
        f"PRE   {place(scores.pre)}",
        f"POST  {place(scores.post)}",
        f"{scores.family}, {scores.tower} tower, {layers} layers; {coverage.matched} biases "
        f"matched, {len(coverage.only_pre)} only in PRE, {len(coverage.only_post)} only in POST, "
        f"{len(coverage.unscored)} outside the roles",
        f"score: {FIGURES[METHODS[method]]}{scale}, mean over a role's sites",
    ]
    if scores.target:
        best = scores.roles[scores.target].figures[METHODS[method]]
        meaning = MEANING.get(scores.target, "raw name")
        lines.append(f"target: {scores.target} ({meaning}), {best:.4g}")
    else:
        lines.append("target: none")
    return lines


def place(identity: Identity) -> str:
    """A reference; of one on the hub also the commit, and what was fetched of its weight files."""
    if identity.commit is None:
        return identity.path
    fetched = f"fetched {_bytes(identity.bytes_fetched or 0)}"
    if identity.bytes_of_files:
        fetched += f" of {_bytes(identity.bytes_of_files)}"
    return f"{identity.path} (commit {identity.commit[:8]}, {fetched})"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _score_cells(scores: Scores) -> tuple[list[str], list[list[str]]]:
    figure = METHODS[scores.method]
    largest = max((site.figures[figure] or 0.0 for site in scores.sites), default=0.0)
    second = "magnitude_l1" if figure == "projection" else "projection"
    head = ["rank", "role", "score", "per layer", "‖pre‖", _heading(second), "angle", "width"]
    body = []
    for role, score in scores.roles.items():
        sites = sorted(score.sites, key=lambda site: (site.tower, site.attention, site.layer))
        spark = sparkline([site.figures[figure] for site in sites], largest)
        marks = [*(["inert"] if score.inert == "yes" else []),
                 *(["inert?"] if score.inert == "unknown" else []),
                 *(["<- target"] if role == scores.target else [])]  # fmt: skip
        body.append(
            [
                "-" if score.rank is None else str(score.rank),
                role,
                number(score.figures[figure]),
                spark,
                number(score.figures["norm_pre"]),
                number(score.figures[second]),
                number(score.figures["angle"], "°"),
                width_text(score),
                " ".join(marks),
            ]
        )
    return [*head, ""], body


def _heading(figure: str) -> str:
    return {"magnitude_l1": "l1 change", "projection": "projection"}[figure]


def width_text(score: RoleScore) -> str:
    return "mixed" if score.width is None else str(score.width)


def number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    if unit:
        return f"{value:.1f}{unit}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"


def _inspection_lines(inspection: Inspection) -> list[str]:
    layers = ", ".join(f"{tower}: {count} layers" for tower, count in inspection.layers.items())
    return [
        place(inspection.checkpoint),
        f"{inspection.family}; {layers or 'no attention biases'}; "
        f"{len(inspection.unscored)} biases outside the roles",
    ]


def _inspection_cells(inspection: Inspection) -> tuple[list[str], list[list[str]]]:
    several = len({(role.tower, role.attention) for role in inspection.roles}) > 1
    head = [*(["tower", "attention"] if several else []), "role", "count", "width", "dtype",
            "mean norm", "min", "max", "inert"]  # fmt: skip
    body = [
        [
            *([role.tower, role.attention] if several else []),
            role.role,
            str(role.count),
            _join(role.widths) + (" (fused)" if role.fused else ""),
            _join(role.dtypes),
            *(number(norm) for norm in (role.norm_mean, role.norm_min, role.norm_max)),
            role.inert,
        ]
        for role in inspection.roles
    ]
    return head, body


def _join(values: Iterable[object]) -> str:
    return "/".join(map(str, values))


def bullets(notes: Iterable[str]) -> list[str]:
    return [f"note: {note}" for note in notes]
