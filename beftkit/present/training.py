"""A training run to a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from beftkit.present.commands import after_training
from beftkit.present.document import Block, Command, Document, Lines, Only, Table, numbers, texts
from beftkit.present.verdicts import listed
from beftkit.present.words import around, fixed, noted
from beftkit.runs.results import Run, TrainResult, run_evaluated, run_metrics
from beftkit.tasks.deviations import zero_error_note

if TYPE_CHECKING:
    from beftkit.training.evaluation import Evaluated

_KINDS = ("best", "last")


def train_document(result: TrainResult) -> Document:
    """A row a seed, mean and deviation over them, and where the adapter lies."""
    s = result.settings
    head = f", and {result.head_scalars:,} of the head" if result.head_scalars else ""
    epochs = f"{s.epochs} epoch{'s' * (s.epochs != 1)}"
    examples = result.runs[0].train_examples
    headline = [
        f"{result.model} on {result.task}, {examples} training example{'s' * (examples != 1)}",
        f"{s.tuned}: {result.scalars:,} of {result.total:,} scalars "
        f"({result.percent:.4f} %)" + head,
        f"lr {s.lr:g}, {epochs}, batch {s.batch_size}, {s.precision}",
    ]
    notes = _notes(result)
    listed = Only("markdown", Lines(noted(notes), bullets=True))
    blocks: list[Block] = [Lines(headline), *_sweep(result), _table(result)]
    blocks += [Only("table", Lines(notes)), listed]
    if following := after_training(result):
        blocks.append(Only("table", Command(following)))
    return Document(result.to_dict(), [_row(one) for one in result.runs], blocks)


def _sweep(result: TrainResult) -> list[Block]:
    """The curve of a sweep over learning rates, where one found the rate."""
    found = result.provenance.rates if result.provenance else None
    if found is None:
        return []
    said = [
        f"lr {found.lr:g} was found on {found.held_out} held-out training examples, after "
        f"{found.updates} updates on {found.examples} others:"
    ]
    body = [
        [f"{one.lr:g}", around(one.metric, one.standard_error), fixed(one.loss)]
        for one in found.tried
    ]
    strong = [one.lr == found.lr for one in found.tried]
    blocks: list[Block] = [Lines(said), Table(numbers("lr", found.metric, "loss"), body, strong)]
    if found.edge:
        blocks.append(Lines(["It is the lowest or highest tried: another may be better still."]))
    if close := found.not_told_apart:
        rates = listed(f"{lr:g}" for lr in close)
        blocks.append(Lines([f"Not told apart from it by {found.held_out} examples: {rates}."]))
    return blocks


def _table(result: TrainResult) -> Table:
    columns = [(name, kind) for name in run_metrics(result.runs[0], "last") for kind in _KINDS]
    body = []
    for run in result.runs:
        speed = run.examples_per_second
        found = [_measured(run_evaluated(run, kind), name) for name, kind in columns]
        best = f"epoch {run.best.epoch:g}" if run.best else "-"
        rest = [best, str(run.steps), f"{run.train_seconds:.1f}", f"{speed:.0f}" if speed else "-"]
        body.append([str(run.seed), *found, *rest])
    if len(result.runs) > 1:
        summary = result.summary()
        for what in ("mean", "deviation"):
            found = [fixed(summary[kind][name][what]) for name, kind in columns]
            body.append([what, *found, "", "", "", ""])
    last = run_evaluated(result.runs[0], "last")
    if last and any(one is not None for one in last.baselines.values()):
        found = [fixed(last.baselines.get(name)) for name, _ in columns]
        body.append([last.baseline_is, *found, "", "", "", ""])
    headings = texts("seed")
    for name, kind in columns:  # the first metric picks the best: it stays longest
        spare = 0 if name == columns[0][0] else 1 + (kind == "last")
        headings += numbers(f"{name} {kind}", spare=spare)
    headings += [*numbers("best at", "steps", spare=3), *numbers("train s", "examples/s", spare=4)]
    return Table(headings, body)


def _notes(result: TrainResult) -> list[str]:
    run = result.runs[-1]
    notes = []
    if run.last and any(error is not None for error in run.last.standard_errors.values()):
        notes.append("±: one standard error at this many validation examples")
    found = [one for each in result.runs for one in (each.best, each.last) if one]
    notes += zero_error_note([error for one in found for error in one.standard_errors.values()])
    if run.scores:
        notes.append(f"projection ratio at the end: {', '.join(_named(run.scores))}")
    notes += dict.fromkeys(note for one in result.runs for note in one.notes)
    if run.adapter and run.folder:
        notes.append(f"{run.adapter} ({run.kept} state): {run.folder}/{run.adapter}")
    return notes


def _measured(found: Evaluated | None, name: str) -> str:
    return around(found.metrics.get(name), found.standard_errors.get(name)) if found else "-"


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"seed": run.seed}
    for kind in _KINDS:
        row |= {f"{name}_{kind}": value for name, value in run_metrics(run, kind).items()}
        if found := run_evaluated(run, kind):
            errors = found.standard_errors.items()
            row |= {f"{name}_{kind}_standard_error": value for name, value in errors}
    if run.last:
        row |= {f"{name}_baseline": value for name, value in run.last.baselines.items()}
    row |= {f"projection_{role}": value for role, value in run.scores.items()}
    return row | {"steps": run.steps, "epochs": run.epochs, "train_seconds": run.train_seconds}


def _named(values: Mapping[str, float | None]) -> list[str]:
    return [f"{name} {fixed(value)}" for name, value in values.items()]
