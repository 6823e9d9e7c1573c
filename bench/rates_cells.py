"""The cells of bench/rates.py, the most important first, and the columns of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: those that are looked at first, then the rest
FIRST, REST = ("sst2", "rte", "cb"), ("cola", "wic", "mrpc", "stsb")
SMALL = ("mrpc", "stsb", "cb")  # few examples: more passes
FOLDERS = {"cb": "superglue", "wic": "superglue"}  # the others: glue
RATES = (4e-4, 1e-3, 4e-3, 1e-2, 2e-2)
INERT_RATES = (4e-4, 1e-2)  # enough to hold k against none
ALONE = ("v", "q", "none", "m1")
BATCH, EVERY = 16, 3
GRID, PUBLISHED = "grid", "published"
PARTS = ("grid", "published", "probes", "rate-probes", "fisher")
#: states of a probe that Fisher is measured at, the pretrained model beside them
STATES = 6
#: what tells a row apart from others
KEY = ("protocol", "task", "role", "rate", "seed")
CELLS, PROBES, FISHER = "rates.csv", "probes.csv", "fisher.csv"
COLUMNS = {
    CELLS: (
        *(*KEY, "precision", "device", "epochs", "examples", "scalars", "metric", "best"),
        *("best_epoch", "last", "baseline", "standard_error", "stayed", "evaluations", "score"),
        *("train_seconds", "seconds", "versions", "error"),
    ),
    PROBES: (
        *("protocol", "task", "rate", "seed", "precision", "device", "epochs", "steps", "method"),
        *("role", "score", "rank", "target", "inert", "width", "norm_pre", "layers"),
        *("settled_target", "settled_ranking"),
    ),
    FISHER: (
        *("protocol", "task", "rate", "seed", "precision", "device", "epochs", "epoch"),
        *("role", "score", "rank", "inert"),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One thing to train; ``rate`` None: the published one.

    ``all`` is a probe, its scores kept; ``fisher`` a probe, Fisher measured at states of it.
    """

    protocol: str
    task: str
    role: str
    rate: float | None
    seed: int

    @property
    def brief(self) -> bool:
        """It takes a minute at most on a core of its own."""
        return self.protocol == GRID and self.role != "all"

    @property
    def key(self) -> tuple[str, ...]:
        """As a row has it."""
        return key_of(vars(self))


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a row apart from others; a published rate is no part of that."""
    rate = "" if row["protocol"] == PUBLISHED else f"{float(row['rate']):g}"
    return str(row["protocol"]), str(row["task"]), str(row["role"]), rate, str(row["seed"])


def cells(tasks: Sequence[str], seeds: Sequence[int], parts: Sequence[str]) -> list[Cell]:
    """All cells, the most important first: tasks, seeds and parts are no more than asked for."""
    first, *others = (0, 1, 2)
    order = [
        *_stage("probes", FIRST, (first,)),
        *_stage("grid", FIRST, (first,)),
        *_stage("probes", REST, (first,)),
        *_stage("grid", REST, (first,)),
        *_stage("grid", FIRST, others),
        *_stage("published", FIRST, (first,)),
        *_stage("probes", FIRST, others),
        *_stage("fisher", FIRST, (first,)),
        *_stage("rate-probes", FIRST, (first,)),
        *_stage("grid", REST, others),
        *_stage("rate-probes", REST, (first,)),
        *_stage("probes", REST, others),
        *_stage("published", FIRST, others),
        *_stage("rate-probes", (*FIRST, *REST), others),
    ]
    wanted = [
        cell for part, cell in order if part in parts and cell.task in tasks and cell.seed in seeds
    ]
    return list(dict.fromkeys(wanted))


def _stage(part: str, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, Cell]]:
    """The cells of a part, seed by seed, the roles to be compared side by side."""
    for seed in seeds:
        for task in tasks:
            if part == "grid":
                places = [(role, rate) for rate in RATES for role in ALONE]
                places += [("k", rate) for rate in INERT_RATES]
                yield from ((part, Cell(GRID, task, role, rate, seed)) for role, rate in places)
            elif part == "published":
                roles = (*ALONE, "k")
                yield from ((part, Cell(PUBLISHED, task, role, None, seed)) for role in roles)
            elif part in ("probes", "fisher"):
                role = "all" if part == "probes" else "fisher"
                yield part, Cell(PUBLISHED, task, role, None, seed)
            else:
                yield from ((part, Cell(GRID, task, "all", rate, seed)) for rate in RATES)
