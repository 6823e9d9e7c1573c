"""Runs shared out among processes that never speak: by what each will cost, roughly.

A share follows from the table, its seeds and what is other than published, and from nothing that
time changes: the same part has the same runs whenever it is asked, on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from types import MappingProxyType
from typing import Any

from beftkit.registry import REGIMES, TASKS, Task
from beftkit.settings.paper import PaperSettings
from beftkit.settings.parts import BATCH
from beftkit.suite.cells import PaperCell
from beftkit.suite.published import BASE, LARGE, OPT_LARGE, OPT_SMALL, ROBERTA
from beftkit.suite.units import Unit

#: task -> examples for evaluation (both splits of MNLI), tokens of an example as an encoder reads
#: it, and of a prompt. Counted where the data were here, else of their kind: shares of work need no
#: better, and no data are read for them
_SIZES: Mapping[str, tuple[int, int, int]] = MappingProxyType({
    "cola": (1043, 13, 30), "sst2": (872, 20, 30), "mrpc": (408, 54, 70), "stsb": (1500, 22, 40),
    "qqp": (40430, 30, 45), "mnli": (19647, 39, 60), "qnli": (5463, 50, 70), "rte": (277, 67, 85),
    "wnli": (71, 37, 50), "cb": (56, 78, 95), "wic": (638, 23, 45), "boolq": (3270, 106, 160),
    "wsc": (104, 40, 75), "multirc": (4848, 128, 360), "copa": (100, 25, 20),
    "record": (10000, 128, 330), "squad": (10570, 128, 190), "drop": (9535, 128, 300),
})  # fmt: skip
#: answers that an evaluation reads a prompt with, and tokens that one writes, each a forward pass
_ANSWERS = {"copa": 2, "record": 12, "multirc": 2}
_WRITTEN = 20
#: million numbers in a model's matrices; others count as BERT-base: one model is most often in the
#: place of all, and then only ratios of runs matter
_MODELS = {BASE: 85, ROBERTA: 85, LARGE: 302, OPT_SMALL: 1208, OPT_LARGE: 6443}
#: of a forward pass: a backward one to the biases costs as much; to the weights, twice
_BIASES, _WEIGHTS = 2, 3
#: what a run takes beside its tokens (start, loading), in tokens of BERT-base
_START = 20_000


def share_of(units: Sequence[Unit], settings: PaperSettings) -> list[Unit]:
    """Those of this part, in their order."""
    at, of = settings.share
    return dealt(units, of)[at]


def dealt(units: Sequence[Unit], parts: int) -> list[list[Unit]]:
    """All parts: the dearest unit first, each to the part that has least so far.

    No part then costs more than 4/3 of what the best sharing gives (Graham, 1969).
    """
    costs = [cost_of(unit.cell) for unit in units]
    loads, whose = [0.0] * parts, [0] * len(units)
    for at in sorted(range(len(units)), key=lambda at: (-costs[at], at)):
        whose[at] = min(range(parts), key=lambda part: (loads[part], part))
        loads[whose[at]] += costs[at]
    return [[unit for unit, one in zip(units, whose, strict=True) if one == p]
            for p in range(parts)]  # fmt: skip


def cost_of(cell: PaperCell) -> float:
    """What a run of a cell costs, in tokens that a BERT-base reads."""
    task = TASKS[cell.task]
    given = {name: one for name, one in cell.settings.items() if one not in (None, ())}
    prompted = cell.model in (OPT_SMALL, OPT_LARGE) or not task.fields
    found, encoded, asked = _SIZES[cell.task]
    if prompted and task.prompt:
        found = min(found, task.prompt.examples)
    found = min(found, given.get("validation_size", found))
    tokens: int = asked if prompted else encoded
    tokens = min(tokens * (1 + given.get("shots", 0)), given.get("max_length", 2048))
    evaluation = float(found * tokens)
    if prompted and task.prompt and task.prompt.kind == "generation":
        evaluation += found * _WRITTEN
    elif prompted:
        evaluation *= _ANSWERS.get(cell.task, 1)
    size: float = _MODELS.get(cell.model, _MODELS[BASE]) / _MODELS[BASE]
    if cell.what in ("evaluate", "average"):
        return _START + size * evaluation
    examples = _trained(task, given, prompted)
    evaluations = epochs = _epochs(cell, task, given, prompted)
    if steps := given.get("eval_steps"):
        usual = task.prompt.batch_size if prompted and task.prompt else BATCH
        batch = given.get("batch_size") or usual
        evaluations = max(ceil(ceil(examples / batch) * epochs / steps), 1)
    passes = _WEIGHTS if given.get("bias") in ("full", "rand") else _BIASES
    run: float = _START + size * (examples * epochs * tokens * passes + evaluations * evaluation)
    if cell.what == "train":
        return run
    # A verified selection: the probe, each candidate alone, none; and a pass for the Fisher score.
    alone = len(given.get("candidates", ("q", "k", "v"))) + 1
    return run * (1 + alone) + size * examples * tokens * _BIASES


def _trained(task: Task, given: Mapping[str, Any], prompted: bool) -> int:
    if size := given.get("train_size"):
        return int(size)
    sizes = task.sizes_as(task.prompt.kind) if prompted and task.prompt else task.sizes
    regime = (given.get("regimes") or (given.get("regime"),))[0]
    return sizes[regime if regime in REGIMES and regime in sizes else "low"]


def _epochs(cell: PaperCell, task: Task, given: Mapping[str, Any], prompted: bool) -> int:
    epochs = given.get("epochs")
    if epochs:
        return int(epochs[0] if isinstance(epochs, tuple) else epochs)
    if prompted and task.prompt:
        return task.prompt.epochs
    return task.settings(large=cell.model in (LARGE, ROBERTA))[1]
