"""Candidates at one common learning rate, and each at its own best one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from beftkit.present.data import json_text
from beftkit.present.markdown import markdown_text
from beftkit.present.selection import advice, selection_document
from beftkit.selection import Selection
from beftkit.selection.summary import summarise
from beftkit.settings.select import SelectSettings
from tests import selections

#: rate -> what v, q, k and none reach with seed 0 (with seed 1 .01 more)
V_THEN_Q = {
    4e-4: {"v": 0.66, "q": 0.53, "k": 0.52, "none": 0.52},
    4e-3: {"v": 0.79, "q": 0.75, "k": 0.56, "none": 0.56},
    2e-2: {"v": 0.76, "q": 0.80, "k": 0.65, "none": 0.66},
}


def found_with(reached: Mapping[float, Mapping[str, float]], seeds: Any = (0, 1)) -> Selection:
    """A made-up verified selection over these rates."""
    made = selections.selection(lrs=tuple(reached), seeds=seeds)
    cells = []
    for cell in made.cells:
        values = reached[cell.cell.lr or 0.0]
        more = 0.01 * cell.cell.seed
        runs = {
            bias: replace(run, best={"accuracy": round(values.get(bias, 0.5) + more, 4)})
            for bias, run in cell.runs.items()
        }
        cells.append(replace(cell, runs=runs))
    settings = SelectSettings(lrs=tuple(reached), seeds=seeds, verify=True)
    groups = summarise(cells, settings, "accuracy", True)
    return replace(made, cells=tuple(cells), groups=groups)


def test_each_at_its_own_rate_wins_who_does_not_at_a_common_one() -> None:
    found = found_with(V_THEN_Q)
    [one] = found.rates
    assert {bias: own.lr for bias, own in one.own.items() if bias in "vqk"} == {
        "v": 4e-3, "q": 2e-2, "k": 2e-2,
    }  # fmt: skip
    assert one.own["v"].edge == "inside" and one.own["q"].edge == "highest"
    assert one.own["q"].value == pytest.approx(0.805)
    assert [winner.best for winner in one.winners] == [("v",), ("v",), ("q",)]
    assert one.depends
    # Of the three rates two recommend v; at its own rate q is better.
    assert found.recommended == "q" and found.groups[found.place or 0].lr == 2e-2
    assert one.verdict.next is not None and one.verdict.next.value == pytest.approx(0.01)
    # none too is at its own rate: .665 there
    assert one.verdict.control is not None
    assert one.verdict.control.value == pytest.approx(0.805 - 0.665)


def test_it_is_said_which_rates_and_what_lies_beyond() -> None:
    found = found_with(V_THEN_Q)
    text = markdown_text(selection_document(found).blocks)
    assert "each bias at its own best rate of 0.0004, 0.004 and 0.02" in text
    assert "The winner depends on the rate: v at 0.0004 and 0.004; q at 0.02." in text
    assert "q did best at the highest rate tried: a higher one may be better still." in text
    words, command = advice(found)
    assert "each bias at its own best rate (low, lr 0.02, 8 epochs)." in words[0]
    assert command is not None and "--bias q" in command and "--lr 0.02" in command
    assert not any("not looked at" in line for line in words)


def test_a_winner_at_every_rate_is_told_as_one() -> None:
    same = {lr: {**values, "v": 0.9} for lr, values in V_THEN_Q.items()}
    found = found_with(same)
    assert not found.rates[0].depends and found.recommended == "v"
    assert "v wins at every one of these rates." in markdown_text(selection_document(found).blocks)


def test_a_single_rate_says_that_no_other_was_tried() -> None:
    found = found_with({4e-3: V_THEN_Q[4e-3]})
    assert found.rates == ()
    said = "All at one learning rate, 0.004: whether another would change the order was not"
    assert any(line.startswith(said) for line in advice(found).words)


def test_nothing_beats_none_at_any_rate() -> None:
    flat = {lr: dict.fromkeys(values, 0.5) for lr, values in V_THEN_Q.items()}
    found = found_with(flat)
    assert found.place is None and found.recommended is None
    assert advice(found).words[0].startswith("Nothing to recommend")
    assert {own.edge for own in found.rates[0].own.values()} == {"inside"}, "all rates tie"
    said = markdown_text(selection_document(found).blocks)
    assert "q and v tie at every one of these rates." in said and "did best at the" not in said


def test_it_stands_in_the_document_and_comes_back() -> None:
    found = found_with(V_THEN_Q)
    values = json.loads(json_text(selection_document(found).json))
    assert values["rates"][0]["depends"] and values["rates"][0]["own"]["q"]["lr"] == 2e-2
    assert values["recommended"] == "q" and "always-v" not in values["regret"]
    assert Selection.from_dict(values) == found


def test_a_pick_costs_what_the_best_is_better_by_whichever_way_the_metric_runs() -> None:
    """v is the ratio's pick in all six cells; k is inert, so its runs are no candidate's."""
    found = found_with(V_THEN_Q)
    regret = found.regret["projection"]
    assert (regret.cells, regret.best) == (6, 4)
    assert regret.mean == pytest.approx((0 + 0 + 0.04) / 3)
    errors = replace(found, higher_is_better=False).regret["projection"]
    assert (errors.cells, errors.best) == (6, 2)
    assert errors.mean == pytest.approx((0.13 + 0.04 + 0) / 3)


def test_a_cell_that_lacks_a_candidate_s_run_tells_of_no_cost() -> None:
    found = found_with(V_THEN_Q)
    first = found.cells[0]
    runs = {bias: run for bias, run in first.runs.items() if bias != "q"}
    part = replace(found, cells=(replace(first, runs=runs), *found.cells[1:]))
    assert part.regret["projection"].cells == 5


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_at_its_own_rate_a_bias_stayed_where_it_did_with_every_seed(seeds: tuple[int, ...]) -> None:
    made = found_with(V_THEN_Q)
    cells = [
        replace(one, runs={**one.runs, "k": replace(one.runs["k"], stayed=True)})
        if one.cell.lr == 2e-2 and one.cell.seed in seeds
        else one
        for one in made.cells
    ]
    settings = SelectSettings(lrs=tuple(V_THEN_Q), seeds=(0, 1), verify=True)
    groups = summarise(cells, settings, "accuracy", True)
    [rates] = replace(made, cells=tuple(cells), groups=groups).rates
    stayed = ("k",) if seeds == (0, 1) else ()
    assert rates.own["k"].lr == 2e-2 and rates.verdict.stayed == stayed
    [place] = [one.verdict for one in groups if one.lr == 2e-2]
    assert place is not None and place.stayed == stayed
