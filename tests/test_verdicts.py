"""What verification says of the score's target: by which rule, in which words, in every form."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from beftkit.present.markdown import markdown_text
from beftkit.present.selection import advice, selection_document, selection_rows
from beftkit.present.verdicts import verdict_word
from beftkit.selection import CellResult, Selection
from beftkit.selection.ranks import RoleRank
from beftkit.selection.summary import alone_of
from beftkit.selection.verdicts import best_place, contrast, judge
from tests.test_selection import cell, selection

Reached = dict[str, float]


def cells(
    *reached: Reached, error: float | None = 0.03, stayed: tuple[str, ...] = (), lr: float = 1e-3
) -> list[CellResult]:
    """A cell a seed; v is the score's target, q its runner-up, k is inert, m3 is not there."""
    found = []
    for seed, metrics in enumerate(reached):
        one = cell(seed, [0.4, 0.6], [0.1, 0.2], metrics)
        errors = {} if error is None else {"accuracy": error}
        runs = {
            bias: replace(run, standard_errors=errors, baselines={"accuracy": 0.5},
                          baseline_is="majority class", stayed=bias in stayed)
            for bias, run in one.runs.items()
        }  # fmt: skip
        found.append(replace(one, runs=runs, cell=replace(one.cell, lr=lr)))
    return found


def words(found: Selection) -> str:
    return " ".join(advice(found).words)


WON = {"none": 0.5, "q": 0.6, "k": 0.5, "v": 0.8, "all": 0.9}
LOST = {"none": 0.5, "q": 0.7, "k": 0.5, "v": 0.55, "all": 0.9}
BELOW = {"none": 0.6, "q": 0.5, "k": 0.5, "v": 0.45, "all": 0.9}
SAME = dict.fromkeys(WON, 0.5)


# --- told apart


def test_of_one_seed_two_standard_errors_of_the_metrics_decide() -> None:
    alone = {"v": {0: (0.7, 0.03)}, "q": {0: (0.62, 0.03)}, "k": {0: (0.6, None)}}
    found = contrast(alone, "v", "q", higher=True)
    assert found.standard_error == pytest.approx(math.hypot(0.03, 0.03))
    assert (found.over, found.seeds, found.told_apart) == ("examples", 1, False)
    assert contrast(alone | {"q": {0: (0.61, 0.03)}}, "v", "q", higher=True).told_apart
    unknown = contrast(alone, "v", "k", higher=True)
    assert unknown.standard_error is None and not unknown.told_apart
    smaller = contrast(alone, "v", "q", higher=False)
    assert smaller.value == pytest.approx(-0.08)


def test_of_several_seeds_their_scatter_decides_paired_where_they_are_the_same() -> None:
    one, other = [0.70, 0.60, 0.65], [0.66, 0.57, 0.60]
    alone = {
        name: {seed: (value, 0.5) for seed, value in enumerate(values)}
        for name, values in (("v", one), ("q", other))
    }
    found = contrast(alone, "v", "q", higher=True)
    judge_of_pairs = stats.ttest_rel(one, other)
    assert found.value / (found.standard_error or 0) == pytest.approx(judge_of_pairs.statistic)
    assert (found.over, found.seeds, found.told_apart) == ("seeds", 3, True)
    apart = {**alone, "q": {seed + 1: pair for seed, pair in alone["q"].items()}}
    unpaired = contrast(apart, "v", "q", higher=True)
    welch = stats.ttest_ind(one, other, equal_var=False)
    assert unpaired.value / (unpaired.standard_error or 0) == pytest.approx(welch.statistic)
    assert unpaired.over == "seeds" and not unpaired.told_apart
    mixed = contrast({**alone, "q": {0: (0.6, 0.03)}}, "v", "q", higher=True)
    spread = np.var(one, ddof=1) / 3 + 0.03**2
    assert mixed.standard_error == pytest.approx(math.sqrt(spread))
    assert mixed.over == "seeds and examples"


