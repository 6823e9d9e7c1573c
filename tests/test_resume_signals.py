"""SIGINT and SIGTERM save a run's state and end it; a second signal ends it at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import saved_states, tiny_run
from tests.forked import Command, until

pytestmark = pytest.mark.slow

RUN = (
    "train", "base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl",
    "--epochs", "4", "--batch-size", "8", "--accumulation", "2", "--lr", "1e-2",
    "--schedule", "linear", "--track-steps", "2", "--log-steps", "1", "--eval-steps", "3",
    "--device", "cpu",
)  # fmt: skip
TAKE_UP = "stopped; its state is saved, --output out --resume takes it up\n"


@pytest.fixture(scope="module", autouse=True)
def whole(place: Path) -> None:
    """In ``whole``: a run that nobody stopped."""
    tiny_run.write_task(place, train=150, validation=31)
    command = Command(place, [*RUN, "-o", "whole"])
    assert command.wait() == 0, command.said


def test_stopped_twice_a_run_comes_to_the_same_end(place: Path) -> None:
    out = place / "out"
    real = subprocess.Popen(
        [sys.executable, "-m", "beftkit", *RUN, "-o", "out"],
        cwd=place, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while saved_states.logged(out) < 3:
        assert real.poll() is None, real.communicate()
        time.sleep(0.001)
    real.send_signal(signal.SIGINT)
    printed, said = real.communicate(timeout=60)
    assert real.returncode == 130
    assert said.endswith(TAKE_UP) and "Traceback" not in said
    assert printed == ""
    first = saved_states.newest(out)
    assert first >= 3

    command = Command(place, [*RUN, "--resume", "-o", "out"])
    assert until(lambda: saved_states.logged(out) >= first + 2, command), command.said
    command.send(signal.SIGTERM)
    assert command.wait() == 143
    assert command.said.endswith(TAKE_UP) and f"taken up at update {first}\n" in command.said
    assert saved_states.newest(out) >= first + 2

    command = Command(place, ["train", "--resume", "-o", "out"])  # run.yaml knows the rest
    assert command.wait() == 0, command.said
    assert saved_states.same_runs(place / "whole", out)
    command = Command(place, ["train", "--resume", "-o", "out", "--format", "json"])
    assert command.wait() == 0
    assert "this run came to its end before" in command.said
    assert json.loads(command.out.read_text())["runs"][0]["steps"] == 40


def slow_evaluation() -> None:
    from beftkit.training import trainer

    def evaluate(*_: object, **__: object) -> None:
        print("evaluating", file=sys.stderr, flush=True)
        while True:
            time.sleep(0.05)

    trainer.evaluate_model = evaluate  # type: ignore[assignment]


def slow_loading() -> None:
    from beftkit.runs import training

    def load(*_: object, **__: object) -> None:
        print("loading", file=sys.stderr, flush=True)
        time.sleep(60)

    training.prepare = load  # type: ignore[assignment]


def test_a_second_signal_ends_a_run_at_once(place: Path) -> None:
    command = Command(place, [*RUN, "-o", "twice"], before=slow_evaluation)
    assert until(lambda: "evaluating" in command.said, command), command.said
    command.send(signal.SIGINT)
    time.sleep(0.3)
    assert command.running
    command.send(signal.SIGTERM)
    assert command.wait(10) == 143
    assert "saved" not in command.said and "Traceback" not in command.said
    assert saved_states.newest(place / "twice") == 0


def test_a_signal_before_training_ends_it_at_once(place: Path) -> None:
    command = Command(place, [*RUN, "-o", "early"], before=slow_loading)
    assert until(lambda: "loading" in command.said, command), command.said
    command.send(signal.SIGINT)
    assert command.wait(10) == 130
    assert "Traceback" not in command.said
    assert not (place / "early").exists()


def test_the_folder_in_a_configuration_file_is_named(place: Path) -> None:
    (place / "own.yaml").write_text("output: out-by-file\nsave_steps: 1\n")
    command = Command(place, [*RUN, "--config", "own.yaml"])
    assert until(lambda: saved_states.newest(place / "out-by-file") > 0, command), command.said
    command.send(signal.SIGINT)
    assert command.wait() == 130
    assert "--output out-by-file --resume takes it up" in command.said
