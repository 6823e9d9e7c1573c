"""One cell of bench/rates.py: trained, and what is kept of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.rates_cells import BATCH, EVERY, FOLDERS, PUBLISHED, SMALL, STATES, Cell


def settings_of(cell: Cell, model: str, data_dir: str, device: str) -> dict[str, Any]:
    """What `beftkit.train` and `beftkit.select` are both called with."""
    from beftkit.registry import TASKS

    row = TASKS[cell.task]
    published = cell.protocol == PUBLISHED
    epochs = row.epochs if published else 20 if cell.task in SMALL else 12
    return {
        "model": model,
        "task": cell.task,
        "data_dir": str(Path(data_dir) / FOLDERS.get(cell.task, "glue")),
        "batch_size": BATCH,
        "epochs": epochs,
        "eval_steps": EVERY * -(-row.sizes["low"] // BATCH),
        "seeds": (cell.seed,),
        "precision": "fp32" if published else "bf16",
        "device": device,
    }


def train(cell: Cell, how: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row of figures; of a probe also its scores."""
    if cell.role == "all":
        return probe(cell, how)
    if cell.role == "fisher":
        return fisher_over_training(cell, how)
    import beftkit

    class Watch(beftkit.Unwatched):
        """Keeps the lines of evaluations."""

        def __init__(self) -> None:
            self.lines: list[Mapping[str, Any]] = []

        def logged(self, record: Mapping[str, Any]) -> None:
            if "metrics" in record:
                self.lines.append(record)

    watch = Watch()
    where = {"regime": "low", "bias": cell.role, "lr": cell.rate}
    found = beftkit.train(**how, **where, watcher=watch)
    run, metric = found.runs[0], found.metric
    figures = {
        "rate": found.settings.lr,
        "examples": run.train_examples,
        "scalars": found.scalars,
        "metric": metric,
        "best": run.best.metrics[metric],
        "best_epoch": run.best.epoch,
        "last": run.last.metrics[metric],
        "baseline": run.best.baselines.get(metric),
        "standard_error": run.best.standard_errors.get(metric),
        "stayed": run.stayed,
        "evaluations": evaluations(watch.lines),
        "score": run.scores.get(cell.role),
        "train_seconds": run.train_seconds,
    }
    return figures, []


def probe(cell: Cell, how: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All biases trained, as a selection does it, and what its methods say."""
    import beftkit

    published = cell.protocol == PUBLISHED
    lrs = {} if published else {"lrs": (cell.rate,)}
    how = {**how, "epochs": (how["epochs"],)}
    with tempfile.TemporaryDirectory() as folder:
        # The Fisher score is of the model before training: the same at every rate.
        found = beftkit.select(**how, **lrs, regimes=("low",), output=folder, fisher=published)
        [result] = found.cells
        log = Path(folder) / result.folder / "probe" / "log.jsonl"
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    run, metric = result.runs["probe"], str(found.metric)
    figures = {
        "rate": result.cell.lr,
        "examples": result.examples,
        "scalars": run.scalars,
        "metric": metric,
        "best": run.best[metric],
        "best_epoch": run.best_epoch,
        "last": run.last[metric],
        "baseline": run.baselines.get(metric),
        "standard_error": run.standard_errors.get(metric),
        "stayed": run.stayed,
        "evaluations": evaluations(line for line in lines if "metrics" in line),
        "train_seconds": run.train_seconds,
    }
    when = result.settled
    settled = {"settled_target": when and when.target, "settled_ranking": when and when.ranking}
    rows = [
        {
            "steps": run.steps,
            "method": method,
            "role": role,
            **{name: getattr(one, name) for name in ("score", "rank", "inert", "width")},
            "target": role == table.target,
            "norm_pre": one.norm_pre,
            "layers": json.dumps(one.layers),
            **settled,
        }
        for method, table in {**result.methods, **result.free}.items()
        for role, one in table.roles.items()
    ]
    return figures, rows


def fisher_over_training(
    cell: Cell, how: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A probe's states, and what the empirical Fisher says at some of them, each with its head."""
    import beftkit
    from beftkit.registry import TASKS

    with tempfile.TemporaryDirectory() as folder:
        what = {"regime": "low", "bias": "all", "save_snapshots": True, "output": f"{folder}/run"}
        found = beftkit.train(**how, **what)
        states = sorted(Path(folder, "run", "snapshots").iterdir(), key=_number)
        at = sorted({round((len(states) - 1) * n / (STATES - 1)) for n in range(STATES)})
        names = ("model", "task", "data_dir", "batch_size", "device")
        size = TASKS[cell.task].sizes["low"]
        scores = beftkit.fisher_all(
            **{name: how[name] for name in names},
            train_size=size,
            head_seeds=(cell.seed,),
            snapshots=[str(states[n]) for n in at],
        )
    run, metric = found.runs[0], str(found.metric)
    figures = {
        "rate": found.settings.lr,
        "examples": run.train_examples,
        "scalars": found.scalars,
        "metric": metric,
        "best": run.best.metrics[metric],
        "last": run.last.metrics[metric],
        "train_seconds": run.train_seconds,
    }
    rows = [
        {"epoch": epoch, "role": role, "score": one.figures["fisher"], **_placed(one)}
        for epoch, scored in zip((0, *(n + 1 for n in at)), scores, strict=True)
        for role, one in scored.roles.items()
    ]
    return figures, rows


def _number(path: Path) -> int:
    return int("".join(filter(str.isdigit, path.stem)))


def _placed(one: Any) -> dict[str, Any]:
    return {"rank": one.rank, "inert": one.inert}


def evaluations(lines: Iterable[Mapping[str, Any]]) -> str:
    """Epoch and metrics of each, as JSON."""
    return json.dumps([{"epoch": line["epoch"], **line["metrics"]} for line in lines])
