"""A table whose command is killed again and again ends as one that was left alone."""

from __future__ import annotations

import csv
import importlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.command import tree
from tests.forked import Command
from tests.task_files import write_folder

QUICK = ("--device", "cpu", "--train-size", "8", "--epochs", "4", "--batch-size", "2")
RESULTS = ("all_results.json", "evaluation.json")


@dataclass(frozen=True)
class DieIn:
    """The process kills itself with SIGKILL in this call of a function; ``after`` it is done."""

    module: str
    name: str
    call: int = 1
    after: bool = False

    def __call__(self) -> None:
        owner = importlib.import_module(self.module)
        plain, calls = getattr(owner, self.name), iter(range(1, 10**6))

        def dying(*given: Any, **named: Any) -> Any:
            last = next(calls) == self.call
            done = plain(*given, **named) if self.after or not last else None
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(owner, self.name, dying)


def ended(folder: Path) -> dict[str, Any]:
    """Cells that came to their end: what they hold, and since when."""
    cells = {path.parent for name in RESULTS for path in folder.glob(f"cells/*/{name}")}
    return {
        cell.name: (tree(cell), sorted(p.stat().st_mtime_ns for p in cell.rglob("*")))
        for cell in cells
    }


def figures(folder: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((folder / "table3.csv").read_text().splitlines()))
    return [{key: one for key, one in row.items() if key != "seconds"} for row in rows]


@pytest.mark.slow
def test_a_table_killed_at_every_kind_of_cell(tiny: Path, tmp_path: Path) -> None:
    """Two runs, and six evaluations of their averages."""
    for task in ("sst2", "rte"):
        write_folder(tmp_path / "data", task)

    def start(output: str, before: Any = None) -> Command:
        how = ["--model", tiny / "base", "--data-dir", "data", *QUICK, "-o", output]
        return Command(tmp_path, ["paper", "table3", *how], output, before=before)

    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert start("whole").wait() == 0
    assert len(ended(whole)) == 8

    kept: dict[str, Any] = {}
    evaluated = "beftkit.training.trainer", "evaluate_model"
    for moment, cells in (
        (DieIn(*evaluated, 3), 0),
        (DieIn(*evaluated, 6), 1),
        (DieIn("beftkit.runs.folders", "write_results"), 1),
        (DieIn("beftkit.suite.units", "average", 2, after=True), 3),
        (DieIn("beftkit.suite.units", "write_whole", 3), 5),
    ):
        assert start("killed", moment).wait() == -signal.SIGKILL, moment
        now = ended(folder)
        assert len(now) == cells and kept.items() <= now.items(), "what was finished is as it was"
        kept = now
    assert not (folder / "table3.csv").exists()
    assert start("killed").wait() == 0
    now = ended(folder)
    assert kept.items() <= now.items() and now.keys() == ended(whole).keys()
    assert figures(folder) == figures(whole)
    adapters = [path.relative_to(whole) for path in whole.rglob("adapter_model.safetensors")]
    assert len(adapters) >= 8
    for path in adapters:
        one, other = load_file(folder / path), load_file(whole / path)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one), path
