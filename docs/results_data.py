"""The runs behind docs/results.md, as bench/rates.py wrote them, and means with intervals."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bench.rates_cells import FIRST, PARTS, PUBLISHED, RATES, REST, cells, key_of

TASKS = (*FIRST, *REST)
TITLES = {"sst2": "SST-2", "rte": "RTE", "cb": "CB", "cola": "CoLA", "wic": "WiC", "mrpc": "MRPC"}
TITLES |= {"stsb": "STS-B"}
SEEDS = (0, 1, 2)
METRICS = {"macro_f1": "macro F1", "matthews": "Matthews", "spearman": "Spearman", "f1": "F1"}
METHODS = {
    "projection": "projection",
    "magnitude": "magnitude",
    "fisher": "Fisher",
    "adam": "Adam's second moment",
    "norm": "largest ‖pre‖",
    "always-v": "always v",
    "always-q": "always q",
}
#: b_k is inert in BERT, so that it is nobody's target; m1 is no candidate of the paper's
CANDIDATES = {"q, v": ("q", "v"), "q, v, m1": ("q", "v", "m1")}

#: BERT-base, low regime, v, q, k: the paper's tables 1 and 4
PAPER = {
    "sst2": (85.8, 80.0, 77.2), "rte": (59.5, 46.9, 46.5), "cola": (43.2, 30.8, 6.5),
    "mrpc": (84.0, 81.1, 79.2), "stsb": (75.6, 67.8, 65.4), "cb": (59.0, 47.2, 43.3),
    "wic": (69.6, 66.1, 62.8),
}  # fmt: skip
#: a rate of the grid, ``own``: each role's best one; None: the published protocol
At = float | str | None
EVERYWHERE: tuple[At, ...] = (*RATES, "own", None)
NOT_YET = "Not measured yet.\n"


@dataclass(frozen=True)
class Place:
    """Where a run stands: ``rate`` of the grid, None: the published protocol."""

    task: str
    role: str
    rate: float | None
    seed: int


class Runs:
    """All rows of rates.csv, the last one of a place; and what probes say."""

    def __init__(self, folder: Path) -> None:
        self.rows: dict[Place, dict[str, str]] = {}
        self.failed: list[dict[str, str]] = []
        self.keys: set[tuple[str, ...]] = set()
        #: where a rate was too high for a run to come to its end
        self.diverged: set[Place] = set()
        for row in _rows(folder / "rates.csv"):
            rate = None if row["protocol"] == PUBLISHED else float(row["rate"])
            place = Place(row["task"], row["role"], rate, int(row["seed"]))
            if row["error"]:
                self.failed.append(row)
                if "not finite" not in row["error"]:
                    continue
                self.diverged.add(place)
            else:
                self.rows[place] = row
            self.keys.add(key_of(row))
        again = {key_of(row) for row in self.rows.values()}
        self.failed = [row for row in self.failed if key_of(row) not in again]
        #: task -> (epoch, role) -> score, rank: Fisher at states of a probe, seed 0
        self.states: dict[str, dict[tuple[int, str], dict[str, str]]] = {}
        for row in _rows(folder / "fisher.csv"):
            place = int(row["epoch"]), row["role"]
            self.states.setdefault(row["task"], {})[place] = row
        #: (task, rate or None, seed) -> method -> role -> score, rank
        self.probes: dict[tuple[str, float | None, int], dict[str, dict[str, dict[str, str]]]] = {}
        for row in _rows(folder / "probes.csv"):
            rate = None if row["protocol"] == PUBLISHED else float(row["rate"])
            probe = self.probes.setdefault((row["task"], rate, int(row["seed"])), {})
            probe.setdefault(row["method"], {})[row["role"]] = row

    def best(self, task: str, role: str, rate: float | None, seed: int) -> float | None:
        """The best evaluation's metric."""
        row = self.rows.get(Place(task, role, rate, seed))
        return float(row["best"]) if row and row["best"] else None

    def seeds(self, task: str, role: str, rate: float | None) -> list[float]:
        """Of all seeds that are there."""
        found = [self.best(task, role, rate, seed) for seed in SEEDS]
        return [one for one in found if one is not None]

    def own(self, task: str, role: str, seed: int) -> tuple[float, float] | None:
        """The best metric over the grid's rates, and its rate; None: not all rates are there."""
        found = [(self.best(task, role, rate, seed), -rate) for rate in RATES]
        known = [(value, rate) for value, rate in found if value is not None]
        diverged = [rate for rate in RATES if Place(task, role, rate, seed) in self.diverged]
        if not known or len(known) + len(diverged) < len(RATES):
            return None
        value, rate = max(known)
        return value, -rate

    def judged(
        self, task: str, roles: Sequence[str], at: float | str | None, seed: int
    ) -> dict[str, float] | None:
        """Metric of each role at a common rate, or ``own``: each at its own; None: one lacks."""
        found: dict[str, float] = {}
        for role in roles:
            one = self.own(task, role, seed) if at == "own" else None
            value = one[0] if one else None if at == "own" else self.best(task, role, at, seed)  # type: ignore[arg-type]
            if value is None:
                return None
            found[role] = value
        return found

    def pick(
        self, task: str, rate: float | None, seed: int, method: str, roles: Sequence[str]
    ) -> str | None:
        """A method's choice among some roles by the probe of a place."""
        if method.startswith("always-"):
            return method.removeprefix("always-")
        table = self.probes.get((task, rate, seed), {}).get(method, {})
        known = {role: float(table[role]["score"]) for role in roles if role in table}
        return max(known, key=lambda role: known[role]) if len(known) == len(roles) else None


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- words and numbers