def test_equal_runs_are_not_told_apart_though_they_do_not_scatter() -> None:
    alone = {name: {0: (0.1 + 0.2, 0.0), 1: (0.3, 0.0)} for name in "vq"}
    assert not contrast(alone, "v", "q", higher=True).told_apart


# --- the verdict


def test_the_target_that_did_best_is_recommended() -> None:
    found = selection(cells(WON, WON | {"v": 0.9}))
    verdict = found.groups[0].verdict
    assert verdict is not None and (verdict.answer, verdict.proven) == ("target", True)
    assert (found.target, found.recommended) == ("v", "v")
    assert "Train b_v (value): trained alone it reached accuracy 0.8500, the best of q, v." in (
        words(found)
    )
    assert "0.3500 better than the control none over 2 seeds, told apart (two standard" in words(
        found
    )
    assert "moved most of q, v, projection ratio 0.5; k (inert) moved more" in words(found)


def test_metrics_outrank_the_score() -> None:
    found = selection(cells(LOST))
    verdict = found.groups[0].verdict
    assert verdict is not None and verdict.behind is not None
    assert (verdict.answer, verdict.best, verdict.proven) == ("other", ("q",), True)
    assert (found.target, found.recommended) == ("v", "q")
    assert found.to_dict()["recommended"] == "q"
    said, command = advice(found)
    assert said[0].startswith("Train b_q (query): trained alone it reached accuracy 0.7000")
    assert "The score's target v reached 0.5500: q did 0.1500 better than v over 1 seed" in said[2]
    assert "told apart (two standard errors over examples: 0.0849)" in said[2]
    assert command is not None and "--bias q" in command
    assert verdict_word(found.groups[0]) == "q best, not v"
    assert "moved most" not in " ".join(said)


def test_where_none_beats_none_nothing_is_recommended() -> None:
    found = selection(cells(BELOW, BELOW))
    assert (found.target, found.recommended) == ("v", None)
    said, command = advice(found)
    assert command is None
    assert said[0] == (
        "Nothing to recommend: none of q and v beats the control none (q reached 0.5000, none "
        "0.6000): train longer, with another lr, or on more data."
    )
    assert "The score's target v reached 0.4500: q did 0.0500 better than v over 2 seeds" in said[1]
    assert not any("Train b_" in one for one in said)
    assert verdict_word(found.groups[0]) == "no candidate beats none"
    text = markdown_text(selection_document(found).blocks)
    assert "beftkit train" not in text and "clear" not in text


def test_runs_that_all_scored_the_majority_class_say_so() -> None:
    found = selection(cells(SAME, stayed=("none", "q", "k", "v", "all")))
    said = " ".join(advice(found).words)
    assert "Nothing to recommend" in said and "v and q reached 0.5000, none 0.5000" in said
    assert "Trained with none, q, k, v and all the model never left its baseline" in said
    assert "(majority class 0.5000)" in said
    text = markdown_text(selection_document(found).blocks)
    assert "v and q tie" in text and "| majority class | 0.5000 |" in text
    verified = found.groups[0].verified
    assert verified["v"].stayed == 1 and verified["v"].standard_error == 0.03


def test_a_lead_over_none_that_is_not_told_apart_proves_nothing() -> None:
    close = {**WON, "v": 0.52, "q": 0.51}
    found = selection(cells(close))
    assert found.recommended == "v" and found.groups[0].verdict is not None
    assert not found.groups[0].verdict.proven
    assert words(found).startswith("If any, train b_v (value)")
    assert "0.0200 better than the control none over 1 seed, not told apart" in words(found)
    assert verdict_word(found.groups[0]) == "v best, not told apart from none"
    old = selection(cells(close, error=None))
    assert "not told apart (its standard error is not known)" in words(old)


def test_a_winner_that_a_constant_prediction_equals_is_told() -> None:
    low = {"none": 0.4, "q": 0.45, "k": 0.4, "v": 0.5, "all": 0.9}
    said = "That is no better than the baseline (majority class 0.5000)."
    assert said in words(selection(cells(low))) and said not in words(selection(cells(WON)))


