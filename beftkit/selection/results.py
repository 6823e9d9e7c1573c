"""What a selection found: plain values, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

METHODS = ("projection", "magnitude", "fisher")


@dataclass(frozen=True)
class CellResult:
    """One cell.

    Attributes:
        cell: regime, train_size, lr, epochs, seed.
        folder: where its runs lie, within the selection's folder.
        examples: how many it trained on.
        methods: method -> ``target`` and ``roles``: role -> score, rank, inert, width, ``layers``
            (scores by site) and ``norm_pre``.
        runs: ``probe``, and with verification each candidate and control -> metrics, times, counts.
        settled: from which update the probe's answer stayed; None: not known.
        track: role -> [[update, score], ...], at most some hundred points.
        failed: what failed -> in one line, why.
        notes: what a reader should know.
    """

    cell: Mapping[str, Any]
    folder: str
    examples: int | None = None
    methods: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, Any] = field(default_factory=dict)
    settled: Mapping[str, Any] | None = None
    track: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CellResult:
        """What `to_dict` wrote down."""
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


@dataclass(frozen=True)
class GroupResult:
    """Cells that differ in their seed alone.

    Attributes:
        regime, train_size, lr, epochs: what they have in common; resolved values.
        seeds: those that came to their end.
        examples: how many they trained on.
        methods: method -> ``target``, ``margin`` (see `Margin`) and ``roles``: role -> mean score,
            deviation over seeds, rank, inert, width.
        gap: mean projection score of v minus that of q; None without them.
        settled: the latest of the cells'.
        verified: bias -> means over seeds: ``best``, ``last``, their deviations, percent,
            train_seconds; empty without verification.
        tau: method -> ``best`` and ``last``: Kendall's tau of ranks against metrics.
        winner: ``best`` and ``last``: the candidate with the best metric; None where several tie.
    """

    regime: str
    train_size: int | None
    lr: float | None
    epochs: int | None
    seeds: Sequence[int]
    examples: int | None
    methods: Mapping[str, Any]
    gap: float | None
    settled: Mapping[str, Any] | None
    verified: Mapping[str, Any] = field(default_factory=dict)
    tau: Mapping[str, Any] = field(default_factory=dict)
    winner: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """In a word or two."""
        size = f"{self.train_size} examples" if self.train_size else self.regime
        size = "all examples" if size == "all" else size
        rate = [f"lr {self.lr:g}"] if self.lr is not None else []
        plural = "" if self.epochs == 1 else "s"
        passes = [f"{self.epochs} epoch{plural}"] if self.epochs is not None else []
        return ", ".join([size, *rate, *passes])


@dataclass(frozen=True)
class Selection:
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
    settings: Mapping[str, Any]
    family: str
    total: int
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> str | None:
        """The bias to train: the projection ratio's choice."""
        return self.targets.get("projection")

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``beftkit select --format json`` and ``select.json``."""
        from beftkit import __version__

        return {"schema_version": 1, "beftkit_version": __version__, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Selection:
        """What `to_dict` wrote down."""
        known = {one.name for one in fields(cls)}
        plain = {key: value for key, value in values.items() if key in known}
        groups = {one.name for one in fields(GroupResult)}
        return cls(**{
            **plain,
            "candidates": tuple(values["candidates"]), "notes": tuple(values["notes"]),
            "groups": tuple(
                GroupResult(**{k: v for k, v in one.items() if k in groups})
                for one in values["groups"]
            ),
            "cells": tuple(map(CellResult.from_dict, values["cells"])),
        })  # fmt: skip
