"""Standard errors of metrics against scipy's bootstrap; what a constant prediction gets."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from scipy import stats

from beftkit.objectives import make_objective
from beftkit.tasks import METRIC_NAMES, compute_metrics, deviations, standard_errors

CLASSES = ("accuracy", "f1", "macro_f1", "matthews")


def answers(name: str, count: int = 120) -> tuple[Any, Any]:
    """Predictions that are right more often than not, and references."""
    rng = np.random.default_rng(3)
    if name in CLASSES:
        expected = rng.integers(0, 2 if name == "f1" else 3, count)
        return np.where(rng.random(count) < 0.7, expected, rng.permutation(expected)), expected
    expected = np.round(rng.normal(3, 1, count), 1)  # ties, for the ranks
    return expected + rng.normal(0, 0.8, count), expected


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_a_standard_error_is_that_of_scipy_s_bootstrap(name: str) -> None:
    predicted, expected = answers(name)
    [found] = standard_errors([name], predicted, expected).values()
    judge = stats.bootstrap(
        (predicted, expected), lambda p, e: compute_metrics([name], p, e)[name],
        n_resamples=250 if name in CLASSES else 800, paired=True, vectorized=False, rng=1,
        method="percentile",
    )  # fmt: skip
    assert found == pytest.approx(judge.standard_error, rel=0.2), name


def test_an_accuracy_s_is_binomial() -> None:
    predicted, expected = answers("accuracy", 277)
    right = float((predicted == expected).mean())
    found = standard_errors(["accuracy"], predicted, expected)["accuracy"]
    assert found == pytest.approx(stats.binom(277, right).std() / 277, rel=1e-12)


def test_an_error_of_zero_is_explained() -> None:
    """At both ends the formula gives 0; its note's bound is the exact one, rounded up."""
    for right in (0, 1):
        found = standard_errors(["accuracy", "macro_f1"], [right] * 40, [1] * 40)
        assert found["accuracy"] == 0.0
        [said] = deviations.zero_error_note([None, *found.values()])
        assert "3 / N of others may differ (95 %)" in said
    assert deviations.zero_error_note([None, 1e-9]) == deviations.zero_error_note([]) == []
    for count in (20, 40, 277, 5000):
        exact = 1 - stats.binomtest(count, count, alternative="greater").proportion_ci(0.95).low
        assert exact < 3 / count < 1.1 * exact


def test_the_same_again_in_bounded_time_and_no_random_number_of_others() -> None:
    random = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    for name, metrics in (("macro_f1", CLASSES[:1] + CLASSES[2:]), ("pearson", METRIC_NAMES[4:])):
        some = answers(name, 200_000)
        before = time.process_time()
        first = standard_errors(metrics, *some)
        assert time.process_time() - before < 2.0
        assert first == standard_errors(metrics, *some)
        assert list(first) == list(metrics)
        few = standard_errors(metrics, *answers(name, 2_000))
        for one, value in first.items():
            assert value == pytest.approx(few[one] / 10, rel=0.2), one
    assert random == np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]


def test_of_what_is_not_defined_and_of_metrics_of_others_none_is_given() -> None:
    same = np.full(50, 2.0)
    found = standard_errors(["pearson", "mse"], same, answers("mse", 50)[1])
    assert np.isnan(found["pearson"]) and found["mse"] > 0
    assert np.isnan(deviations.standard_errors(["spearman"], [1.0], [2.0])["spearman"])
    assert deviations.standard_errors([object()], [1, 0], [1, 1]) == {}  # type: ignore[list-item]


def test_the_majority_class_and_the_mean() -> None:
    targets = np.array([0, 1, 1, 0, 1, 2])
    classes = make_objective("classes", ("a", "b", "c"))
    found = classes.baseline(["accuracy", "macro_f1", "matthews"], targets)
    assert found == {"accuracy": 0.5, "macro_f1": pytest.approx(2 / 9), "matthews": 0.0}
    assert classes.constant == "majority class"
    own = make_objective("classes", ("a", "b"), (1, 0))  # the task's own 1 is our 0
    assert own.baseline(["f1"], np.array([0, 0, 1])) == {"f1": pytest.approx(0.8)}
    values = make_objective("values")
    found = values.baseline(["pearson", "mse"], np.array([1.0, 2.0, 6.0], dtype="float32"))
    assert np.isnan(found["pearson"]) and found["mse"] == pytest.approx(14 / 3)
    assert values.constant == "always the mean"


def test_matthews_of_a_class_that_is_seldom_said() -> None:
    """So seldom that its share among the answers is not that among the references."""
    rng = np.random.default_rng(5)
    expected = (rng.random(150) < 0.5).astype(int)
    predicted = np.where(rng.random(150) < 0.9, 0, expected)
    [found] = standard_errors(["matthews"], predicted, expected).values()
    rows = rng.integers(0, 150, (400, 150))
    drawn = [compute_metrics(["matthews"], predicted[r], expected[r])["matthews"] for r in rows]
    assert found == pytest.approx(np.std(drawn, ddof=1), rel=0.15)


def test_where_most_samples_have_no_correlation_there_is_no_error() -> None:
    """Both single values that differ are drawn in four samples of ten."""
    one, other = np.zeros(60), np.zeros(60)
    one[3] = other[7] = 1.0
    assert np.isnan(standard_errors(["pearson"], one, other)["pearson"])
    assert standard_errors(["pearson"], one, one + other)["pearson"] > 0


def test_errors_too_count_classes_as_the_task_does() -> None:
    own = make_objective("classes", ("a", "b"), (1, 0))  # f1 is of the task's own 1, our 0
    rng = np.random.default_rng(6)
    expected = (rng.random(80) < 0.8).astype(int)
    predicted = np.where(rng.random(80) < 0.2, 1 - expected, expected)
    found = own.standard_errors(["f1"], predicted, expected)
    assert found == standard_errors(["f1"], 1 - predicted, 1 - expected)
    assert found["f1"] > 1.5 * standard_errors(["f1"], predicted, expected)["f1"]
