"""By how much a target leads, and how often its interval holds the truth."""

from __future__ import annotations

import math
from statistics import fmean, variance
from typing import Any

import numpy as np
import pytest
from scipy import stats

from beftkit.files import from_plain
from beftkit.present.selection import margin_words
from beftkit.selection.certainty import Margin, margin

RNG = np.random.default_rng(7)


def interval(found: Margin) -> tuple[float, float]:
    assert found.low is not None and found.high is not None
    return found.low, found.high


# Deviations of what a layer has in every seed, a seed in every layer, and each by itself.
WORLDS = {
    "layers differ alike in all seeds": (0.2, 0.02, 0.05),
    "no layer effect": (0.0, 0.02, 0.2),
    "seeds differ": (0.05, 0.2, 0.05),
    "both differ": (0.1, 0.1, 0.1),
}


def scores(rng: Any, world: str, seeds: int, layers: int) -> tuple[Any, Any]:
    """``[seeds][layers]`` around 0, and what each seed has by itself, ``[seeds]``."""
    by_layer, by_seed, alone = WORLDS[world]
    shift = by_seed * rng.standard_normal((seeds, 1))
    found = by_layer * rng.standard_normal(layers) + shift
    return found + alone * rng.standard_normal((seeds, layers)), shift[:, 0]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    "seeds, layers, least", [(2, 6, 0.87), (3, 6, 0.91), (3, 12, 0.91), (5, 12, 0.92)]
)
def test_the_interval_holds_the_true_margin_about_as_often_as_it_says(
    world: str, seeds: int, layers: int, least: float
) -> None:
    rng, times = np.random.default_rng(0), 1000
    held = 0
    for _ in range(times):
        ahead, _ = scores(rng, world, seeds, layers)
        low, high = interval(margin("q", ahead + 0.1, np.zeros((seeds, layers))))
        held += low <= 0.1 <= high
    assert least <= held / times < 0.996


@pytest.mark.parametrize("world", WORLDS)
def test_with_one_seed_it_holds_what_all_layers_would_give_in_that_seed(world: str) -> None:
    rng, times = np.random.default_rng(0), 1000
    held = 0
    for _ in range(times):
        ahead, (shift,) = scores(rng, world, 1, 6)
        low, high = interval(margin("q", ahead + 0.1, np.zeros((1, 6))))
        held += low <= 0.1 + shift <= high
    assert 0.93 <= held / times <= 0.97


@pytest.mark.parametrize("world", WORLDS)
def test_it_holds_it_where_roles_have_other_numbers_of_layers_too(world: str) -> None:
    rng, times = np.random.default_rng(0), 1000
    held = 0
    for _ in range(times):
        (first, _), (second, _) = (scores(rng, world, 3, layers) for layers in (6, 12))
        low, high = interval(margin("q", first + 0.1, second))
        held += low <= 0.1 <= high
    assert 0.91 <= held / times < 0.996


def test_layers_that_are_alike_in_every_seed_are_not_counted_anew_with_each() -> None:
    ahead = RNG.normal(0.3, 0.2, 6).tolist()
    alone = margin("q", [ahead], [[0.0] * 6])
    again = margin("q", [ahead] * 5, [[0.0] * 6] * 5)
    assert interval(again) == pytest.approx(interval(alone), rel=1e-12)
    assert (alone.over, again.over) == ("layers", "layers and seeds")


def test_over_layers_alone_the_interval_is_that_of_students_t() -> None:
    a, b = RNG.normal(1.0, 0.3, 24), RNG.normal(0.8, 0.3, 24)
    found = margin("q", [a.tolist()], [b.tolist()])
    assert found.value == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    judge = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert interval(found) == pytest.approx((judge.low, judge.high), rel=1e-12)
    boot = stats.bootstrap((a - b,), np.mean, n_resamples=5_000, rng=np.random.default_rng(1))
    assert math.dist(interval(found), boot.confidence_interval) < 0.15 * (judge.high - judge.low)


def test_over_seeds_alone_too() -> None:
    a, b = [0.5, 0.9, 0.6], [0.1, 0.2, 0.1]
    found = margin("q", [[one] for one in a], [[one] for one in b])
    judge = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert interval(found) == pytest.approx((judge.low, judge.high), rel=1e-12)
    assert found.over == "seeds"


