"""What a selection makes of numbers: when a probe settled, groups, tau."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from beftkit.errors import BeftError, UsageError
from beftkit.present.commands import next_command
from beftkit.present.data import csv_text, json_text
from beftkit.present.markdown import markdown_text
from beftkit.present.selection import advice, selection_document
from beftkit.scores import Inert
from beftkit.selection import CellResult, Selection
from beftkit.selection.cells import Cell, grid, run_settings
from beftkit.selection.certainty import Settled, kendall_tau, settled
from beftkit.selection.methods import thinned, when_settled
from beftkit.selection.ranks import MethodTable, RoleRank
from beftkit.selection.results import CellRun, Tau, Winner
from beftkit.selection.summary import overall_targets, summarise
from beftkit.settings.resolve import resolve_select, resolve_train
from beftkit.settings.select import SelectSettings

# --- when settled, tau


def test_a_probe_is_settled_from_its_last_change_on() -> None:
    track = [
        (1, {"q": 0.3, "v": 0.1, "m1": 0.0}), (2, {"q": 0.1, "v": 0.2, "m1": 0.3}),
        (3, {"q": 0.1, "v": 0.4, "m1": 0.2}), (4, {"q": 0.1, "v": 0.4, "m1": 0.05}),
        (5, {"q": 0.2, "v": 0.5, "m1": 0.1}),
    ]  # fmt: skip
    found = settled(track, ["q", "v", "m1"])
    assert found is not None
    assert (found.target, found.ranking, found.steps) == (3, 4, 5)
    only = settled(track, ["q", "v"])
    assert only is not None and (only.target, only.ranking) == (2, 2)
    assert settled([], ["q"]) is None
    assert settled(track, ["ln1"]) is None


def test_tau_is_that_of_a_count_of_pairs() -> None:
    ranks = {"v": 1, "q": 2, "m1": 3, "k": 4}
    metrics = {"v": 0.9, "q": 0.7, "m1": 0.8, "k": 0.5}
    pairs = [(a, b) for a in ranks for b in ranks if a < b]
    agree = sum((ranks[a] < ranks[b]) == (metrics[a] > metrics[b]) for a, b in pairs)
    expected = (agree - (len(pairs) - agree)) / len(pairs)
    assert kendall_tau(ranks, metrics) == pytest.approx(expected)
    assert kendall_tau(ranks, dict.fromkeys(ranks, 0.5)) is None
    assert kendall_tau(ranks, {"v": 0.9, "q": None}) is None


def test_a_long_track_is_thinned_to_its_ends_and_some_between() -> None:
    track = [(step, {"v": step / 1000}) for step in range(1, 1001)]
    points = thinned(track)["v"]
    assert len(points) <= 201
    assert points[0] == (1, 0.001) and points[-1] == (1000, 1.0)


# --- cells


def test_a_grid_is_every_combination_and_every_name_its_own() -> None:
    settings = SelectSettings(regimes="low,high", lrs="1e-3,1e-4", epochs="2,4", seeds="0,1")
    cells = grid(settings)
    assert len(cells) == len({cell.name for cell in cells}) == 16
    assert cells[0].name == "low-lr0.001-e2-seed0"
    assert len({cell.group for cell in cells}) == 8


def test_a_cell_has_the_settings_of_its_place() -> None:
    given = {"task": "rte", "lrs": "1e-3,2e-3", "batch_size": 8, "probe_steps": 5}
    settings = resolve_select(None, {"model": "base", **given})
    assert settings.regimes == ("low",)
    cell = grid(settings)[1]
    probe = run_settings(settings, cell, "probe", "out")
    assert (probe.bias, probe.lr, probe.regime, probe.max_steps) == ("all", 2e-3, "low", 5)
    assert (probe.batch_size, probe.track_steps, probe.seeds) == (8, 1, (0,))
    alone = run_settings(settings, cell, "v", "out")
    assert (alone.bias, alone.max_steps) == ("v", None)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"task": "rte", "bias": "v"}, "bias is set by the selection itself"),
        ({"task": "rte", "regimes": "low", "train_size": 4}, "expected one of them"),
        ({"train_file": "x.jsonl", "regimes": "low"}, "regimes: are for tasks"),
        ({"task": "rte", "lrs": "0"}, "expected values above 0"),
        ({"task": "rte", "seeds": "1,1"}, "expected different whole numbers"),
        ({"task": "rte", "seeds": "-1"}, "from 0 to 4294967295"),
        ({"task": "rte", "regimes": "tiny"}, "regimes"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_select(None, {"model": "base", **given})


# --- groups


def table(target: str, **scores: tuple[list[float], Inert]) -> MethodTable:
    means = {role: math.fsum(layers) / len(layers) for role, (layers, _) in scores.items()}
    order = sorted(scores, key=lambda role: (scores[role][1] == "yes", -means[role]))
    return MethodTable(target, {
        role: RoleRank(means[role], order.index(role) + 1, inert, 4, 1.0, tuple(layers))
        for role, (layers, inert) in scores.items()
    })  # fmt: skip


def cell(seed: int, v: list[float], q: list[float], metrics: dict[str, float]) -> CellResult:
    runs = {
        bias: CellRun(bias, f"cells/{seed}/{bias}", 8, 0.01, best={"accuracy": value},
                      last={"accuracy": value - 0.1}, best_epoch=1.0, steps=9, epochs=4.0,
                      train_seconds=2.0, eval_seconds=1.0)
        for bias, value in metrics.items()
    }  # fmt: skip
    changes = table("v", v=(v, "no"), q=(q, "no"), k=([0.9, 0.9], "yes"), ln1=([0.1, 0.1], "no"))
    sizes = table("q", v=(q, "no"), q=(v, "no"), k=([0.9, 0.9], "yes"), ln1=([0.1, 0.1], "no"))
    return CellResult(
        Cell("low", None, 1e-3, 4, seed), f"cells/{seed}", 100,
        {"projection": changes, "magnitude": sizes}, runs, Settled(seed + 1, seed + 2, 9),
    )  # fmt: skip


METRICS = {"none": 0.5, "q": 0.6, "k": 0.5, "v": 0.8, "all": 0.9}
CELLS = [
    cell(0, [0.4, 0.6], [0.1, 0.2], METRICS),
    cell(1, [0.6, 0.8], [0.2, 0.1], {**METRICS, "v": 0.9}),
]


def selection(cells: list[CellResult] = CELLS, **changes: Any) -> Selection:
    settings = SelectSettings(verify=True)
    groups = summarise(cells, settings, "accuracy", True)
    return Selection(**{
        "model": "base", "task": "rte", "metric": "accuracy", "higher_is_better": True,
        "candidates": ("q", "k", "v"), "targets": overall_targets(groups), "groups": groups,
        "cells": tuple(cells), "settings": {"task": "rte"}, "family": "bert", "total": 1000,
        **changes,
    })  # fmt: skip


def test_a_group_is_the_mean_over_its_seeds() -> None:
    found = selection()
    (group,) = found.groups
    roles = group.projection.roles
    assert list(roles) == ["v", "q", "ln1", "k"], "the inert one is last, whatever it scores"
    assert roles["v"].score == pytest.approx(0.6)
    assert roles["v"].deviation == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert [one.rank for one in roles.values()] == [1, 2, 3, 4]
    assert found.targets == {"projection": "v", "magnitude": "q"}
    assert found.target == "v"
    lead = group.projection.margin
    assert lead is not None and (lead.runner_up, lead.value) == ("q", pytest.approx(0.45))
    assert group.gap == pytest.approx(0.45)
    assert group.settled == Settled(2, 3, 9), "the latest of the seeds"


def test_verification_holds_ranks_to_metrics() -> None:
    (group,) = selection().groups
    assert group.verified["v"].best == pytest.approx(0.85)
    assert group.verified["v"].last == pytest.approx(0.75)
    assert group.winner == Winner("v", "v")
    assert group.tau["projection"].best == pytest.approx(1.0)
    assert group.tau["magnitude"].best == pytest.approx(1 / 3)


def test_of_a_metric_that_should_be_small_the_smallest_wins() -> None:
    (group,) = summarise(CELLS, SelectSettings(verify=True), "accuracy", False)
    assert group.winner.best == "k"
    assert group.tau["projection"].best == pytest.approx(-1.0)


def test_candidates_that_tie_have_no_winner() -> None:
    tied = [cell(0, [0.4, 0.6], [0.1, 0.2], dict.fromkeys(METRICS, 0.5))]
    (group,) = summarise(tied, SelectSettings(verify=True), "accuracy", True)
    assert group.winner == Winner()
    assert group.tau["projection"] == Tau(None, None)
    assert "(last epoch -); v and q tie" in markdown_text(
        selection_document(selection(tied)).blocks
    )


def test_an_inert_bias_is_the_target_only_where_it_may_be() -> None:
    (group,) = summarise(CELLS, SelectSettings(allow_inert=True), None, True)
    assert group.projection.target == "k"
    assert group.verified == {}


def test_a_bias_that_is_zero_before_is_no_target_of_the_ratio() -> None:
    """Its ratio is 1 whatever changed; the magnitude ranks it as before."""

    def emptied(one: MethodTable, *roles: str) -> MethodTable:
        held = {r: replace(x, norm_pre=0.0 if r in roles else 1.0) for r, x in one.roles.items()}
        return replace(one, roles=held)

    for roles, ratio, size in ((("v",), "q", "q"), (("q", "k", "v", "ln1"), None, "q")):
        cells = [
            replace(one, methods={name: emptied(t, *roles) for name, t in one.methods.items()})
            for one in CELLS
        ]
        (group,) = summarise(cells, SelectSettings(verify=True), "accuracy", True)
        assert (group.projection.target, group.methods["magnitude"].target) == (ratio, size)
        assert group.projection.margin is None
    alone = [emptied(one.methods["projection"], "v") for one in CELLS]
    first = [replace(c, methods={"projection": t}) for c, t in zip(CELLS, alone, strict=True)]
    (group,) = summarise(first, SelectSettings(), None, True)
    assert list(group.projection.roles) == ["q", "ln1", "v", "k"]
    track = [(1, {"v": 1.0, "q": 0.1}), (2, {"v": 1.0, "q": 0.2})]
    assert (
        when_settled(track, emptied(CELLS[0].methods["projection"], "v", "q"), SelectSettings())
        is None
    )


def test_a_failed_cell_leaves_the_others() -> None:
    broken = CellResult(replace(CELLS[0].cell, seed=2), "cells/2", failed={"probe": "diverged"})
    (group,) = summarise([*CELLS, broken], SelectSettings(), None, True)
    assert group.seeds == (0, 1)


def test_a_selection_comes_back_from_its_document() -> None:
    found = selection()
    again = Selection.from_dict(json.loads(json.dumps(found.to_dict())))
    assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
    assert again.groups[0].label == "low, lr 0.001, 4 epochs"


def test_plain_words_say_which_by_how_much_and_what_next() -> None:
    sentences, command = advice(selection())
    words = "\n".join(sentences)
    assert "Train b_v (value): trained alone it reached accuracy 0.8500, the best of q, v." in words
    assert "It costs 8 of 1,000 scalars (0.8000 %)" in words
    assert command is not None
    assert command.startswith("beftkit train base --bias v --task rte --regime low")


@pytest.mark.parametrize(
    "of_data",
    [
        {"train_file": "train.csv", "validation_file": "dev.csv"},
        {"task": "rte", "train_size": 100},
    ],
)
def test_a_command_names_no_regime_where_there_is_none(of_data: dict[str, Any]) -> None:
    (group, *_) = selection().groups
    group = replace(group, regime="all", train_size=of_data.get("train_size"))
    settings = {**selection().settings, "task": None, "regimes": (), **of_data}
    command = next_command(selection(settings=settings), group, "v")
    assert "regime" not in command and "train" in command
    words = shlex.split(command)[2:]
    given = dict(zip(words[1::2], words[2::2], strict=True))
    del given["-o"]
    again = resolve_train(None, {k[2:].replace("-", "_"): v for k, v in given.items()}
                          | {"model": words[0]})  # fmt: skip
    assert again.regime is None and again.train_size == group.train_size


def test_forms_of_the_result() -> None:
    found = selection()
    document = selection_document(found)
    rows = document.rows
    assert len(rows) == 4
    assert {row["role"]: row["metric_best"] for row in rows}["q"] == pytest.approx(0.6)
    assert csv_text(rows).count("\n") == 5
    assert json.loads(json_text(document.json))["targets"] == found.targets
    markdown = markdown_text(document.blocks)
    assert "| v | 0.6000 ±0.1414 | 1 |" in markdown
    assert "v leads q by 0.45, 95 % interval -0.1585 to 1.058 over" in markdown
    assert "over layers and seeds: too close to call" in markdown, "two of each are few"


def test_no_candidate_no_target() -> None:
    (group,) = summarise(CELLS, SelectSettings(candidates=("m2",)), None, True)
    assert group.projection.target is None
    nothing = selection(targets={"projection": None}, groups=(group,))
    assert advice(nothing) == (["No candidate can be the target; nothing to train."], None)
    with pytest.raises(BeftError, match="expected some of"):
        from beftkit.selection.cells import biases_to_verify

        biases_to_verify(SelectSettings(candidates=("x",)))
