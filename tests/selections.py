"""Made-up selections as `beftkit select` writes them: all it takes is a second."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from beftkit.selection.cells import Cell
from beftkit.selection.certainty import Settled
from beftkit.selection.ranks import MethodTable, RoleRank
from beftkit.selection.results import CellResult, CellRun, Selection
from beftkit.selection.summary import overall_targets, summarise
from beftkit.settings.select import SelectSettings

ROLES = ("q", "k", "v", "m1", "m2", "m3", "ln1", "ln2")
LAYERS = 4
#: how far each role moves, by method
SIZES: Mapping[str, Sequence[float]] = {
    "projection": (0.05, 1e-7, 0.5, 0.2, 0.15, 0.25, 0.1, 0.3),
    "magnitude": (12.0, 1e-4, 9.0, 8.0, 46.0, 9.2, 9.5, 8.5),
    "fisher": (2e-8, 1e-21, 1e-6, 1.5e-6, 1e-7, 1.8e-6, 1.7e-6, 4e-6),
}


def selection(
    model: str = "models/tiny-bert", task: str = "sst2", *, regimes: Sequence[str] = ("low",),
    lrs: Sequence[float] = (1e-3,), epochs: Sequence[int] = (8,), seeds: Sequence[int] = (0,),
    verify: bool = True, metric: str = "accuracy", swap: bool = False, fisher: bool = True,
) -> Selection:  # fmt: skip
    """What a selection over such a grid might have found; ``swap``: q moves as v does."""
    settings = SelectSettings(
        regimes=tuple(regimes), lrs=tuple(lrs), epochs=tuple(epochs), seeds=tuple(seeds),
        verify=verify, fisher=fisher,
    )  # fmt: skip
    rng = np.random.default_rng(len(task))
    cells = [
        _cell(place, rng, verify=verify, metric=metric, swap=swap, fisher=fisher)
        for place in product(regimes, lrs, epochs, seeds)
    ]
    groups = summarise(cells, settings, metric, True)
    return Selection(
        model=model, task=task, metric=metric, higher_is_better=True,
        candidates=settings.candidates, targets=overall_targets(groups), groups=groups,
        cells=tuple(cells),
        settings={**settings.document(), "model": model, "task": task,
                  "precision": "bf16", "metric": [metric]},
        family="bert", total=100_000, notes=("a note & more",),
    )  # fmt: skip


def write(folder: Path, found: Selection) -> Path:
    """Write ``select.json`` and ``select.yaml``; the folder."""
    folder.mkdir(parents=True)
    (folder / "select.json").write_text(json.dumps(found.to_dict()), encoding="utf-8")
    text = yaml.safe_dump(dict(found.settings), sort_keys=False)
    (folder / "select.yaml").write_text(text, encoding="utf-8")
    return folder


def _cell(
    place: tuple[Any, ...], rng: Any, *, verify: bool, metric: str, swap: bool, fisher: bool
) -> CellResult:
    regime, lr, epochs, seed = place
    size = {"low": 1.0, "medium": 1.2, "high": 1.3, "all": 1.4}[regime] * (lr / 1e-3) ** 0.5
    size *= epochs / 8
    folder = f"cells/{regime}-lr{lr:g}-e{epochs}-seed{seed}"
    methods = {
        name: _method(values, size if name != "fisher" else 1.0, rng, swap)
        for name, values in SIZES.items()
        if fisher or name != "fisher"
    }
    scores = {role: one.score or 0.0 for role, one in methods["projection"].roles.items()}
    track = {
        role: tuple((step, score * (step / 40) ** 1.5) for step in range(1, 41))
        for role, score in scores.items()
    }
    reached = {role: round(0.5 + 0.35 * min(1, size * scores[role]), 4) for role in ("q", "k", "v")}
    runs = {"probe": _run("all", 1500, 0.8, metric, f"{folder}/probe")}
    if verify:
        alone = {"none": 0.5, **reached}
        runs |= {
            bias: _run(bias, 0 if bias == "none" else 100, value, metric, f"{folder}/{bias}")
            for bias, value in alone.items()
        }
        runs["all"] = runs["probe"]
    return CellResult(
        Cell(regime, None, lr, epochs, seed), folder, examples=1000, methods=methods, runs=runs,
        settled=Settled(target=3, ranking=12, steps=40), track=track,
    )  # fmt: skip


def _method(sizes: Sequence[float], size: float, rng: Any, swap: bool) -> MethodTable:
    by_role = dict(zip(ROLES, sizes, strict=True))
    if swap:
        by_role["q"], by_role["v"] = by_role["v"], by_role["q"]
    layers = {
        role: (one * size * rng.uniform(0.6, 1.4, LAYERS)).tolist() for role, one in by_role.items()
    }
    scores = {role: float(np.mean(values)) for role, values in layers.items()}
    order = sorted(scores, key=lambda role: (role == "k", -scores[role]))
    roles = {
        role: RoleRank(scores[role], rank, "yes" if role == "k" else "no", 32, 1.0,
                       layers=tuple(layers[role]))
        for rank, role in enumerate(order, 1)
    }  # fmt: skip
    return MethodTable(next(role for role in order if role in ("q", "v")), roles)


def _run(bias: str, scalars: int, value: float, metric: str, folder: str) -> CellRun:
    return CellRun(
        bias, folder, scalars, scalars / 1000, best={metric: value}, last={metric: value - 0.01},
        best_epoch=2, steps=40, epochs=8, train_seconds=12.3, eval_seconds=1.0,
    )  # fmt: skip
