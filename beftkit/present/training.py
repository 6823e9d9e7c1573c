"""A training run, and what one would train, to documents; a line of its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beftkit.present.commands import after_training
from beftkit.present.document import Block, Command, Document, Lines, Only, Table, numbers, texts
from beftkit.present.words import fixed, noted
from beftkit.runs.results import Run, TrainResult, run_metrics

if TYPE_CHECKING:
    from beftkit.runs import RunPlan

_KINDS = ("best", "last")


def train_document(result: TrainResult) -> Document:
    """A row a seed, mean and deviation over them, and where the adapter lies."""
    s = result.settings
    headline = [
        f"{result.model} on {result.task}, {result.runs[0].train_examples} training examples",
        f"bias {result.bias}: {result.scalars:,} of {result.total:,} scalars "
        f"({result.percent:.4f} %), and {result.head_scalars:,} of the head",
        f"lr {s.lr:g}, {s.epochs} epochs, batch {s.batch_size}, {s.precision}",
    ]
    notes = _notes(result)
    listed = Only("markdown", Lines(noted(notes), bullets=True))
    blocks: list[Block] = [Lines(headline), _table(result), Only("table", Lines(notes)), listed]
    if following := after_training(result):
        blocks.append(Only("table", Command(following)))
    return Document(result.to_dict(), [_row(one) for one in result.runs], blocks)


def plan_document(planned: RunPlan) -> Document:
    """Settings with everything filled in, and a row a parameter that would train."""
    values, choice = planned.to_dict(), planned.choice
    rows = [
        {**part, "roles": " ".join(part["roles"]), "slices": " ".join(part["slices"])}
        for part in values["parts"]
    ]
    settings = [f"{key}: {_plain(value)}" for key, value in values["settings"].items()]
    counts = (
        f"trains {choice.scalars:,} of {choice.total:,} scalars "
        f"({choice.percent:.4f} %), and {choice.head_scalars:,} of the head"
    )
    columns = [*texts("parameter", "roles", "kind"), *numbers("scalars"), *texts("part")]
    body = [
        [row["parameter"], row["roles"], row["kind"], f"{row['scalars']:,}", row["slices"]]
        for row in rows
    ]
    table, notes = Table(columns, body), Only("table", Lines(values["notes"]))
    return Document(values, rows, [Lines(settings), Lines([counts]), table, notes])


def record_line(record: Mapping[str, Any]) -> str:
    """A line of the log as a person reads it; empty for what only a file should hold."""
    begin = f"step {record['step']}"
    if "epoch" in record:
        begin += f", epoch {record['epoch']:g}"
    if "metrics" in record:
        return f"{begin}: {', '.join(_named(record['metrics']))}"
    if "lr" not in record:
        return ""
    speed = record["examples_per_second"]
    return (
        f"{begin}: loss {fixed(record['loss'])}, lr {record['lr']:.3g}, "
        f"gradient {fixed(record['grad_norm'])}"
        + (f", {speed:.0f} examples/s" if speed else "")
        + (f"; projection {' '.join(_named(record['scores']))}" if record["scores"] else "")
    )


def _table(result: TrainResult) -> Table:
    columns = [(name, kind) for name in run_metrics(result.runs[0], "last") for kind in _KINDS]
    body = []
    for run in result.runs:
        speed = run.examples_per_second
        found = [fixed(run_metrics(run, kind).get(name)) for name, kind in columns]
        best = f"epoch {run.best.epoch:g}" if run.best else "-"
        rest = [best, str(run.steps), f"{run.train_seconds:.1f}", f"{speed:.0f}" if speed else "-"]
        body.append([str(run.seed), *found, *rest])
    if len(result.runs) > 1:
        summary = result.summary()
        for what in ("mean", "deviation"):
            found = [fixed(summary[kind][name][what]) for name, kind in columns]
            body.append([what, *found, "", "", "", ""])
    metrics = [f"{name} {kind}" for name, kind in columns]
    rest = ["best at", "steps", "train s", "examples/s"]
    return Table([*texts("seed"), *numbers(*metrics, *rest)], body)


def _notes(result: TrainResult) -> list[str]:
    run = result.runs[-1]
    notes = []
    if run.scores:
        notes.append(f"projection ratio at the end: {', '.join(_named(run.scores))}")
    notes += dict.fromkeys(note for one in result.runs for note in one.notes)
    if run.adapter and run.folder:
        notes.append(f"{run.adapter} ({run.kept} state): {run.folder}/{run.adapter}")
    return notes


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"seed": run.seed}
    for kind in _KINDS:
        row |= {f"{name}_{kind}": value for name, value in run_metrics(run, kind).items()}
    row |= {f"projection_{role}": value for role, value in run.scores.items()}
    return row | {"steps": run.steps, "epochs": run.epochs, "train_seconds": run.train_seconds}


def _named(values: Mapping[str, float | None]) -> list[str]:
    return [f"{name} {fixed(value)}" for name, value in values.items()]


def _plain(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
