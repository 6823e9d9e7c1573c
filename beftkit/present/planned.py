"""What a run, a selection or a measurement would do, to documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.words import noted
from beftkit.registry import REGIMES
from beftkit.tuning.choice import Part, spans

if TYPE_CHECKING:
    from beftkit.runs import FisherPlan, RunPlan
    from beftkit.runs.planning import Plan
    from beftkit.selection.planning import CellPlan, SelectPlan
    from beftkit.settings.fisher import FisherSettings
    from beftkit.settings.select import SelectSettings
    from beftkit.settings.topics import Part as Settings
    from beftkit.settings.train import TrainSettings

Facts = Iterable[tuple[str, str]]
#: settings that the lines above them tell already
_TOLD = {"model", "task", "bias", "regime", "train_size", "output", "train_file", "examples"}
_TOLD |= {"validation_file", "validation_size", "precision", "device", "lr", "epochs", "max_steps"}
_TOLD |= {"regimes", "lrs", "seeds", "verify", "fisher", "head_seeds", "data_dir"}
DRAWN = "drawn by the seed out"
_NUMBER = re.compile(r"\d+")


def run_plan_document(planned: RunPlan) -> Document:
    """A run: where, on what, how long, what trains, and a row for what trains in all layers."""
    s, choice, course = planned.settings, planned.choice, planned.course
    regime = _regime(s.regime or "all", planned)
    drawn = planned.examples != planned.rows.get("train")
    updates = "unknown, as the number of examples is"
    if course is not None:
        updates = (
            f"{_about(planned)}{course.updates:,}: {s.epochs} epochs of {course.per_epoch:,}, "
            f"batch {s.batch_size}" + (f" x {s.accumulation}" if s.accumulation > 1 else "")
        )
        updates += f", at most {s.max_steps}" if s.max_steps is not None else ""
        updates += f"; {_counted(course.evaluations, 'evaluation')}"
        updates += " for each seed" if len(s.seeds) > 1 else ""
    facts = [
        *_where(planned, s),
        ("examples", _examples(planned, _sizes([(regime, planned.examples)]), DRAWN, drawn)),
        *_classes(planned),
        ("updates", updates),
        ("rate", f"lr {s.lr:g}, {s.schedule}"),
        ("runs", ", ".join(f"seed {seed}" for seed in s.seeds)),
        (
            "trains",
            f"{choice.scalars:,} of {choice.total:,} scalars ({choice.percent:.4f} %)"
            f"{_roles(choice.parts)}, and {choice.head_scalars:,} of the head",
        ),
        ("writes", _writes(s.output, planned.folder)),
        *_differing(planned.differs, s),
    ]
    values = planned.to_dict()
    rows = [
        {**part, "roles": " ".join(part["roles"]), "slices": " ".join(part["slices"])}
        for part in values["parts"]
    ]
    title = f"{s.model} on {planned.task}, {s.tuned}: a plan, nothing is trained"
    return _document(values, rows, title, facts, planned, [_parts_table(choice.parts)])


def select_plan_document(planned: SelectPlan) -> Document:
    """A selection: where, on what, how many cells and runs, and a row a cell."""
    s, cells = planned.settings, planned.cells
    sizes = dict.fromkeys((_regime(one.cell.regime, planned), one.examples) for one in cells)
    drawn = any(count != planned.rows.get("train") for _, count in sizes)
    runs = [*cells[0].runs]
    grid = {"regimes": s.regimes, "lrs": s.lrs, "epochs": s.epochs, "seeds": s.seeds}
    axes = [f"{len(one)} {name}" for name, one in grid.items() if len(one) > 1]
    made = f" ({' x '.join(axes)})" if axes else ""
    updates = [cell.updates for cell in cells]
    total = sum(one for one in updates if one is not None)
    counted = "unknown" if None in updates else f"{_about(planned)}{total:,} together"
    facts = [
        *_where(planned, s),
        ("examples", _examples(planned, _sizes(sizes), DRAWN, drawn)),
        *_classes(planned),
        ("cells", f"{len(cells)}{made}, {_counted(planned.runs, 'run')}"),
        ("each cell", f"{', '.join(runs)}" + ("; then the Fisher score" if s.fisher else "")),
        ("updates", counted),
        (
            "trains",
            "; ".join(f"{run} {count:,}" for run, count in planned.scalars.items())
            + f" of {planned.total:,} scalars, and {planned.head_scalars:,} of the head",
        ),
        ("writes", _writes(planned.output, planned.folder)),
        *_differing(planned.differs, s),
    ]
    columns = [*texts("cell"), *numbers("examples", "lr", "epochs", "runs", "updates", "Fisher")]
    table = Table(columns, [_cell_row(cell) for cell in cells])
    values = planned.to_dict()
    rows = [
        {"cell": c.name, "run": run, "examples": c.examples, "lr": c.lr, "epochs": c.epochs,
         "updates": course and course.updates, "evaluations": course and course.evaluations}
        for c in cells for run, course in c.runs.items()
    ]  # fmt: skip
    title = f"selection for {s.model} on {planned.task}: a plan, nothing is trained"
    return _document(values, rows, title, facts, planned, [table])


def fisher_plan_document(planned: FisherPlan) -> Document:
    """A measurement: where, on what, how many passes, and which biases."""
    s = planned.settings
    first = planned.examples != planned.rows.get("train")
    passes = f" x {planned.passes} (heads and snapshots)" if planned.passes > 1 else ""
    many = "unknown" if planned.batches is None else f"{planned.batches:,}{passes}"
    facts = [
        *_where(planned, s),
        ("examples", _examples(planned, _sizes([("", planned.examples)]), "the first", first)),
        *_classes(planned),
        ("batches", f"{many}, {s.examples_a_pass} examples each"),
        (
            "measures",
            f"{planned.scalars:,} scalars in {sum(planned.roles.values())} bias vectors",
        ),
        *_differing(planned.differs, s),
    ]
    body = [[role, str(count)] for role, count in planned.roles.items()]
    table = Table([*texts("role"), *numbers("bias vectors")], body)
    rows = [{"role": role, "vectors": count} for role, count in planned.roles.items()]
    title = f"Fisher of {s.model} on {planned.task}: a plan, nothing is measured"
    return _document(planned.to_dict(), rows, title, facts, planned, [table])


def _document(
    values: Any,
    rows: Sequence[dict[str, Any]],
    title: str,
    facts: Facts,
    planned: Plan,
    tables: Sequence[Block],
) -> Document:
    lines = [f"{name:<10}{text}" for name, text in facts]
    notes = list(planned.notes)
    if planned.unread:
        notes.insert(0, f"{planned.unread}; what depends on the data is an estimate, or unknown")
    return Document(values, rows, [Lines([title]), Lines(lines), *tables, Lines(noted(notes))])


def _where(planned: Plan, settings: TrainSettings | SelectSettings | FisherSettings) -> Facts:
    s = settings
    more = f", {planned.processes} processes" if planned.processes > 1 else ""
    yield "device", f"{planned.device}{more}, {s.precision}, weights in {s.dtype}"
    files = [file for file in (s.train_file, s.validation_file) if file is not None]
    yield "data", ", ".join(files) or s.data_dir or "the hub"


def _examples(planned: Plan, train: str, how: str, drawn: bool = True) -> str:
    """Examples by split, and what a regime means here.

    Args:
        planned: knows how many there are.
        train: how many train, or are measured; empty: unknown.
        how: they are chosen.
        drawn: whether that leaves some out.
    """
    there = planned.rows.get("train")
    words = [f"{_about(planned)}{train}" if train else "unknown how many"]
    if there is not None and drawn:
        words[0] += f", {how} of {there:,}"
    for name, rows in planned.validation.items():
        all_rows = planned.rows[name]
        words.append(f"{name} {rows:,}" + (f" of {all_rows:,}" if rows < all_rows else ""))
    if planned.unread:
        words.append("validation unknown")
    return f"{'; '.join(words)}; rows of at most {planned.max_length} tokens"


def _sizes(sizes: Iterable[tuple[str, int | None]]) -> str:
    """``300 (low regime of rte), 900 (...)``."""
    known = [(what, f"{count:,}") for what, count in sizes if count is not None]
    return ", ".join(f"{count} ({what})" if what else count for what, count in known)


def _regime(regime: str, planned: Plan) -> str:
    return f"{regime} regime of {planned.task}" if regime in REGIMES else ""


def _classes(planned: Plan) -> Facts:
    if planned.labels:
        yield "classes", f"{len(planned.labels)}: {', '.join(planned.labels)}"


def _about(planned: Plan) -> str:
    return "about " if planned.unread else ""


def _writes(output: str | None, fate: str | None) -> str:
    if output is None:
        return "nowhere yet: give --output"
    return f"{output} ({'a new folder' if fate == 'new' else f'a former one is {fate}'})"


def _differing(names: Iterable[str], settings: Settings) -> Facts:
    """The settings that are not their default, but for what stands above."""
    found = [f"{n} {_plain(getattr(settings, n))}" for n in names if n not in _TOLD]
    if found:
        yield "settings", f"{'; '.join(found)} (the rest as by default)"


def _roles(parts: Iterable[Part]) -> str:
    roles = dict.fromkeys(site.role for part in parts for site in part.sites)
    return f": {', '.join(roles)}" if roles else ""


def _parts_table(parts: Sequence[Part]) -> Table:
    """A row for what is alike in all layers."""
    columns = [*texts("parameter", "roles", "kind"), *numbers("scalars"), *texts("part")]
    body = []
    groups: dict[Any, list[Part]] = {}
    for part in parts:
        groups.setdefault(_alike(part), []).append(part)
    for same in groups.values():
        one = same[0]
        body.append(
            [
                _pattern([part.parameter for part in same]),
                " ".join(site.role for site in one.sites),
                one.kind,
                f"{len(same)} x {one.size:,}" if len(same) > 1 else f"{one.size:,}",
                " ".join(str(site.cut) for site in one.sites if site.cut),
            ]
        )
    return Table(columns, body)


def _alike(part: Part) -> tuple[Any, ...]:
    roles = tuple((site.role, str(site.cut)) for site in part.sites)
    return _NUMBER.sub("N", part.parameter), part.kind, part.size, roles


def _pattern(names: Sequence[str]) -> str:
    """``layer.0-11.bias`` for all of them; first and last where more than a number differs."""
    if len(names) == 1:
        return names[0]
    columns = [list(column) for column in zip(*map(_NUMBER.findall, names), strict=True)]
    varying = [n for n, column in enumerate(columns) if len({*column}) > 1]
    if len(varying) != 1:
        return f"{names[0]} ... {names[-1]}"
    (at,) = varying
    matches = [*_NUMBER.finditer(names[0])]
    numbers_here = spans(map(int, columns[at])).replace(", ", ",")
    return names[0][: matches[at].start()] + numbers_here + names[0][matches[at].end() :]


def _cell_row(cell: CellPlan) -> list[str | None]:
    counts = (cell.examples, cell.updates, cell.fisher_batches)
    examples, updates, batches = (None if one is None else f"{one:,}" for one in counts)
    middle = [f"{cell.lr:g}", str(cell.epochs), str(len(cell.runs))]
    return [cell.name, examples, *middle, updates, batches]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
