"""Results are plain typed fields: no mapping that code reads by string keys, and JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import beftkit.diff
import beftkit.inspection
import beftkit.objectives.answers
import beftkit.runs.evaluating
import beftkit.runs.exporting
import beftkit.runs.planning
import beftkit.runs.results
import beftkit.runs.timing
import beftkit.scores
import beftkit.selection.certainty
import beftkit.selection.planning
import beftkit.selection.ranks
import beftkit.selection.results
import beftkit.training.evaluation
import beftkit.training.journal
from beftkit.files import from_plain
from beftkit.runs.results import Run, TrainResult
from beftkit.scores import METHODS, Identity, best_first, contenders
from beftkit.selection.cells import Cell
from beftkit.selection.results import CellResult, CellRun, ProbeRun, Selection
from beftkit.settings import TrainSettings
from beftkit.training.evaluation import Evaluated
from beftkit.training.journal import Progress
from tests.selections import selection

HOMES: Mapping[ModuleType, str | None] = {
    beftkit.runs.timing: "Pace RunTime Timing",
    beftkit.selection.planning: "CellPlan SelectPlan",
    beftkit.selection.results: None, beftkit.selection.ranks: None,
    beftkit.selection.certainty: None, beftkit.scores: None,
    beftkit.runs.results: None, beftkit.inspection: None, beftkit.training.evaluation: None,
    beftkit.diff: "Comparison", beftkit.runs.evaluating: "EvaluationResult",
    beftkit.runs.exporting: "ExportResult", beftkit.objectives.answers: "Answer",
    beftkit.runs.planning: "Plan RunPlan FisherPlan", beftkit.training.journal: "Progress",
}  # fmt: skip


def results() -> Iterator[type]:
    for home, only in HOMES.items():
        for name, kind in vars(home).items():
            if (
                isinstance(kind, type)
                and is_dataclass(kind)
                and (only is None or name in only.split())
            ):
                yield kind


def parts(kind: Any) -> Iterator[Any]:
    yield kind
    for inner in get_args(kind):
        yield from parts(inner)


@pytest.mark.parametrize("kind", dict.fromkeys(results()), ids=lambda kind: kind.__name__)
def test_no_field_is_anything_at_all(kind: type) -> None:
    hints = get_type_hints(kind)
    for one in fields(kind):
        inside = [*parts(hints[one.name])]
        assert (Any not in inside and object not in inside) or kind.__name__ == "Selection", (
            one.name
        )
        assert Any not in inside, one.name
        assert not any(part in (dict, list, tuple, Mapping) for part in inside), one.name


def test_the_walk_finds_them() -> None:
    names = {kind.__name__ for kind in results()}
    assert {
        "Selection",
        "GroupResult",
        "CellResult",
        "TrainResult",
        "Run",
        "EvaluationResult",
        "RunPlan",
        "FisherPlan",
        "SelectPlan",
        "Timing",
        "Scores",
        "SiteScore",
        "Inspection",
        "Progress",
        "Evaluated",
    } <= names
    assert get_origin(get_type_hints(CellResult)["runs"]) is Mapping


@pytest.mark.parametrize("verify", [True, False])
def test_a_selection_comes_back(verify: bool) -> None:
    found = selection(regimes=("low", "high"), seeds=(0, 1), verify=verify)
    text = json.dumps(found.to_dict(), allow_nan=False)
    again = Selection.from_dict(json.loads(text))
    assert again == found and again.to_dict() == found.to_dict()
    assert json.dumps(again.to_dict()) == text
    assert (json.loads(text)["groups"][0]["winner"] == {}) is not verify
    for cell in found.cells:
        assert CellResult.from_dict(json.loads(json.dumps(cell.to_dict()))) == cell


def test_a_probe_stays_one() -> None:
    probe = ProbeRun("all", "p", 8, 0.1, {"f1": 0.5}, {"f1": None}, None, 3, 1.0, 2.0, 0.1,
                     family="bert", total=80, metric=None)  # fmt: skip
    found = CellResult(Cell("low", None, None, 2, 0), "cells/x", runs={"probe": probe, "v": RUN})
    plain = json.loads(json.dumps(found.to_dict()))
    assert list(plain["runs"]["probe"])[-3:] == ["family", "total", "metric"]
    assert "family" not in plain["runs"]["v"]
    assert CellResult.from_dict({**plain, "of a later version": 1}) == found


RUN = CellRun("v", "v", 8, 0.1, {}, {}, 1.5, 3, 1.0, 2.0, 0.1)


def test_a_run_and_its_progress_come_back() -> None:
    same = {"accuracy": 0.5, "f1": None}
    more = same, {"accuracy": 0.1}, False, "majority class"
    best = Evaluated(3, 0.5, {"accuracy": 0.75, "f1": None}, *more)
    run = Run(0, "out", "adapter", "beft", best, None, "last", {"v": 0.1}, 4, 1.0, False, 8,
              {"train": 0}, 1.0, 0.5, ("a note",))  # fmt: skip
    result = TrainResult(
        "m",
        "sst2",
        "v",
        "accuracy",
        8,
        2,
        100,
        TrainSettings(model="m", task="sst2", lr=0.1),
        (run,),
    )
    text = json.dumps(result.to_dict())
    again = TrainResult.from_dict(json.loads(text))
    assert again == result and json.dumps(again.to_dict()) == text
    assert json.loads(text)["runs"][0]["best"] == {
        "step": 3, "epoch": 0.5, "metrics": {"accuracy": 0.75, "f1": None},
        "baselines": {"accuracy": 0.5, "f1": None}, "standard_errors": {"accuracy": 0.1},
        "constant": False, "baseline_is": "majority class",
    }  # fmt: skip
    assert from_plain(Progress, {"step": 2, "best": vars(best)}) == Progress(step=2, best=best)


def test_results_of_before_baselines_are_still_read() -> None:
    old = {"step": 3, "epoch": 0.5, "metrics": {"accuracy": 0.75}}
    known = from_plain(Progress, {"step": 2, "best": old, "last": old})
    assert known.best == Evaluated(3, 0.5, {"accuracy": 0.75}) and not known.stayed
    assert known.best is not None and known.best.baselines == {}


def test_what_is_not_known_of_a_side_is_not_said() -> None:
    assert Identity("a", "0").to_dict() == {"path": "a", "bias_sha256": "0"}
    full = Identity("o/a", "0", "c", 10, 0, base="b").to_dict()
    assert list(full) == [
        "path",
        "bias_sha256",
        "commit",
        "bytes_fetched",
        "bytes_of_files",
        "base",
    ]


def test_one_order_for_all() -> None:
    scores = {"q": 0.2, "k": 0.9, "v": 0.2, "m1": None, "m2": 0.3}
    assert best_first(scores, {"k": "yes"}) == ["m2", "q", "v", "k", "m1"]
    assert contenders(["v", "q", "k", "m1", "x"], scores, {"k": "yes"}) == ["v", "q"]
    assert contenders(["v", "q", "k"], scores, {"k": "yes"}, allow_inert=True) == ["k", "v", "q"]
    assert set(METHODS) >= set(beftkit.selection.ranks.METHODS)