def test_an_inert_bias_that_did_best_by_chance_is_not_recommended() -> None:
    found = selection(cells({**WON, "k": 0.95}))
    assert found.recommended == "v" and found.groups[0].winner.best == "k"
    assert "k did better, but is inert: that is the head, and chance." in words(found)
    assert "it picked v" in markdown_text(selection_document(found).blocks)


def test_of_an_error_the_smaller_is_better() -> None:
    alone: Any = {b: {0: (value, 0.01)} for b, value in {"v": 0.5, "q": 0.3, "none": 0.9}.items()}
    verdict = judge(alone, ["v", "q"], "v", higher=False)
    assert (verdict.answer, verdict.recommended) == ("other", "q")
    assert verdict.control is not None and verdict.control.value == pytest.approx(0.6)
    lost = judge(alone | {"none": {0: (0.1, 0.01)}}, ["v", "q"], "v", higher=False)
    assert lost.answer == "nothing"


def test_metrics_that_are_not_defined_recommend_nothing() -> None:
    alone: Any = {b: {0: (None, None)} for b in ("v", "q", "none")}
    verdict = judge(alone, ["v", "q"], "v", higher=True)
    assert (verdict.answer, verdict.best, verdict.recommended) == ("nothing", (), None)
    some = judge(alone | {"q": {0: (0.4, 0.1)}}, ["v", "q"], "v", higher=True)
    assert (some.recommended, some.proven, some.control) == ("q", False, None)


def test_candidates_that_tie_are_named_and_the_target_goes_first() -> None:
    found = selection(cells({**LOST, "v": 0.7}))
    assert found.recommended == "v" and found.groups[0].verdict is not None
    assert found.groups[0].verdict.best == ("v", "q")
    assert "it reached accuracy 0.7000, as q did." in words(found)
    assert "v and q tie" in markdown_text(selection_document(found).blocks)


def test_over_a_grid_the_place_that_did_best_is_named() -> None:
    found = selection([*cells(BELOW, lr=1e-4), *cells(LOST, lr=1e-3), *cells(WON, lr=1e-2)])
    assert (found.place, found.recommended) == (2, "v"), "each at its own rate"
    found = selection([*cells(BELOW, lr=1e-4), *cells(WON, lr=1e-3),
                       *cells({**WON, "v": 0.85}, lr=1e-2)])  # fmt: skip
    assert (found.place, found.recommended) == (2, "v")
    own = "each bias at its own best rate"
    assert f"the best of q, v, {own} (low, lr 0.01, 4 epochs)." in words(found)
    nothing = selection([*cells(BELOW, lr=1e-4), *cells(BELOW, lr=1e-3)])
    assert nothing.recommended is None and nothing.place is None
    assert words(nothing).startswith("Nothing to recommend")
    assert "| nothing |" in markdown_text(selection_document(nothing).blocks)


# --- without verification


def unverified(found: list[CellResult]) -> Selection:
    return selection([replace(one, runs={}) for one in found])


def test_a_lead_that_may_be_zero_is_said_so_and_has_no_ratio() -> None:
    found = unverified(cells(WON))
    assert found.recommended == "v" and found.groups[0].verdict is None
    assert "By score alone b_v (value) comes first" in words(found)
    assert "Its lead over q is not told apart from zero (95 % interval -0.2853 to" in words(found)
    assert "times" not in words(found) and "Not verified" in words(found)
    assert verdict_word(found.groups[0]) == "score alone: too close to call"


