"""`--lr find`: a short sweep on part of the training examples, then the run at that rate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import beftkit
from beftkit.errors import Diverged
from beftkit.runs import rate_search
from beftkit.runs.provenance import RateSearch, RateTried
from tests.command import Beftkit, misused, refused

QUICK: dict[str, Any] = {"device": "cpu", "batch_size": 8, "epochs": 2}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rates are enough."""
    monkeypatch.setattr(rate_search, "RATES", (1e-4, 1e-2, 3e-2))


def test_the_best_rate_of_the_sweep_is_trained_with(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without validation data: none are needed, and none are looked at."""
    seen = []
    tried = rate_search._tried

    def watched(settings: Any, lr: float, updates: int, data: Any, stop: Any) -> Any:
        seen.append(data)
        return tried(settings, lr, updates, data, stop)

    monkeypatch.setattr(rate_search, "_tried", watched)
    result = beftkit.train(
        "base", train_file="train.jsonl", lr="find", output="out", train_size=40, **QUICK
    )
    assert result.provenance is not None and result.provenance.rates is not None
    found = result.provenance.rates
    assert [one.lr for one in found.tried] == [1e-4, 1e-2, 3e-2]
    assert (found.examples, found.held_out, found.updates) == (30, 10, 8)
    top = max(one.metric or 0 for one in found.tried)
    tops = [one for one in found.tried if one.metric == top]
    assert found.lr == min(tops, key=lambda one: one.loss or 0).lr == result.settings.lr
    assert yaml.safe_load(Path("out/run.yaml").read_text())["lr"] == found.lr
    # Held out are examples of the run's own draw, and none that the sweep trains on.
    [data] = {id(one): one for one in seen}.values()
    inside, outside = data.train.texts[0], data.validation["held out"].texts[0]
    lines = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    from beftkit.tasks import subsample

    whole = subsample(_split([line["text"] for line in lines]), 40, 0).texts[0]
    assert sorted([*inside, *outside]) == sorted(whole)

    def never(*_: Any) -> None:
        raise AssertionError("a run that is taken up has its rate")

    monkeypatch.setattr(rate_search, "find_rate", never)
    again = beftkit.train(
        "base", train_file="train.jsonl", lr="find", output="out", train_size=40, resume=True,
        **QUICK,
    )  # fmt: skip
    assert again.provenance is not None and again.provenance.rates == found


def _split(texts: list[str]) -> Any:
    import numpy as np

    from beftkit.tasks.data import Split

    return Split((texts,), np.zeros(len(texts), np.int64))


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A rate whose loss is not finite."""
    real = rate_search.train_with

    def train(settings: Any, **how: Any) -> Any:
        if settings.lr > 0.02:
            raise Diverged("the loss or its gradient is not finite at update 3")
        return real(settings, **how)

    monkeypatch.setattr(rate_search, "train_with", train)
    yield


def test_the_command_shows_the_curve(workplace: Path, diverging: None, beftkit: Beftkit) -> None:
    data = ["--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu"]
    command = ["train", "base", *data, "--lr", "find", "--epochs", "2", "--batch-size", "8"]
    ran = beftkit(*command, "-o", "found", "--format", "markdown")
    assert ran.code == 0, ran
    assert "held-out training examples, after" in ran.out
    rows = [line for line in ran.out.splitlines() if line.startswith(("| 0.0001", "| 0.03"))]
    assert len(rows) == 2 and rows[1].count("| - ") == 2, "a rate that diverged has no metric"
    misused(beftkit(*command, "--dry-run"), "--lr find: is known only after its sweep")
    few = [*command, "--train-size", "8", "-o", "few"]
    refused(beftkit(*few), "holds out a quarter of the training examples, and there are 8")


def test_ties_go_to_the_lower_loss() -> None:
    tried = [RateTried(1e-4, 0.5, 0.7), RateTried(1e-3, 0.8, 0.6), RateTried(1e-2, 0.8, 0.4)]
    assert rate_search._best(tried, higher=True) == tried[2]
    assert rate_search._best(tried, higher=False) == tried[0]
    assert rate_search._best([RateTried(1e-4, None, None)], higher=True) is None


DATA = ["--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu"]
COMMAND = ["train", "base", *DATA, "--lr", "find", "--epochs", "1", "--batch-size", "8", "-q"]


@pytest.mark.parametrize(
    "given, told",
    [
        (["--layers", "7"], "--layers 7: no layer 7 with a bias"),
        (["--add-bias", "v"], "--add-bias v: this model has that bias"),
        (["--bias", "none", "--freeze-head"], "--lr find: nothing here trains"),
    ],
)
def test_what_is_wrong_with_every_rate_is_said_at_the_first(
    workplace: Path, beftkit: Beftkit, given: list[str], told: str
) -> None:
    """It was taken for a rate that diverged, six times over."""
    refused(beftkit(*COMMAND, *given, "-o", "out"), told)
    assert not Path("out").exists()


def test_the_folder_is_looked_at_before_the_sweep(
    workplace: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = [*COMMAND, "--lr", "0.001", "-o", "out"]
    assert beftkit(*fixed).code == 0

    def never(*_: Any) -> None:
        raise AssertionError("no rate is tried")

    monkeypatch.setattr(rate_search, "_tried", never)
    refused(beftkit(*COMMAND, "-o", "out"), "out: holds a run")
    # A rate that was given is not one that was found.
    refused(beftkit(*COMMAND, "-o", "out", "--resume"), "begun with --lr 0.001, which no sweep")
    misused(beftkit(*COMMAND, "--epochs", "0", "-o", "new"), "with --epochs 0 nothing is trained")


def test_rates_within_noise_of_the_best_are_named(workplace: Path, beftkit: Beftkit) -> None:
    """Two standard errors of the difference of two rates, each on its own."""
    tried = [
        RateTried(1e-4, 0.5, 0.7, 0.1),
        RateTried(1e-3, 0.8, 0.6, 0.08),
        RateTried(1e-2, 0.6, 0.4, 0.1),
        RateTried(3e-2, None, None),
    ]
    found = RateSearch(1e-3, "accuracy", tuple(tried), 30, 10, 8, False)
    assert found.not_told_apart == (1e-2,), "0.3 apart is more than 2 sqrt(.1^2 + .08^2) = .256"
    ran = beftkit(*COMMAND, "-o", "out")
    assert ran.code == 0 and "Not told apart from it by " in ran.out and " ± " in ran.out
    kept = json.loads(Path("out/provenance.json").read_text())["rates"]["tried"]
    assert all(0 < one["standard_error"] < 0.5 for one in kept)


def test_a_file_of_settings_may_ask_for_it(workplace: Path, beftkit: Beftkit) -> None:
    """A rate beside it wins; what is taken up has the rate that was found."""
    given = {
        "model": "base",
        "train_file": "train.jsonl",
        "device": "cpu",
        "epochs": 1,
        "lr": "find",
    }
    Path("own.yaml").write_text(yaml.safe_dump(given))
    run = ["train", "--config", "own.yaml", "-q", "--format", "json"]
    for more, swept in ((["-o", "a"], True), (["-o", "b", "--lr", "0.001"], False)):
        ran = beftkit(*run, *more)
        assert ran.code == 0, ran
        assert (json.loads(ran.out)["provenance"]["rates"] is not None) is swept
    misused(beftkit(*run, "--dry-run"), "--lr find: is known only after its sweep")
    first = json.loads(Path("a/all_results.json").read_text())["settings"]["lr"]
    Path("a/all_results.json").unlink()
    ran = beftkit(*run, "-o", "a", "--resume")
    assert ran.code == 0 and json.loads(ran.out)["settings"]["lr"] == first
    assert "rate 1 of" not in beftkit(*run[:3], "-o", "a", "--resume").err
