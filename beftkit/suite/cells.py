"""The cells of the paper's tables: what each trains, and what the paper prints for it.

A cell is a run of `beftkit.train`, an evaluation without training, an average of runs with its
evaluation, or a verified selection; its settings are what differs from the defaults, which are the
published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from beftkit.errors import UsageError, option
from beftkit.registry import REGIMES, TASKS
from beftkit.settings.paper import PaperSettings
from beftkit.suite import published as print_
from beftkit.suite.published import BASE, LARGE, OPT_LARGE, OPT_SMALL, ROBERTA

What = Literal["train", "evaluate", "average", "select"]


@dataclass(frozen=True)
class PaperCell:
    """One cell.

    Attributes:
        name: also of its folder.
        what: it is a run, an evaluation or a selection.
        model, task: as the commands take them.
        settings: of the run, the evaluation or the selection, beside these.
        rows: what is shown of it: label, metric, and the paper's figure in percent, if it has one;
            of a selection the label is the bias trained alone.
        seconds: the paper's running time, if it has one.
        summands: of an average: the cells whose biases are added up, and their factors; the first
            one's head is kept.
    """

    name: str
    what: What
    model: str
    task: str
    settings: Mapping[str, Any]
    rows: tuple[tuple[str, str, float | None], ...]
    seconds: float | None = None
    summands: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table or figure: its title, its cells, seeds, and what is to be said of it."""

    title: str
    cells: tuple[PaperCell, ...]
    seeds: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = field(default=())


BEST = "ours is the best evaluation, beside it the last one: the paper does not say which it prints"
WIC = "WiC: the published number of training examples is not stated; 1000"


def table_of(settings: PaperSettings) -> PaperTable:
    """The table that is asked for, its cells as the settings have them.

    Raises:
        UsageError: no table, or patterns that match no cell.
    """
    if settings.table is None:
        raise UsageError(f"no table was given; expected one of {', '.join(TABLES)}")
    whole = TABLES[settings.table]()
    found: dict[str, PaperCell] = {}
    for one in whole.cells:  # one model in the place of several: the first one's figures stay
        cell = _changed(one, settings)
        found.setdefault(cell.name, cell)
    wanted = settings.cells
    kept = [c for n, c in found.items() if not wanted or any(fnmatchcase(n, w) for w in wanted)]
    if not kept:
        some = ", ".join(list(found)[:4])
        raise UsageError(f"{option('cells', ','.join(wanted))}: match none, such as {some}")
    return PaperTable(whole.title, tuple(kept), settings.seeds or whole.seeds, whole.notes)


def _changed(cell: PaperCell, settings: PaperSettings) -> PaperCell:
    """The cell with what is to be other than published, and the place of its data."""
    given: dict[str, Any] = {**cell.settings, **settings.changes}
    model = given.pop("model", cell.model)
    given |= {"data_dir": _folder(settings.data_dir, cell.task), "device": settings.device}
    if "train_size" in given:
        given |= {"regimes": ()} if cell.what == "select" else {"regime": None}
    if cell.what in ("evaluate", "average"):
        for name in ("train_size", "epochs", "eval_steps"):
            given.pop(name, None)
    if cell.what == "select" and isinstance(given.get("epochs"), int):
        given["epochs"] = (given["epochs"],)
    name = cell.name if settings.model is None else cell.name.removeprefix(f"{_short(cell.model)}-")
    rest = cell.what, model, cell.task, given, cell.rows, cell.seconds, cell.summands
    return PaperCell(name, *rest)


def _folder(data_dir: str | None, task: str) -> str | None:
    """Of a folder that holds both benchmarks the one that has the task."""
    from pathlib import Path

    if data_dir is None:
        return None
    parts = [Path(data_dir, name) for name in ("glue", "superglue", "")]
    names = {layout.folder for layout in TASKS[task].layouts}
    held = [one for one in parts if any((one / name).is_dir() for name in names)]
    return str(held[0] if held else Path(data_dir))


def _short(model: str) -> str:
    return model.partition("/")[2] or model


def _train(name: str, model: str, task: str, rows: Any, seconds: Any = None, **more: Any) -> Any:
    return PaperCell(name, "train", model, task, more, tuple(rows), seconds)


def _select(name: str, model: str, task: str, rows: Any, **more: Any) -> PaperCell:
    return PaperCell(name, "select", model, task, {"verify": True, **more}, tuple(rows))


def _table1() -> PaperTable:
    return PaperTable(
        "Table 1: each bias alone, BERT-base on GLUE", tuple(_glue_cells()), notes=(BEST,)
    )


def _glue_cells() -> Iterator[PaperCell]:
    for regime in REGIMES:
        figures = print_.TABLE1[regime]
        for task in dict.fromkeys(name.partition("-")[0] for name in print_.GLUE):
            for bias in ("v", "q", "k"):
                rows = [
                    (f"{name} {regime}, b_{bias}", metric, figures[bias][at])
                    for at, (name, metric) in enumerate(print_.GLUE.items())
                    if name.partition("-")[0] == task
                ]
                yield _train(f"{task}-{regime}-{bias}", BASE, task, rows, bias=bias, regime=regime)


