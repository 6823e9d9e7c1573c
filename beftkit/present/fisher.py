"""Fisher scores in, text out: tables for a terminal, CSV, JSON and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from beftkit.present.rendering import csv_text, json_text, markdown_table, rich_table
from beftkit.present.scores import MEANING, all_notes, bullets, number, place, sparkline, width_text
from beftkit.scores import Scores, document, post_labels

_VARIANTS = {
    "exact": "squared per-example gradients of log p(label), mean over examples",
    "batch-mean": "squares of batches' mean gradients, clipped to norm 1: no per-example Fisher",
}


def fisher_text(results: Sequence[Scores], form: str) -> Any:
    """Scores of a model, and at snapshots, as ``json``, ``csv`` (a row a site), or tables."""
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
    lines, notes = _lines(results), all_notes(results)
    head, body, bold = _cells(results)
    if form == "markdown":
        shown = [f"- {line}" for line in lines]
        said = [f"- note: {note}" for note in notes]
        return "\n".join([*shown, "", *markdown_table(head, body), "", *said]).rstrip() + "\n"
    return [*lines, "", rich_table(head, body, bold), "", *bullets(notes)]


def _lines(results: Sequence[Scores]) -> list[str]:
    first = results[0]
    facts = first.settings
    assert facts is not None
    layers = len({(site.tower, site.layer) for site in first.sites})
    lines = [
        f"MODEL {place(first.pre)}",
        f"{first.family}, {first.tower} tower, {layers} layers; {facts.task}, "
        f"{facts.examples} training examples",
        f"score: empirical Fisher ({_VARIANTS[facts.variant]}), {facts.reduce} over "
        "coordinates, mean over a role's sites",
    ]
    targets = [one.target or "none" for one in results]
    if len(results) == 1:
        best = "" if first.target is None else (
            f" ({MEANING.get(first.target, 'raw name')}), "
            f"{number(first.roles[first.target].figures['fisher'])}"
        )  # fmt: skip
        return [*lines, f"target: {targets[0]}{best}"]
    labels = post_labels(results)
    changes = [
        f"{before} -> {after} at {label}"
        for before, after, label in zip(targets, targets[1:], labels[1:], strict=False)
        if before != after
    ]
    return [*lines, f"target: {targets[0]}" + (f"; {', '.join(changes)}" if changes
                                               else " throughout")]  # fmt: skip


def _cells(results: Sequence[Scores]) -> tuple[list[str], list[list[str]], list[bool]]:
    body: list[list[str]] = []
    bold: list[bool] = []
    heads = results[0].settings.by_head_seed if results[0].settings else {}
    for label, one in zip(post_labels(results), results, strict=True):
        largest = max((site.figures["fisher"] or 0.0 for site in one.sites), default=0.0)
        for role, score in one.roles.items():
            sites = sorted(score.sites, key=lambda site: (site.tower, site.attention, site.layer))
            marks = [*(["inert"] if score.inert == "yes" else []),
                     *(["inert?"] if score.inert == "unknown" else []),
                     *(["<- target"] if role == one.target else [])]  # fmt: skip
            row = [
                "-" if score.rank is None else str(score.rank), role,
                number(score.figures["fisher"]),
                sparkline([site.figures["fisher"] for site in sites], largest),
                number(score.figures["norm_pre"]), width_text(score),
                *([_spread([seed[role] for seed in heads.values()])] if heads else []),
                " ".join(marks),
            ]  # fmt: skip
            body.append([label, *row] if len(results) > 1 else row)
            bold.append(role == one.target)
            label = "" if len(results) > 1 else label
    head = ["rank", "role", "Fisher", "per layer", "‖pre‖", "width",
            *(["over heads"] if heads else []), ""]  # fmt: skip
    return ["post", *head] if len(results) > 1 else head, body, bold


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{number(min(known))} to {number(max(known))}"
