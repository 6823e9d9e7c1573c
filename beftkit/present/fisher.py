"""Fisher scores to a document: of a model, and at snapshots of a run."""

from __future__ import annotations

from collections.abc import Sequence

from beftkit.present.document import Document
from beftkit.present.scores import WIDTH, ranked, target_line
from beftkit.present.words import number, source
from beftkit.scores import RoleScore, Scores

_VARIANTS = {
    "exact": "squared per-example gradients of log p(label), mean over examples",
    "batch-mean": "squares of batches' mean gradients, clipped to norm 1: no per-example Fisher",
}


def fisher_document(results: Sequence[Scores]) -> Document:
    """A model's scores, and those at snapshots: a table of roles, a CSV row a site."""
    first, facts = results[0], results[0].settings
    assert facts is not None
    layers = len({(site.tower, site.layer) for site in first.sites})
    lines = [
        f"MODEL {source(first.pre)}",
        f"{first.family}, {first.tower} tower, {layers} layers; {facts.task}, "
        f"{facts.examples} training examples",
        f"score: empirical Fisher ({_VARIANTS[facts.variant]}), {facts.reduce} over "
        "coordinates, mean over a role's sites",
        target_line(results),
    ]
    heads = facts.by_head_seed.values()

    def spread(score: RoleScore) -> str:
        values = [value for head in heads if (value := head[score.role]) is not None]
        return f"{number(min(values))} to {number(max(values))}"

    return ranked(results, lines, "Fisher", {**WIDTH, **({"over heads": spread} if heads else {})})
