"""Sums between two lines of a log, and the course of the rate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from beftkit.accelerator import make_accelerator
from beftkit.training.journal import LOG, Meter
from beftkit.training.stepper import schedule
from beftkit.training.trainer import Interrupted, Trainer
from tests.test_trainer import job, model


def test_loss_and_norm_are_means_over_the_updates() -> None:
    accelerator = make_accelerator("cpu", "fp32")
    meter = Meter(torch.device("cpu"))
    for step, (loss, norm) in enumerate([(1.0, 8.0), (2.0, 4.0), (6.0, 0.0)], 1):
        meter.add(torch.tensor(loss), torch.tensor(norm), 8, step)
    assert meter.read(accelerator) == (3.0, 4.0, math.inf)
    assert (meter.updates, meter.examples) == (3, 24)
    meter.reset()
    assert meter.read(accelerator) == (0.0, 0.0, math.inf) and meter.examples == 0


def test_of_bad_updates_the_first_is_remembered() -> None:
    accelerator = make_accelerator("cpu", "fp32")
    meter = Meter(torch.device("cpu"))
    for step, norm in enumerate([1.0, math.nan, math.inf, 1.0], 1):
        meter.add(torch.tensor(1.0), torch.tensor(norm), 8, step)
    meter.reset()
    assert meter.read(accelerator)[2] == 2


@pytest.mark.parametrize(
    ("warmup", "factors"), [(0.1, [0, 0.5, 1, 1]), (3, [0, 1 / 3, 2 / 3, 1]), (0.0, [1] * 4)]
)
def test_a_share_of_updates_that_warm_up_is_rounded_up(warmup: float, factors: list[float]) -> None:
    """A tenth of 14 are 2, as transformers' Trainer has it."""
    ours = job(model(), warmup=warmup, schedule="constant")
    course = schedule(ours, torch.optim.SGD([torch.zeros(1)], lr=1.0), 14)
    assert [course.lr_lambdas[0](step) for step in range(4)] == pytest.approx(factors)


@pytest.mark.parametrize("graphs", ["off", "on"])
def test_a_run_taken_up_between_two_lines_logs_what_it_would_have(
    graphs: str, tmp_path: Path
) -> None:
    """The means are over all updates since the last line, those before the stop too."""

    def go_on(folder: Path, stop: int | None) -> None:
        ours = job(model(), graphs=graphs, log_steps=5, schedule="linear", warmup=2)
        held = replace(
            ours, folder=folder, asked_to_stop=lambda: 15 * (trainer.progress.step == stop)
        )
        trainer = Trainer(held)
        trainer.resume()  # the first time there is nothing to
        try:
            trainer.run()
        except Interrupted:
            assert trainer.progress.step == stop

    def ran(name: str, *stops: int) -> list[Any]:
        folder = tmp_path / name
        folder.mkdir()
        for stop in (*stops, None):
            go_on(folder, stop)
        lines = map(json.loads, (folder / LOG).read_text().splitlines())
        return [
            [one[key] for key in ("step", "loss", "grad_norm", "lr")]
            for one in lines
            if "lr" in one
        ]

    whole = ran("whole")
    assert [step for step, *_ in whole] == [5, 10]
    assert ran("parts", 4, 8) == whole