def prose(text: str) -> str:
    """Sentences as written here over several lines, in one paragraph."""
    return " ".join(text.split())


def table(heading: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Markdown, numbers to the right."""
    rule = ["---"] + ["--:"] * (len(heading) - 1)
    return [f"| {' | '.join(row)} |" for row in (heading, rule, *body)] + [""]


def shown(values: Sequence[float]) -> str:
    """Mean, deviation of several, and how many where that is not three."""
    if not values:
        return "-"
    text = f"{fmean(values):.3f}"
    text += f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return text if len(values) == 3 else f"{text} ({len(values)})"


@dataclass(frozen=True)
class Mean:
    """A mean with Student's 95 % interval."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.value:+.4f} (one cell)"
        return f"{self.value:+.4f} ({self.interval}, {self.count} cells)"

    @property
    def interval(self) -> str:
        """The interval alone."""
        return f"{self.low:+.4f} to {self.high:+.4f}" if self.count > 1 else "-"

    @property
    def unsigned(self) -> str:
        """For what is never below zero."""
        return f"{self.value:.4f}" + (
            f" ({self.low:.4f} to {self.high:.4f})" if self.count > 1 else ""
        )


def mean(values: Sequence[float]) -> Mean | None:
    """Over cells."""
    from scipy.special import stdtrit

    if not values:
        return None
    value, n = fmean(values), len(values)
    half = float(stdtrit(n - 1, 0.975)) * stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return Mean(value, value - half, value + half, n)


def over_tasks(found: Mapping[str, Sequence[float]]) -> Mean | None:
    """Over tasks, each with the mean of its seeds: seeds of one task are no tasks of their own."""
    return mean([fmean(some) for some in found.values() if some])


@dataclass(frozen=True)
class Difference:
    """Of two roles in a task: mean over seeds, its standard error, and each seed's."""

    value: float
    error: float
    seeds: tuple[float, ...]

    @property
    def beyond(self) -> bool:
        """Told apart from zero."""
        return abs(self.value) > 2 * self.error

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.error:.3f}" + ("*" if self.beyond else "")


def difference(runs: Runs, task: str, one: str, other: str, at: At) -> Difference | None:
    """One role's metric minus another's over the seeds that both have.

    The standard error is that of the development examples, which the seeds share, so that it does
    not shrink with them (and the roles share, so that it is rather too large), and the seeds' own.
    """
    found, errors = [], []
    for seed in SEEDS:
        known = runs.judged(task, (one, other), at, seed)
        if known is None:
            continue
        found.append(known[one] - known[other])
        rows = []
        for role in (one, other):
            own = runs.own(task, role, seed)
            rate = own[1] if at == "own" and own else at
            rows.append(runs.rows[Place(task, role, rate, seed)])  # type: ignore[arg-type]
        errors.append(math.hypot(*(float(row["standard_error"] or "inf") for row in rows)))
    if not found:
        return None
    spread = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    return Difference(fmean(found), math.hypot(fmean(errors), spread), tuple(found))


def rate_name(at: float | str | None) -> str:
    """Of a common rate, of each one's own, of the published protocol."""
    return "published" if at is None else "own" if at == "own" else f"{at:g}"


def every(part: str) -> list[Any]:
    """The cells of a part."""
    return cells(TASKS, SEEDS, [part])


def lacking(runs: Runs) -> dict[str, list[Any]]:
    """Part -> the cells of it that are not there."""
    return {part: [one for one in every(part) if one.key not in runs.keys] for part in PARTS}


def wanted(part: str) -> int:
    """How many cells a part has."""
    return len(every(part))