def _table2() -> PaperTable:
    cells = []
    for bias, (accuracy, _, seconds, _) in print_.TABLE2.items():
        rows = [(f"rte low, {bias}", "accuracy", accuracy)]
        name = f"rte-low-{bias}"
        cells.append(_train(name, BASE, "rte", rows, seconds, bias=bias, regime="low"))
    notes = BEST, "the paper's seconds are of one T4, ours of the device that these runs had"
    return PaperTable("Table 2: RTE low, accuracy and running time", tuple(cells), (0, 1, 2), notes)


def _table3() -> PaperTable:
    tasks, cells = ("sst2", "rte"), []
    for at, task in enumerate(tasks):
        rows = [(f"{task}, its own b_v", "accuracy", print_.TABLE3["own"][at])]
        cells.append(_train(f"{task}-low-v", BASE, task, rows, bias="v", regime="low"))
    factors = {"mean": (0.5, 0.5), "other": (0.0, 1.0), "none": (0.0, 0.0)}
    for at, task in enumerate(tasks):
        runs = f"{task}-low-v", f"{tasks[1 - at]}-low-v"
        for row, weights in factors.items():
            what = {"mean": "mean of both b_v", "other": "the other's b_v", "none": "no b_v"}[row]
            rows = [(f"{task}, {what}", "accuracy", print_.TABLE3[row][at])]
            summands = tuple(zip(runs, weights, strict=True))
            name = f"{task}-{row}"
            cells.append(PaperCell(name, "average", BASE, task, {}, tuple(rows), None, summands))
    head = "each has its task's own trained head; the paper's row without fine-tuning has none"
    return PaperTable("Table 3: b_v of SST-2 and RTE averaged", tuple(cells), notes=(BEST, head))


def _table4() -> PaperTable:
    cells = []
    for model, figures in print_.TABLE4.items():
        for at, (task, metric) in enumerate(print_.TABLE4_TASKS.items()):
            for bias, row in figures.items():
                rows = [(f"{_short(model)} {task} low, b_{bias}", metric, row[at])]
                name = f"{_short(model)}-{task}-low-{bias}"
                cells.append(_train(name, model, task, rows, bias=bias, regime="low"))
    return PaperTable("Table 4: other models and tasks", tuple(cells), notes=(BEST, WIC))


def _figure(title: str, tasks: Sequence[str], regimes: Sequence[str]) -> PaperTable:
    cells, places = [], list(print_.GLUE.items())
    for task in tasks:
        at, metric = next((n, metric) for n, (name, metric) in enumerate(places) if name == task)
        for regime in regimes:
            known = print_.TABLE1.get(regime, {})
            rows = [(b, metric, known[b][at] if b in known else None) for b in ("v", "q", "k")]
            cells.append(_select(f"{task}-{regime}", BASE, task, rows, regimes=(regime,)))
    return PaperTable(title, tuple(cells), notes=(BEST,))


def _figure1() -> PaperTable:
    return _figure("Figure 1: ranking and accuracy, SST-2 low", ("sst2",), ("low",))


def _figure4() -> PaperTable:
    tasks, regimes = ("sst2", "cola", "stsb"), (*REGIMES, "all")
    return _figure("Figure 4: ranking and metric over regimes", tasks, regimes)


def _lr_epochs() -> PaperTable:
    cells = []
    for task, metric in (("cb", "macro_f1"), ("wic", "accuracy")):
        rows = [(bias, metric, None) for bias in ("v", "q", "all")]
        for lr in (1e-3, 1e-4):
            what: dict[str, Any] = {"regimes": ("low",), "lrs": (lr,)}
            cells.append(_select(f"{task}-lr{lr:g}", BASE, task, rows, **what))
    for model in (BASE, ROBERTA, LARGE):
        rows = [(bias, "macro_f1", None) for bias in ("v", "q", "all")]
        for epochs in (15, 30, 60):
            name, what = f"{_short(model)}-cb-e{epochs}", {"regimes": ("low",), "epochs": (epochs,)}
            cells.append(_select(name, model, "cb", rows, **what))
    said = (
        "section 3.4 prints no figures for these: v and q, and v against all biases, is its claim"
    )
    epochs_ = "the numbers of epochs are ours, up to the published 60"
    return PaperTable("Section 3.4: rates and epochs", tuple(cells), notes=(BEST, said, epochs_))


def _table5() -> PaperTable:
    cells: list[PaperCell] = []
    for model in (OPT_SMALL, OPT_LARGE):
        for row, figures in print_.TABLE5[model].items():
            for at, (task, metric) in enumerate(print_.TABLE5_TASKS.items()):
                name = f"{_short(model)}-{task}-{row}"
                shown = [(f"{_short(model)} {task}, {row}", metric, figures[at])]
                how: dict[str, Any] = {"precision": "fp16"}
                if model == OPT_LARGE and task == "drop":
                    how["max_length"] = 1536
                if row in ("shots", "zero-shot"):
                    how |= {"shots": 32} if row == "shots" else {}
                    cells.append(PaperCell(name, "evaluate", model, task, how, tuple(shown)))
                    continue
                how |= {"peft": "lora"} if row == "lora" else {"bias": row}
                cells.append(_train(name, model, task, shown, **how))
    notes = BEST, "prefix tuning, a row of the paper's, is not run here"
    return PaperTable("Table 5: OPT, prompts", tuple(cells), notes=notes)


TABLES: dict[str, Callable[[], PaperTable]] = {
    "figure1": _figure1,
    "table1": _table1,
    "table2": _table2,
    "table3": _table3,
    "figure4": _figure4,
    "table4": _table4,
    "lr-epochs": _lr_epochs,
    "table5": _table5,
}
