"""Which evaluation of a run is its best, and whether the run ever left its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from beftkit.training import trainer
from beftkit.training.evaluation import Evaluation, evaluate_model
from beftkit.training.journal import Progress
from tests.test_trainer import job, model

Series = Sequence[float | None]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run whose evaluations find these, one after each of its updates."""

    def run(series: Series, metric: str = "accuracy", **settings: Any) -> Progress:
        left = iter(series)

        def evaluate_model(*_: Any, **__: Any) -> Evaluation:
            return Evaluation({metric: next(left)}, 1.0, 31, 0.0, {metric: 0.5})

        monkeypatch.setattr(trainer, "evaluate_model", evaluate_model)
        how = {"eval_steps": 1, "max_steps": len(series), "epochs": 2, **settings}
        return trainer.Trainer(job(model(), metrics=(metric,), **how)).run()

    return run


@pytest.mark.parametrize(
    ("series", "metric", "step"),
    [
        ((0.6, 0.7, 0.7, 0.65), "accuracy", 2),  # the first of equals
        ((0.9, 0.4, 0.4, 0.5), "mse", 2),
        ((None, None, 0.1, None), "pearson", 3),  # any number is more than none
        ((None, None), "pearson", 1),
        ((0.2, None), "pearson", 1),
    ],
)
def test_the_best_is_the_first_that_none_exceeds(
    told: Any, series: Series, metric: str, step: int
) -> None:
    found = told(series, metric)
    assert found.best.step == step and found.last.step == len(series)
    assert found.stale == len(series) - step


def test_numbers_that_come_late_put_off_an_early_stop(told: Any) -> None:
    found = told((None, 0.1, 0.0, 0.0, 0.9), "pearson", early_stopping=2)
    assert found.stopped_early and (found.step, found.best.step) == (4, 2)


@pytest.mark.parametrize(
    ("series", "stayed"),
    [((0.5, 0.5), True), ((0.6, 0.5, 0.5), False), ((0.5, 0.6), False), ((0.5, 0.6, 0.5), False)],
)
def test_a_run_that_comes_back_to_its_baseline_had_left_it(
    told: Any, series: Series, stayed: bool
) -> None:
    assert told(series).stayed is stayed


@pytest.mark.parametrize("alike", [(True, True), (True, False), (False, True)])
def test_answers_are_constant_where_they_are_in_every_split(
    alike: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, left = job(model()), iter(alike)
    monkeypatch.setattr(type(ours.objective), "alike", lambda self, predictions: next(left))
    split = ours.validation["validation"]
    found = evaluate_model(
        ours.model, {"validation_a": split, "validation_b": split}, ours.objective, ("accuracy",),
        ours.accelerator, 32,
    )  # fmt: skip
    assert found.constant is all(alike)
