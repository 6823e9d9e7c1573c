"""`bench/gpu.py` runs, keeps its time, says what it left out; on a CPU with a tiny model here."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import torch  # noqa: E402  (before a fork, which then begins at once)

from beftkit.watching import told  # noqa: E402
from bench import gpu, gpu_fisher, gpu_goals, gpu_process, gpu_programs, gpu_rows  # noqa: E402


@pytest.mark.slow
def test_dry(tmp_path: Path) -> None:
    only = "trainer-fp32,floor,fisher"
    done = subprocess.run(
        [sys.executable, "bench/gpu.py", "--dry", "--only", only, "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "gpu-cpu-dry.csv").open() as file:
        found = {(row["row"], row["figure"]): row["value"] for row in csv.DictReader(file)}
    assert not [row for row, figure in found if figure in ("failed", "skipped")], done.stdout
    assert float(found["trainer-fp32", "epochs run"]) == 3
    assert float(found["floor", "fp32 step ms"]) > 0
    assert float(found["fisher", "ours s"]) > 0
    # No difference of two: a pass is a part of the call it was timed in.
    assert 0 < float(found["fisher", "ours, pass s"])
    assert float(found["trainer-fp32", "before s"]) > 0
    assert "| Trainer, biases, fp32 |" in (tmp_path / "gpu-cpu-dry.md").read_text()


def test_epochs_that_did_not_fit(tmp_path: Path) -> None:
    (tmp_path / "data" / "SST-2").mkdir(parents=True)
    (tmp_path / "data" / "SST-2" / "train.tsv").write_text("sentence\tlabel\n" + "a\t0\n" * 33)
    place = gpu_rows.Place(tmp_path, "cpu", tmp_path, 16, False)
    found = gpu_rows.course([(9.0, 1.0), (3.0, 0.5), (2.0, 0.4), (2.0, 0.4)], place, 5.0)
    assert (found["before s"], found["first epoch s"]) == (5.0, 9.0)
    assert found["all epochs s"] == 9 + 3 + 2 + 2 + 12 * 2.0
    assert found["step ms"] == pytest.approx(1e3 * (2.0 - 0.4) / 3)


class Clock:
    """Seconds that pass where a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_epoch_begins_with_its_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the run is called: loading went into the first epoch where it was not "train"."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    laps = gpu_rows.Laps(1e9)
    clock.now += 5
    laps.started("sst2, bias v", 126, 0)
    for train, evaluation in ((2.0, 0.5), (1.0, 0.25)):
        clock.now += train
        laps.logged({"step": 63, "lr": 1e-3, "examples_per_second": 9.0})
        clock.now += evaluation
        laps.logged({"step": 63, "metrics": {"accuracy": 0.5}})
    assert laps.before == 5.0
    assert laps.each == [(2.5, 0.5), (1.25, 0.25)]


def test_passes_are_timed_after_all_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    passes = gpu_fisher.Passes(torch.device("cpu"), lambda count: [*range(count)])
    met: set[int] = set()
    planned = passes.plan(3)
    for batch in told(passes, planned):
        clock.now += 0.5 if batch in met else 9.0
        met.add(batch)
    assert len(planned) == 3 * gpu_fisher.ROUNDS
    assert passes.each == pytest.approx(1.5)


def test_goals_of_what_there_is() -> None:
    rows = {
        "ours-fp32": {"all epochs s": 2.0, "step ms": 11.0},
        "trainer-fp32": {"all epochs s": 7.0},
        "floor": {"fp32 step ms": 10.0, "tf32 step ms": "no time"},
        "fisher": {"failed": "no memory"},
    }
    assert gpu.goals(rows) == [
        ("16 epochs over Trainer, fp32", "3x", "3.50x"),
        ("a step of the captured floor's, fp32", "1.15x", "1.10x"),
    ]


