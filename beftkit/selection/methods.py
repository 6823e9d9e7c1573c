"""A finished probe, seen by each method: scores and ranks per role, and where they settled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from beftkit.checkpoints import model_reference
from beftkit.diff import comparison
from beftkit.runs.prepare import prepare
from beftkit.runs.results import Run, TrainResult, run_metrics
from beftkit.scores import METHODS as FIGURES_OF
from beftkit.scores import Scores, unmeasured
from beftkit.selection.certainty import Settled, settled
from beftkit.selection.ranks import MethodTable, RoleRank
from beftkit.selection.results import CellRun, ProbeRun
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Data
from beftkit.tuning import add
from beftkit.watching import Watcher

#: (update, role -> score), ...
Track = Sequence[tuple[int, Mapping[str, float | None]]]
#: points of a track that are kept
POINTS = 200


def change_methods(
    result: TrainResult, settings: SelectSettings
) -> tuple[dict[str, MethodTable], Scores, tuple[str, ...]]:
    """Projection ratio and magnitude of a probe, what was read, and what must be noted."""
    run = result.runs[0]
    pre = model_reference(result.model, result.settings.revision)
    post = Path(str(run.folder)) / str(run.adapter)
    read = comparison(pre, post)  # unrounded: a probe trains in float32, whatever is stored
    rules = list(settings.candidates), settings.allow_inert
    first, second = (read.ranked(method, *rules) for method in ("projection", "magnitude"))
    tables = {one.method: method_table(one) for one in (first, second)}
    # What the probe's adapter holds beside biases is no news here.
    told = [note for note in first.notes if "inert" in note or "zero in PRE" in note]
    return tables, first, tuple(told)


def fisher_method(
    data: Data, settings: TrainSettings, select: SelectSettings, seed: int, watcher: Watcher
) -> MethodTable:
    """The empirical Fisher of the pretrained model on the probe's own examples and head."""
    from beftkit.gradients import fisher_scores, sites_of
    from beftkit.gradients.means import example_means

    ready = prepare(settings, seed, data=data)
    ready.place()
    add(ready.model, settings.add_bias)
    measured = sites_of(ready.model, reference=settings.model)
    what = ready.model, measured.names, ready.train, ready.objective, ready.accelerator
    means, _ = example_means(
        *what, batch_size=settings.examples_a_batch, graphs=settings.graphs, watcher=watcher
    )
    among = list(select.candidates)
    found = fisher_scores(measured, means, candidates=among, allow_inert=select.allow_inert)
    return method_table(found)


def method_table(scores: Scores) -> MethodTable:
    """What a selection keeps of scores."""
    figure = FIGURES_OF[scores.method]
    roles = {}
    for role, one in scores.roles.items():
        sites = sorted(one.sites, key=lambda site: (site.tower, site.attention, site.layer))
        rank = one.figures[figure], one.rank, one.inert, one.width, one.figures["norm_pre"]
        roles[role] = RoleRank(*rank, tuple(site.figures[figure] for site in sites))
    return MethodTable(scores.target, roles)


def run_summary(result: TrainResult, base: Path) -> CellRun:
    """What a selection keeps of a run."""
    run: Run = result.runs[0]
    folder = Path(str(run.folder)).relative_to(base).as_posix()
    best, last = (dict(run_metrics(run, which)) for which in ("best", "last"))
    at = run.best.epoch if run.best else None
    counts = at, run.steps, run.epochs, run.train_seconds, run.eval_seconds
    what = result.bias, folder, result.scalars, result.percent, best, last, *counts
    if run.best is None:
        return CellRun(*what, head_scalars=result.head_scalars)
    return CellRun(
        *what,
        head_scalars=result.head_scalars,
        standard_errors=run.best.standard_errors,
        baselines=run.best.baselines,
        baseline_is=run.best.baseline_is,
        stayed=run.stayed,
    )


def probe_summary(result: TrainResult, base: Path, family: str) -> ProbeRun:
    """The same of a probe, and what it tells of the model and the task."""
    run = vars(run_summary(result, base))
    return ProbeRun(**run, family=family, total=result.total, metric=result.metric)


def read_track(log: Path) -> list[tuple[int, dict[str, float | None]]]:
    """Updates and scores of each role from a run's log."""
    found: dict[int, dict[str, float | None]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record.get("scores"):
            found[record["step"]] = record["scores"]
    return sorted(found.items())


def thinned(track: Track) -> dict[str, tuple[tuple[int, float | None], ...]]:
    """Role -> (update, score), ..., first and last kept, for pictures."""
    step = max(1, -(-len(track) // POINTS))
    kept = [*track[::step], *([track[-1]] if track and (len(track) - 1) % step else [])]
    roles = dict.fromkeys(role for _, scores in kept for role in scores)
    return {role: tuple((at, scores.get(role)) for at, scores in kept) for role in roles}


def when_settled(track: Track, table: MethodTable, settings: SelectSettings) -> Settled | None:
    """From which update the projection ratio's answer stayed, among candidates that can learn."""
    empty = unmeasured("projection", {role: one.norm_pre for role, one in table.roles.items()})
    there = [role for role in settings.candidates if role in table.roles and role not in empty]
    able = [role for role in there if settings.allow_inert or table.roles[role].inert != "yes"]
    return settled(track, able)
