"""What a selection found: plain values, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from beftkit.files import from_plain, headed, plain_of
from beftkit.selection.cells import Cell
from beftkit.selection.certainty import Settled
from beftkit.selection.proofs import Tau as Tau
from beftkit.selection.proofs import Verified as Verified
from beftkit.selection.proofs import Winner as Winner
from beftkit.selection.ranks import MethodMean, MethodTable
from beftkit.selection.rates import AcrossRates
from beftkit.selection.regret import Regret
from beftkit.selection.verdicts import Verdict, best_place
from beftkit.shown import Shown


@dataclass(frozen=True, repr=False)
class CellRun(Shown):
    """What a selection keeps of a run.

    Attributes:
        bias: what was trained.
        folder: within the selection's.
        scalars, percent: how many trained, without the head; their share of the model.
        best, last: metrics of the best and of the last evaluation.
        best_epoch: of the best one.
        steps: updates.
        epochs: passes over the data.
        train_seconds: time of the updates alone.
        eval_seconds: time of evaluations.
        standard_errors: of ``best``, one each at this many examples; empty where not known.
        baselines: what a constant prediction gets, and ``baseline_is`` its name.
        stayed: no evaluation was better than a constant prediction.
        head_scalars: of classifier and pooler bias; None: not known.
    """

    bias: str
    folder: str
    scalars: int
    percent: float
    best: Mapping[str, float | None]
    last: Mapping[str, float | None]
    best_epoch: float | None
    steps: int
    epochs: float
    train_seconds: float
    eval_seconds: float
    standard_errors: Mapping[str, float | None] = field(default_factory=dict, kw_only=True)
    baselines: Mapping[str, float | None] = field(default_factory=dict, kw_only=True)
    baseline_is: str = field(default="", kw_only=True)
    stayed: bool = field(default=False, kw_only=True)
    head_scalars: int | None = field(default=None, kw_only=True)

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "bias folder scalars") | {"best": self.best, "last": self.last}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CellRun:
        """A run, or a probe, which knows more."""
        return from_plain(ProbeRun if "family" in values else CellRun, values)


@dataclass(frozen=True, repr=False)
class ProbeRun(CellRun):
    """A probe's run: also the model's architecture, its scalars, and the metric of the task."""

    family: str
    total: int
    metric: str | None


@dataclass(frozen=True, repr=False)
class CellResult(Shown):
    """One cell.

    Attributes:
        cell: its place; learning rate and epochs as they were in the end.
        folder: where its runs lie, within the selection's folder.
        examples: how many it trained on.
        methods: method -> its table.
        runs: ``probe``, and with verification each candidate and control -> its run.
        settled: from which update the probe's answer stayed; None: not known.
        track: role -> (update, score), ..., at most some hundred points.
        failed: what failed -> in one line, why.
        notes: what a reader should know.
        free: method that costs nothing more -> its table; empty in files of before there were any.
    """

    cell: Cell
    folder: str
    examples: int | None = None
    methods: Mapping[str, MethodTable] = field(default_factory=dict)
    runs: Mapping[str, CellRun] = field(default_factory=dict)
    settled: Settled | None = None
    track: Mapping[str, tuple[tuple[int, float | None], ...]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    free: Mapping[str, MethodTable] = field(default_factory=dict)

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        targets = {name: table.target for name, table in self.methods.items()}
        return {"folder": self.folder, "targets": targets} | plain_of(self, "examples failed")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return headed(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CellResult:
        """What `to_dict` wrote down."""
        return from_plain(cls, values)


@dataclass(frozen=True, repr=False)
class GroupResult(Shown):
    """Cells that differ in their seed alone.

    Attributes:
        regime, train_size, lr, epochs: what they have in common; resolved values.
        seeds: those that came to their end.
        examples: how many they trained on.
        methods: method -> means over the seeds.
        gap: mean projection score of v minus that of q; None without them.
        settled: the latest of the cells'.
        verified: bias -> what it reached alone; empty without verification.
        tau: method -> how its ranks agree with the metrics.
        winner: the best candidate when trained alone.
        baseline: the metric of a constant prediction, and ``baseline_is`` its name; None and empty
            where not known.
        verdict: what the metrics say of the target; None without verification.
        free: method that costs nothing more -> means over the seeds.
        method: whose target counts: the projection ratio's, but Fisher's where a candidate was
            added and so was zero.
    """

    regime: str
    train_size: int | None
    lr: float | None
    epochs: int | None
    seeds: tuple[int, ...]
    examples: int | None
    methods: Mapping[str, MethodMean]
    gap: float | None
    settled: Settled | None
    verified: Mapping[str, Verified] = field(default_factory=dict)
    tau: Mapping[str, Tau] = field(default_factory=dict)
    winner: Winner = field(default_factory=Winner)
    baseline: float | None = None
    baseline_is: str = ""
    verdict: Verdict | None = None
    free: Mapping[str, MethodMean] = field(default_factory=dict)
    method: str = "projection"

    @property
    def leading(self) -> MethodMean:
        """What the method says whose target counts."""
        return self.methods.get(self.method) or self.projection

    @property
    def projection(self) -> MethodMean:
        """The projection ratio's answer, which every group has."""
        return self.methods["projection"]

    def target(self, method: str) -> str | None:
        """A method's choice; None where it has none, or was not asked."""
        table = self.methods.get(method) or self.free.get(method)
        return table.target if table else None

    def reached(self, bias: str) -> float | None:
        """The best metric of a bias trained alone; None where it is not known."""
        return self.verified[bias].best if bias in self.verified else None

    def tau_of(self, method: str) -> float | None:
        """Kendall's tau of a method's ranks against the best metrics; None where not known."""
        return self.tau[method].best if method in self.tau else None

    @property
    def label(self) -> str:
        """In a word or two."""
        size = f"{self.train_size} examples" if self.train_size else self.regime
        size = "all examples" if size == "all" else size
        rate = [f"lr {self.lr:g}"] if self.lr is not None else []
        plural = "" if self.epochs == 1 else "s"
        passes = [f"{self.epochs} epoch{plural}"] if self.epochs is not None else []
        return ", ".join([size, *rate, *passes])

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        targets = {name: table.target for name, table in self.methods.items()}
        return {"place": self.label, "targets": targets} | plain_of(self, "seeds examples")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; no winner without verification."""
        return asdict(self) | ({} if self.verified else {"winner": {}})


@dataclass(frozen=True, repr=False)
class Selection(Shown):
    """What `beftkit.select` found.

    Attributes:
        model: as given.
        task: name of the task or of the user's files.
        metric: the one that verification compares.
        higher_is_better: of that metric.
        candidates: roles that were chosen from.
        targets: method -> the role that most groups choose, the first where they are even.
        groups: a table for each place of the grid, seeds averaged.
        cells: everything that was found in each cell.
        settings: of the selection and of its runs.
        family: the model's architecture.
        total: its scalars.
        notes: what a reader should know.
    """

    model: str
    task: str
    metric: str | None
    higher_is_better: bool
    candidates: tuple[str, ...]
    targets: Mapping[str, str | None]
    groups: tuple[GroupResult, ...]
    cells: tuple[CellResult, ...]
    settings: Mapping[str, object]
    family: str
    total: int
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> str | None:
        """The choice by score, whatever verification says; see ``recommended``.

        It is the projection ratio's, but Fisher's where a candidate was added and so was zero.
        """
        return self.targets.get(self.method)

    @property
    def method(self) -> str:
        """Whose choice ``target`` is: ``projection`` or ``fisher``."""
        return self.groups[0].method if self.groups else "projection"

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        what = plain_of(self, "target targets model task family")
        return what | {"groups": len(self.groups), "cells": len(self.cells)}

    @cached_property
    def regret(self) -> Mapping[str, Regret]:
        """Method -> what its picks cost, over all cells; empty without verification."""
        from beftkit.selection.comparing import regrets  # which needs the classes here

        return regrets(self)

    @cached_property
    def rates(self) -> tuple[AcrossRates, ...]:
        """Each bias at its own best rate, for each place that was verified at several rates."""
        from beftkit.selection.comparing import across_rates

        return across_rates(self)

    @property
    def place(self) -> int | None:
        """Which group ``recommended`` is taken from.

        Metrics outrank scores: it is the bias that most verified groups recommend, the first where
        they are even, there where it reached the best metric; over several learning rates each bias
        counts at its own best one. Without verification it is the first group with the projection
        ratio's target. None where there is nothing to recommend.
        they are even, there where it reached the best metric. Without verification it is the first
        group with the score's target. None where there is nothing to recommend.
        """
        if self.rates:
            at = self.across
            bias = at.verdict.recommended if at else None
            if at is None or bias is None:
                return None
            here = at.regime, at.train_size, at.own[bias].lr, at.epochs
            return [(g.regime, g.train_size, g.lr, g.epochs) for g in self.groups].index(here)
        if any(group.verdict for group in self.groups):
            sign = 1.0 if self.higher_is_better else -1.0
            told = [(g.verdict.recommended if g.verdict else None, g) for g in self.groups]
            reached = [(bias, sign * (g.reached(bias) or 0.0) if bias else 0.0) for bias, g in told]
            return best_place(reached)
        where = [n for n, group in enumerate(self.groups) if group.leading.target == self.target]
        return where[0] if where and self.target else None

    @property
    def across(self) -> AcrossRates | None:
        """Of ``rates`` the one whose verdict counts: the first, if none recommends anything."""
        sign = 1.0 if self.higher_is_better else -1.0
        told = [(one.verdict.recommended, one) for one in self.rates]
        at = best_place([(b, sign * one.own[b].value if b else 0.0) for b, one in told])
        return self.rates[at or 0] if self.rates else None

    @property
    def recommended(self) -> str | None:
        """The bias to train: verification's answer, without it the score's target."""
        if self.place is None:
            return None
        if self.across is not None:
            return self.across.verdict.recommended
        group = self.groups[self.place]
        return group.verdict.recommended if group.verdict else self.target

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``beftkit select --format json`` and ``select.json``."""
        groups = tuple(group.to_dict() for group in self.groups)
        regret = {name: asdict(one) for name, one in self.regret.items()}
        rates = [{**asdict(one), "depends": one.depends} for one in self.rates]
        more = {"groups": groups, "regret": regret, "rates": rates}
        return headed({**asdict(self), **more, "recommended": self.recommended})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Selection:
        """What `to_dict` wrote down; files of before there were verdicts are given theirs."""
        from beftkit.selection.summary import with_verdicts

        return with_verdicts(from_plain(cls, values))