def test_what_tests_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one process or several, whole or cut off; and the files are those with GPU tests."""
    files = gpu_programs.gpu_tests()
    assert {"tests/test_graphs_gpu.py", "tests/test_kernels_squares.py"} <= {*files}
    assert "tests/test_widths.py" not in files and len(files) < 30
    shared = """
[gw0] [  5%] PASSED tests/test_a.py::test_one[a b]
tests/test_a.py::test_two
[gw1] [ 10%] FAILED tests/test_a.py::test_two
FAILED tests/test_a.py::test_two - assert 1 == 2
stopped after 60 s
"""
    alone = """
tests/test_a.py::test_one[a b] PASSED                  [ 50%]
tests/test_a.py::test_two SKIPPED (needs a device)     [100%]
"""
    place = gpu_rows.Place(tmp_path, "cpu", tmp_path, 16, False)
    monkeypatch.setattr(gpu_programs, "output", lambda *_: (shared, 1))
    assert gpu_programs.tests(place, 60.0) == {
        "passed": 1, "failed": 1, "cut off": "after 60 s", "red 1": "tests/test_a.py::test_two",
    }  # fmt: skip
    monkeypatch.setattr(gpu_programs, "output", lambda *_: (alone, 0))
    assert gpu_programs.tests(place, 60.0) == {"passed": 1, "skipped": 1}


def sleeps(place: gpu_rows.Place, seconds: float) -> dict[str, Any]:
    """Begins a program, and does not end."""
    begun = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    (place.out / "pid").write_text(str(begun.pid))
    time.sleep(99)
    return {}


def test_a_row_that_takes_too_long_is_ended_with_all_it_began(tmp_path: Path) -> None:
    place = gpu_rows.Place(tmp_path, "cpu", tmp_path, 16, True)
    row = gpu.Row("sleeps", "", sleeps, 1)
    begin = time.monotonic()
    assert gpu_process.measure(row, place, 1, 2.0, True) == {"failed": "killed after 2 s"}
    assert time.monotonic() - begin < 20
    state = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
    broken = gpu.Row("broken", "", lambda *_: {"a": 1 / 0}, 1)
    found = gpu_process.measure(broken, place, 1, 60, True)
    assert found == {"failed": "ZeroDivisionError: division by zero"}


def test_a_row_begun_anew_is_told_the_same(tmp_path: Path) -> None:
    place = gpu_rows.Place(tmp_path, "cpu", tmp_path / "out", 16, True)
    assert gpu_process.place_of(json.dumps(vars(place), default=str)) == place


def test_open_is_what_goals_need() -> None:
    """Nothing that was asked of training and Fisher is left open by ``--only open``."""
    there = gpu.all_rows(True)
    rows = gpu.chosen_rows(there, "open")
    names = {row.name for row in rows}
    assert {name for goal in gpu_goals.GOALS for name in goal[2:4]} | {"floor", "fisher"} == names
    assert sum(row.seconds for row in rows) < 150
    assert [row.name for row in gpu.chosen_rows(there, "tests,ours-bf16")] == ["ours-bf16", "tests"]
    assert "ours-tf32" not in {row.name for row in gpu.all_rows(True, tf32=False)}
    with pytest.raises(SystemExit, match="no row nothing; there are open, "):
        gpu.chosen_rows(there, "open,nothing")


def test_a_program_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = gpu_rows.Place(tmp_path, "cpu", tmp_path, 16, True)
    late = [sys.executable, "-c", "import time; print('row', flush=True); time.sleep(99)"]
    said, status = gpu_programs.output(late, 2.0, tmp_path / "late.txt")
    assert (said.split("\n")[-2], status) == ("stopped after 2 s", 0)
    command = [sys.executable, "-c", "print('first'); raise SystemExit('needs a device')"]
    found = gpu_programs.output(command, 60, tmp_path / "said.txt")
    assert found == ("first\nneeds a device\n", 1)
    monkeypatch.setattr(gpu_programs, "output", lambda *_: found)
    assert gpu_programs.kernels(place, 60)["failed"] == "needs a device"
