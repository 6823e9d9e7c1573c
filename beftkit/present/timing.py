"""How long a run, a selection or a measurement takes, to a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.words import size
from beftkit.progress import duration

if TYPE_CHECKING:
    from beftkit.runs import Timing


def timing_document(found: Timing) -> Document:
    """How long each run and all of them take, and what that was taken from."""
    more = f", {found.processes} processes" if found.processes > 1 else ""
    lines = [
        f"{found.command} {found.model} on {found.task}: about {duration(found.seconds)}",
        f"on {found.device}{more}, {found.precision}, weights in {found.dtype}, batch "
        f"{found.batch_size}; from two steps of each kind, one before them to warm up",
    ]
    if found.peak_bytes is not None:
        whose = {"device": "on the device", "process": "of the process"}[found.peak_of]
        lines.append(f"memory {whose} at the longest rows: {size(found.peak_bytes)}")
    lines += found.notes
    paces = Table(
        [*texts("kind"), *numbers("a step", "a batch of evaluation")],
        [
            [one.what, milliseconds(one.step_seconds),
             None if one.batch_seconds is None else milliseconds(one.batch_seconds)]
            for one in found.paces
        ],
    )  # fmt: skip
    columns = [*texts("run"), *numbers("steps", "evaluations", "loading", "stepping", "evaluating")]
    body = [
        [run.name, f"{run.steps:,}", f"{run.evaluations:,}", duration(run.loading_seconds),
         duration(run.step_seconds), duration(run.evaluation_seconds), duration(run.seconds)]
        for run in found.runs
    ]  # fmt: skip
    values = found.to_dict()
    blocks: list[Block] = [Lines(lines), paces, Table([*columns, *numbers("all of it")], body)]
    return Document(values, values["runs"], blocks)


def milliseconds(seconds: float) -> str:
    """A short time."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else duration(seconds)
