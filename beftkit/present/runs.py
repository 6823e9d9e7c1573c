"""Training and evaluation results in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beftkit.present.rendering import csv_text, json_text, markdown_table, rich_table
from beftkit.runs.results import Run, TrainResult, run_metrics

if TYPE_CHECKING:
    from beftkit.runs import EvaluationResult, RunPlan


def train_text(result: TrainResult, form: str) -> Any:
    """A result as ``json``, ``csv`` (a row a seed), ``markdown``, or rich renderables."""
    if form == "json":
        return json_text(result.to_dict())
    if form == "csv":
        return csv_text([_row(run) for run in result.runs])
    head, body = _cells(result)
    lines = [*_headline(result), ""]
    if form == "markdown":
        notes = [f"- note: {note}" for note in _notes(result)]
        return "\n".join([*lines, *markdown_table(head, body), "", *notes]).rstrip() + "\n"
    table = rich_table(head, body, [False] * len(body))
    return [*lines, table, "", *_notes(result), *_next(result)]


def evaluation_text(found: EvaluationResult, form: str) -> Any:
    """An evaluation as ``json``, ``csv``, ``markdown``, or rich renderables."""
    if form == "json":
        return json_text(found.to_dict())
    one = found.evaluation
    metrics = {name: _number(value) for name, value in one.metrics.items()}
    if form == "csv":
        return csv_text([{"model": found.model, "adapter": found.adapter, "task": found.task,
                          **one.metrics, "loss": one.loss, "examples": one.examples}])  # fmt: skip
    over = f" with {found.adapter}" if found.adapter else ""
    lines = [f"{found.model}{over}", f"{found.task}, {one.examples} examples", ""]
    body = [[name, value] for name, value in {**metrics, "loss": _number(one.loss)}.items()]
    if form == "markdown":
        return "\n".join([*lines, *markdown_table(["metric", "value"], body), ""])
    table = rich_table(["metric", "value"], body, [False] * len(body))
    cut = [f"{split}: {count} examples were cut to the maximal length"
           for split, count in found.truncated.items() if count]  # fmt: skip
    return [*lines, table, "", *cut, *found.notes]


def plan_text(planned: RunPlan, form: str) -> Any:
    """What would train, as ``json``, ``csv`` (a row a parameter), ``markdown``, or rich."""
    document = planned.to_dict()
    if form == "json":
        return json_text(document)
    rows = [
        {**part, "roles": " ".join(part["roles"]), "slices": " ".join(part["slices"])}
        for part in document["parts"]
    ]
    if form == "csv":
        return csv_text(rows)
    settings = [f"{key}: {_plain(value)}" for key, value in document["settings"].items()]
    counts = (
        f"trains {planned.choice.scalars:,} of {planned.choice.total:,} scalars "
        f"({planned.choice.percent:.4f} %), and {planned.choice.head_scalars:,} of the head"
    )
    head = ["parameter", "roles", "kind", "scalars", "part"]
    body = [[row["parameter"], row["roles"], row["kind"], f"{row['scalars']:,}", row["slices"]]
            for row in rows]  # fmt: skip
    if form == "markdown":
        return "\n".join([*settings, "", counts, "", *markdown_table(head, body), ""])
    return [*settings, "", counts, "", rich_table(head, body, [False] * len(body)), "",
            *document["notes"]]  # fmt: skip


def record_line(record: Mapping[str, Any]) -> str:
    """A line of the log as a person reads it; empty for what only a file should hold."""
    begin = f"step {record['step']}"
    if "epoch" in record:
        begin += f", epoch {record['epoch']:g}"
    if "metrics" in record:
        shown = [f"{name} {_number(value)}" for name, value in record["metrics"].items()]
        return f"{begin}: {', '.join(shown)}"
    if "lr" not in record:
        return ""
    scores = " ".join(f"{role} {_number(value)}" for role, value in record["scores"].items())
    speed = record["examples_per_second"]
    return (
        f"{begin}: loss {_number(record['loss'])}, lr {record['lr']:.3g}, "
        f"gradient {_number(record['grad_norm'])}"
        + (f", {speed:.0f} examples/s" if speed else "")
        + (f"; projection {scores}" if scores else "")
    )


def _headline(result: TrainResult) -> list[str]:
    s = result.settings
    return [
        f"{result.model} on {result.task}, {result.runs[0].train_examples} training examples",
        f"bias {result.bias}: {result.scalars:,} of {result.total:,} scalars "
        f"({result.percent:.4f} %), and {result.head_scalars:,} of the head",
        f"lr {s['lr']:g}, {s['epochs']} epochs, batch {s['batch_size']}, {s['precision']}",
    ]


def _cells(result: TrainResult) -> tuple[list[str], list[list[str]]]:
    names = list(run_metrics(result.runs[0], "last"))
    head = ["seed", *(f"{name} {which}" for name in names for which in ("best", "last")),
            "best at", "steps", "train s", "examples/s"]  # fmt: skip
    body = []
    for run in result.runs:
        speed = run.examples_per_second
        body.append(
            [str(run.seed),
             *(_number(run_metrics(run, which).get(name)) for name in names
               for which in ("best", "last")),
             f"epoch {run.best.epoch:g}" if run.best else "-", str(run.steps),
             f"{run.train_seconds:.1f}", f"{speed:.0f}" if speed else "-"]
        )  # fmt: skip
    if len(result.runs) > 1:
        summary = result.summary()
        for kind in ("mean", "deviation"):
            cells = [_number(summary[which][name][kind]) for name in names
                     for which in ("best", "last")]  # fmt: skip
            body.append([kind, *cells, "", "", "", ""])
    return head, body


def _notes(result: TrainResult) -> list[str]:
    run = result.runs[-1]
    scores = ", ".join(f"{role} {_number(value)}" for role, value in run.scores.items())
    notes = [f"projection ratio at the end: {scores}"] if scores else []
    notes += list(dict.fromkeys(note for one in result.runs for note in one.notes))
    if run.adapter and run.folder:
        notes.append(f"{run.adapter} ({run.kept} state): {run.folder}/{run.adapter}")
    return notes


def _next(result: TrainResult) -> list[str]:
    run = result.runs[-1]
    if run.adapter != "adapter":
        return []
    place = f"{run.folder}/adapter"
    return [f"Next: beftkit evaluate --adapter {place}", f"      beftkit score {place}"]


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"seed": run.seed}
    for which in ("best", "last"):
        row |= {f"{name}_{which}": value for name, value in run_metrics(run, which).items()}
    row |= {f"projection_{role}": value for role, value in run.scores.items()}
    return row | {"steps": run.steps, "epochs": run.epochs, "train_seconds": run.train_seconds}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