def test_moved_most_is_said_of_all_roles_or_of_which() -> None:
    def with_m3(score: float) -> Selection:
        found = []
        for one in cells(WON, WON, WON):
            table = one.methods["projection"]
            held = {r: x for r, x in table.roles.items() if r != "k"}
            held |= {"v": RoleRank(0.5, 1, "no", 4, 1.0, (0.5, 0.51))}
            held |= {"q": RoleRank(0.1, 2, "no", 4, 1.0, (0.1, 0.11))}
            held |= {"m3": RoleRank(score, 3, "no", 4, 1.0, (score, score))}
            methods = {**one.methods, "projection": replace(table, roles=held)}
            found.append(replace(one, methods=methods, runs={}))
        return selection(found)

    assert "it moved most, projection ratio 0.5; 5 times the runner-up q." in words(with_m3(0.2))
    more = with_m3(0.9)
    assert more.groups[0].projection.ahead == ("m3",)
    assert "it moved most of q, v, projection ratio 0.5; m3 moved more;" in words(more)
    assert verdict_word(more.groups[0]) == "score alone: clear"


# --- files


def test_it_comes_back_and_files_of_before_are_given_theirs() -> None:
    found = selection([*cells(LOST, lr=1e-3), *cells(BELOW, BELOW, lr=1e-4)])
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["groups"][0]["verdict"]["behind"]["told_apart"] is True
    again = Selection.from_dict(plain)
    assert again == found and json.loads(json.dumps(again.to_dict())) == plain
    new = {"standard_errors", "baselines", "baseline_is", "stayed", "verdict", "baseline"}
    new |= {"standard_error", "recommended"}

    def stripped(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: stripped(value) for key, value in one.items() if key not in new}
        return [stripped(value) for value in one] if isinstance(one, list) else one

    old = Selection.from_dict(stripped(plain))
    first, second = (group.verdict for group in old.groups)
    assert first is not None and second is not None
    assert (first.recommended, first.proven) == ("q", False), "its standard errors are not known"
    assert second.answer == "nothing" and second.behind is not None and second.behind.told_apart
    assert selection_rows(old)[0]["metric_standard_error"] is None
    assert "not told apart (its standard error is not known)" in words(old)


def test_a_bias_that_lacks_a_seed_s_metric_is_not_compared() -> None:
    """Its mean would be over other seeds than the rest's."""
    alone = {
        "v": {0: (0.9, 0.01), 1: (None, None)},
        "q": {0: (0.7, 0.01), 1: (0.7, 0.01)},
        "none": {0: (0.5, 0.01), 1: (0.5, 0.01)},
    }
    found = judge(alone, ["v", "q"], "v", higher=True)
    assert found.best == ("q",) == found.candidates and found.recommended == "q"
    assert found.behind is None


def test_the_place_is_where_the_bias_of_most_places_did_best() -> None:
    places = [("q", 0.6), ("v", 0.9), ("q", 0.8), ("q", 0.7), (None, 0.99)]
    assert best_place(places) == 2
    assert best_place([(None, 0.9)]) is None


def test_where_some_seeds_stayed_the_bias_is_not_said_to() -> None:
    some = [*cells(WON, stayed=("k",)), *cells(WON, stayed=("k", "q"))]
    pair = [replace(one, cell=replace(one.cell, seed=seed)) for seed, one in enumerate(some)]
    [group] = selection(pair).groups
    assert group.verdict is not None and group.verdict.stayed == ("k",)


def test_seeds_that_only_one_of_two_biases_has_are_no_pairs() -> None:
    """Compared by their own numbers, whatever order the cells come in."""
    reached = [{**WON, "q": 0.60}, {**WON, "q": 0.62}, {**WON, "q": 0.7}]
    some = cells(*reached)
    numbers = (5, 3, 9)
    some = [
        replace(one, cell=replace(one.cell, seed=n)) for n, one in zip(numbers, some, strict=True)
    ]
    runs = {bias: run for bias, run in some[2].runs.items() if bias != "v"}
    found = alone_of([*some[:2], replace(some[2], runs=runs)], "accuracy")
    assert {bias: [*values] for bias, values in found.items() if bias in "vq"} == {
        "q": [5, 3, 9], "v": [5, 3],
    }  # fmt: skip
    assert found["q"][9] == (0.7, 0.03)
    assert contrast(found, "v", "q", higher=True).seeds == 2
