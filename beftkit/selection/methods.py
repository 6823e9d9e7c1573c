"""A finished probe, seen by each method: scores and ranks per role, and where they settled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beftkit.diff import score
from beftkit.runs.prepare import prepare
from beftkit.runs.results import Run, TrainResult, run_metrics
from beftkit.scores import METHODS as FIGURES_OF
from beftkit.scores import Scores
from beftkit.selection.certainty import Settled, settled
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Data

#: points of a track that are kept
POINTS = 200


def change_methods(
    result: TrainResult, settings: SelectSettings
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Projection ratio and magnitude of a probe, its family, and what must be noted."""
    run = result.runs[0]
    revision = result.settings.get("revision")
    pre = f"{result.model}@{revision}" if revision else result.model
    post = Path(str(run.folder)) / str(run.adapter)
    found = {
        name: score(pre, post, method=name, candidates=list(settings.candidates),
                    allow_inert=settings.allow_inert)
        for name in ("projection", "magnitude")
    }  # fmt: skip
    tables = {name: method_table(one) for name, one in found.items()}
    first = found["projection"]
    # What the probe's adapter holds beside biases is no news here.
    return tables, first.family, tuple(note for note in first.notes if "inert" in note)


def fisher_method(
    data: Data, settings: TrainSettings, select: SelectSettings, seed: int
) -> dict[str, Any]:
    """The empirical Fisher of the pretrained model on the probe's own examples and head."""
    from beftkit.gradients import fisher_scores, sites_of
    from beftkit.gradients.means import example_means

    ready = prepare(settings, seed, data=data)
    ready.place()
    measured = sites_of(ready.model)
    means, _ = example_means(
        ready.model,
        measured.names,
        ready.train,
        ready.objective,
        ready.accelerator,
        batch_size=settings.batch_size,
    )
    found = fisher_scores(
        measured, means, candidates=list(select.candidates), allow_inert=select.allow_inert
    )
    return method_table(found)


def method_table(scores: Scores) -> dict[str, Any]:
    """What a selection keeps of scores: plain values."""
    figure = FIGURES_OF[scores.method]
    roles = {}
    for role, one in scores.roles.items():
        sites = sorted(one.sites, key=lambda site: (site.tower, site.attention, site.layer))
        roles[role] = {
            "score": one.figures[figure], "rank": one.rank, "inert": one.inert, "width": one.width,
            "norm_pre": one.figures["norm_pre"], "layers": [site.figures[figure] for site in sites],
        }  # fmt: skip
    return {"target": scores.target, "roles": roles}


def run_summary(result: TrainResult, base: Path) -> dict[str, Any]:
    """What a selection keeps of a run."""
    run: Run = result.runs[0]
    folder = Path(str(run.folder))
    return {
        "bias": result.bias, "folder": folder.relative_to(base).as_posix(),
        "scalars": result.scalars, "percent": result.percent,
        "best": dict(run_metrics(run, "best")), "last": dict(run_metrics(run, "last")),
        "best_epoch": (run.best or {}).get("epoch"), "steps": run.steps, "epochs": run.epochs,
        "train_seconds": run.train_seconds, "eval_seconds": run.eval_seconds,
    }  # fmt: skip


def read_track(log: Path) -> list[tuple[int, dict[str, float | None]]]:
    """Updates and scores of each role from a run's log."""
    found: dict[int, dict[str, float | None]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record.get("scores"):
            found[record["step"]] = record["scores"]
    return sorted(found.items())


def thinned(track: Sequence[tuple[int, Mapping[str, float | None]]]) -> dict[str, Any]:
    """Role -> [[update, score], ...], first and last kept, for pictures."""
    step = max(1, -(-len(track) // POINTS))
    kept = [*track[::step], *([track[-1]] if track and (len(track) - 1) % step else [])]
    roles = dict.fromkeys(role for _, scores in kept for role in scores)
    return {role: [[at, scores.get(role)] for at, scores in kept] for role in roles}


def when_settled(
    track: Sequence[tuple[int, Mapping[str, float | None]]], table: Mapping[str, Any],
    settings: SelectSettings,
) -> Settled | None:  # fmt: skip
    """From which update the projection ratio's answer stayed, among candidates that can learn."""
    can = [
        role for role in settings.candidates
        if role in table["roles"]
        and (settings.allow_inert or table["roles"][role]["inert"] != "yes")
    ]  # fmt: skip
    return settled(track, can)
