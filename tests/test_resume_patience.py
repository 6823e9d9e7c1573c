"""Early stopping counts over a stop: patience goes on where it was, and an end stays an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit.training.trainer import Interrupted
from beftkit.watching import Unwatched
from tests import saved_states

#: the rate changes nothing, so the first evaluation (update 2) is the best, and 10 the last
SETTINGS: dict[str, Any] = {
    "train_file": "train.jsonl", "validation_file": "dev.jsonl", "device": "cpu", "epochs": 3,
    "batch_size": 8, "lr": 1e-9, "eval_steps": 2, "early_stopping": 4, "save_steps": 1,
}  # fmt: skip
END = 10


class Counted(Unwatched):
    """Knows how many updates there were."""

    steps = 0

    def advanced(self, steps: int) -> None:
        self.steps += steps


def run(name: str, stop: int = 0, **options: Any) -> int:
    """Train; returns the updates of this call."""
    watcher = Counted()
    found = api.train(
        "base", output=name, watcher=watcher, **SETTINGS, **options,
        asked_to_stop=lambda: 15 if watcher.steps == stop else 0,
    )  # fmt: skip
    assert found.runs[0].stopped_early and found.runs[0].steps == END
    return watcher.steps


@pytest.fixture(autouse=True)
def whole(workplace: Path) -> None:
    """In ``whole``: a run that nobody stopped."""
    assert run("whole") == END


def test_patience_goes_on_where_it_was(workplace: Path) -> None:
    for stop, resume in ((5, False), (4, True)):
        with pytest.raises(Interrupted):
            run("out", stop, resume=resume)
    assert run("out", resume=True) == 1
    assert saved_states.same_runs(workplace / "whole", workplace / "out")


def test_a_run_out_of_patience_trains_no_further(workplace: Path) -> None:
    """Killed after its last update and before its results."""
    ended = workplace / "whole"
    expected = saved_states.results(ended), saved_states.log(ended)
    (ended / "all_results.json").unlink()
    assert run("whole", resume=True) == 0
    assert (saved_states.results(ended), saved_states.log(ended)) == expected
