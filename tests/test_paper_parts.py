"""A table's runs shared out among processes: all of them once, always alike, and evenly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beftkit.registry import TASKS
from beftkit.settings.paper import PaperSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.train import TrainSettings
from beftkit.suite import plan_paper
from beftkit.suite.cells import TABLES, PaperCell, table_of
from beftkit.suite.journey import units_of
from beftkit.suite.sharing import cost_of, dealt, share_of
from beftkit.suite.units import Unit
from beftkit.training.course import course_of


def settings(table: str, **given: Any) -> PaperSettings:
    return resolve(PaperSettings, None, {"table": table, **given})


def units(table: str, **given: Any) -> list[Unit]:
    return units_of(table_of(settings(table, **given)))


def cost(some: list[Unit]) -> float:
    return sum(cost_of(unit.cell) for unit in some)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("parts", [1, 3, 4, 500])
def test_the_parts_of_a_table_are_all_of_it_once(table: str, parts: int) -> None:
    whole = units(table, seeds=(0, 1))
    shares = dealt(whole, parts)
    names = [unit.name for share in shares for unit in share]
    assert len(names) == len(whole) and {*names} == {unit.name for unit in whole}
    order = {unit.name: at for at, unit in enumerate(whole)}
    for share in shares:  # in the table's order: what is averaged comes after what it is made of
        places = [order[unit.name] for unit in share]
        assert places == sorted(places)
    for n in {*range(1, min(parts, 4) + 1), parts}:
        assert share_of(whole, settings(table, seeds=(0, 1), part=f"{n}/{parts}")) == shares[n - 1]


def test_a_plan_and_what_is_there_change_no_share(tmp_path: Path) -> None:
    """What the plan shows of a part is the same before and after others have finished theirs."""
    given = settings("table4", seeds=(0, 1), part="2/3")
    plan = plan_paper(given, tmp_path)
    runs = [(cell.name, seed) for cell in plan.cells for seed in cell.todo]
    mine = {unit.name for unit in share_of(units("table4", seeds=(0, 1)), given)}
    assert {f"{name}-seed{seed}" for name, seed in runs} == mine and len(mine) < 72
    for unit in units("table4", seeds=(0, 1)):
        (unit.folder(tmp_path)).mkdir(parents=True)
    again = plan_paper(given, tmp_path)
    assert [(cell.name, seed) for cell in again.cells for seed in cell.todo] == runs


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_are_even(table: str, parts: int) -> None:
    """Never less than every n-th run would be, and even where there are many."""
    whole = units(table, seeds=(0, 1, 2))
    loads = [cost(share) for share in dealt(whole, parts)]
    assert max(loads) <= max(cost(whole[at::parts]) for at in range(parts)) * 1.0001
    if len(whole) > 20 * parts:
        assert max(loads) < 1.02 * cost(whole) / parts


def test_a_cost_follows_from_the_course_of_a_run() -> None:
    """Updates and evaluations by what a run itself would make of the same settings."""
    for cell in table_of(settings("table1", eval_steps=20)).cells[:18]:
        task = TASKS[cell.task]
        examples = task.sizes[cell.settings["regime"]]
        filled = TrainSettings(
            model="m", task=cell.task, epochs=task.epochs, batch_size=16, eval_steps=20
        )
        course = course_of(filled, examples)
        more = _with(cell, eval_steps=None)
        least = cost_of(_with(cell, eval_steps=10**9))  # one evaluation
        each = (cost_of(more) - least) / (task.epochs - 1)
        assert cost_of(cell) == pytest.approx(least + (course.evaluations - 1) * each, rel=1e-9)
        twice = cost_of(_with(cell, epochs=2 * task.epochs, eval_steps=10**9))
        assert twice - least == pytest.approx(
            (cost_of(_with(cell, epochs=3 * task.epochs, eval_steps=10**9)) - twice), rel=1e-9
        )


def _with(cell: PaperCell, **more: Any) -> PaperCell:
    return replace(cell, settings={**cell.settings, **more})


def test_costs_are_in_the_order_of_what_is_known() -> None:
    """By the paper's own seconds (table 2), and by what obviously takes longer."""
    two = {cell.name: cell for cell in table_of(settings("table2")).cells}
    v, full = (cost_of(two[f"rte-low-{name}"]) for name in ("v", "full"))
    assert 1.2 < full / v < 206.1 / 132.9 + 0.2
    one = {cell.name: cost_of(cell) for cell in table_of(settings("table1")).cells}
    assert one["sst2-low-v"] < one["sst2-medium-v"] < one["sst2-high-v"]
    assert one["qqp-low-v"] > 10 * one["rte-low-v"], "40,430 pairs are evaluated after each epoch"
    few = table_of(settings("table1", train_size=8, validation_size=9)).cells
    small = {cell.name: cost_of(cell) for cell in few}
    assert max(small.values()) < min(one.values())
    four = {cell.name: cost_of(cell) for cell in table_of(settings("table4")).cells}
    assert four["bert-large-cased-rte-low-v"] > 3 * four["bert-base-cased-rte-low-v"]
    five = {cell.name: cost_of(cell) for cell in table_of(settings("table5")).cells}
    assert five["opt-1.3b-rte-shots"] > five["opt-1.3b-rte-zero-shot"] < five["opt-1.3b-rte-v"]
    assert five["opt-6.7b-rte-v"] > 4 * five["opt-1.3b-rte-v"]
    [select] = table_of(settings("figure1")).cells
    assert cost_of(select) > 4 * one["sst2-low-v"]