def test_roles_of_unequal_layers_are_two_samples() -> None:
    a, b = [1.0, 1.2, 0.9], [0.1, 0.2]
    found = margin("q", [a], [b])
    assert found.value == pytest.approx(1.0333333 - 0.15)
    judge = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert interval(found) == pytest.approx((judge.low, judge.high), rel=1e-12)
    assert not found.close
    one = margin("q", [a], [[0.1]])
    judge = stats.ttest_1samp(a, 0.1).confidence_interval(0.95)
    assert interval(one) == pytest.approx((judge.low - 0.1, judge.high - 0.1), rel=1e-12)


@pytest.mark.parametrize("layers", [(4, 4), (4, 7), (1, 3)])
@pytest.mark.parametrize("scale", [1.0, 1e-100])
def test_layers_and_seeds_add_their_errors(layers: tuple[int, int], scale: float) -> None:
    first, second = (scale * RNG.normal(0.3, 0.2, (3, many)) for many in layers)
    if layers[0] == layers[1]:
        means = [[fmean(one) for one in (first - second).T]]
    else:
        means = [[fmean(one) for one in role.T] for role in (first, second)]
    means.append([fmean(a) - fmean(b) for a, b in zip(first, second, strict=True)])
    errors = [variance(one) / len(one) / scale**2 for one in means if len(one) > 1]
    free = [len(one) - 1 for one in means if len(one) > 1]
    freedom = sum(errors) ** 2 / sum(e**2 / f for e, f in zip(errors, free, strict=True))
    half = scale * stats.t.ppf(0.975, freedom) * math.sqrt(sum(errors))
    found = margin("q", first.tolist(), second.tolist())
    assert interval(found) == pytest.approx(
        (found.value - half, found.value + half), rel=1e-12, abs=0.0
    )


def test_seeds_widen_the_interval_that_layers_alone_would_give() -> None:
    layers = np.linspace(-0.01, 0.01, 12)
    apart = [(layers + shift).tolist() for shift in (-0.5, 0.0, 0.9)]
    nought = [[0.0] * 12] * 3
    found = margin("q", apart, nought)
    low, high = interval(found)
    assert low < -0.3 and high > 0.7
    assert found.close
    one = margin("q", apart[2:], nought[2:])
    assert one.low is not None and one.low > 0.89 and not one.close


def test_one_layer_and_one_seed_have_no_interval() -> None:
    found = margin("q", [[0.5]], [[0.2]])
    assert (found.low, found.high, found.close, found.over) == (None, None, False, None)
    assert margin_words("v", found) == "v leads q by 0.3 (one layer, one seed: no interval)"


@pytest.mark.parametrize("seeds", [1, 2])
def test_values_that_do_not_vary_leave_no_doubt(seeds: int) -> None:
    found = margin("q", [[0.5] * 4] * seeds, [[0.25] * 4] * seeds)
    assert (interval(found), found.close) == ((0.25, 0.25), False)
    level = margin("q", [[0.5] * 4] * seeds, [[0.5] * 4] * seeds)
    assert (interval(level), level.close) == ((0.0, 0.0), True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_no_numbers_have_no_interval(bad: float) -> None:
    found = margin("q", [[0.5, bad], [0.4, 0.6]], [[0.2, 0.3], [0.1, 0.2]])
    assert (found.low, found.high, found.close, found.over) == (None, None, False, None)


def test_words_say_over_what_the_interval_is() -> None:
    ahead, nought = [[0.4, 0.6], [0.5, 0.7]], [[0.0, 0.0]] * 2
    words = margin_words("v", margin("q", ahead, nought))
    assert words.endswith(" over layers and seeds: too close to call")
    assert " over layers: too" in margin_words("v", margin("q", ahead[:1], nought[:1]))


def test_a_margin_of_an_older_file_says_nothing_of_it() -> None:
    old = {"runner_up": "q", "value": 0.5, "low": 0.25, "high": 0.75, "close": False}
    found = from_plain(Margin, old)
    assert found.over is None
    assert margin_words("v", found) == "v leads q by 0.5, 95 % interval 0.25 to 0.75"
    assert from_plain(Margin, vars(found)) == found
