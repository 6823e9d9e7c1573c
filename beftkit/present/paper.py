"""A table of the paper to a document: ours beside the published figures, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.words import count, noted

if TYPE_CHECKING:
    from beftkit.suite import PaperPlan, PaperResult
    from beftkit.suite.results import PaperRow


def paper_document(found: PaperResult) -> Document:
    """A row a figure; a CSV row the same."""
    lines = [f"{found.title} ({found.table}); figures in percent"]
    blocks: list[Block] = [Lines([*lines, *differs_words(found.differs)]), _table(found)]
    said = _averages(found) + _missing(found)
    said += [f"{name}: failed: {why}" for name, why in found.failed.items()]
    blocks += [Lines(said)] if said else []
    blocks.append(Lines(noted(found.notes)))
    return Document(found.to_dict(), [_plain(row) for row in found.rows], blocks)


def differs_words(differs: Any) -> list[str]:
    """What is other than published."""
    told = ", ".join(f"{name} {value}" for name, value in differs.items())
    return [f"other than published: {told}"] if told else []


def _table(found: PaperResult) -> Table:
    timed = any(row.published_seconds for row in found.rows)
    ranked = any(row.rank is not None for row in found.rows)
    columns = [*texts("cell", "metric"), *numbers("published", "ours", "difference")]
    columns += [*numbers("std. error", spare=1), *numbers("last", spare=2)]
    columns += [*numbers("baseline", spare=3), *numbers("seeds", spare=4)]
    columns += numbers("rank") if ranked else []
    columns += [*numbers("train s"), *numbers("published s")] if timed else []
    columns += numbers("% of scalars", spare=5)
    body = []
    for row in found.rows:
        line: list[str | None] = [row.label, row.metric, _one(row.published), _one(row.ours)]
        line += [None if row.difference is None else f"{row.difference:+.1f}"]
        line += [_one(row.standard_error), _one(row.last), _one(row.baseline)]
        line.append(str(len(row.seeds)))
        line += [None if row.rank is None else f"{row.rank:g}"] if ranked else []
        line += [_one(row.seconds), _one(row.published_seconds)] if timed else []
        body.append([*line, None if row.percent is None else f"{row.percent:.4f}"])
    return Table(columns, body)


def _averages(found: PaperResult) -> list[str]:
    """How far ours are from the published, over all figures that are there."""
    known = [row.difference for row in found.rows if row.difference is not None]
    if len(known) < 2:
        return []
    mean, far = sum(known) / len(known), max(map(abs, known))
    return [
        f"difference to the published: {mean:+.1f} on average of {len(known)}, at most {far:.1f}"
    ]


def _missing(found: PaperResult) -> list[str]:
    cells = dict.fromkeys(row.cell for row in found.rows if row.missing)
    if not cells:
        return []
    some = ", ".join(list(cells)[:6]) + (", ..." if len(cells) > 6 else "")
    return [f"{count(found.missing)} runs are missing, of {len(cells)} cells: {some}"]


def _plain(row: PaperRow) -> dict[str, Any]:
    values = asdict(row)
    return {**values, **{name: " ".join(map(str, values[name])) for name in ("seeds", "missing")}}


def _one(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def paper_plan_document(found: PaperPlan) -> Document:
    """The cells, and what is to be run of them."""
    head = [f"{found.title} ({found.table}): {found.runs} runs to be made"]
    if found.seconds is not None:
        head.append(f"timed: {found.seconds:.0f} s in one process, one after the other")
    if found.untimed:
        head.append(f"not timed: {found.untimed} of them")
    columns = [*texts("cell", "what", "model", "task"), *texts("settings", folds=True)]
    columns += [*texts("done", "to do"), *(numbers("s a run") if found.timed else [])]
    body = []
    rows = []
    for cell in found.cells:
        told = ", ".join(f"{name} {_word(value)}" for name, value in cell.settings.items())
        seeds = [" ".join(map(str, one)) or None for one in (cell.done, cell.todo)]
        time = None if cell.seconds is None else f"{cell.seconds:.0f}"
        line: list[str | None] = [cell.name, cell.what, cell.model, cell.task, told, *seeds]
        body.append([*line, *([time] if found.timed else [])])
        values = {**asdict(cell), "settings": told, "done": seeds[0], "todo": seeds[1]}
        rows.append(values)
    reasons = dict.fromkeys(cell.refused for cell in found.cells if cell.refused)
    refused = [f"{_refused(found, why)}: {why}" for why in reasons]
    blocks: list[Block] = [Lines([*head, *differs_words(found.differs)]), Table(columns, body)]
    said = [*refused, *noted(found.notes)]
    return Document(found.to_dict(), rows, [*blocks, *([Lines(said)] if said else [])])


def _refused(found: PaperPlan, why: str) -> str:
    """The cells that cannot be timed for one reason."""
    names = [cell.name for cell in found.cells if cell.refused == why]
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(names[:3] if more else names) + more


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
