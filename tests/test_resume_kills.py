"""Runs killed with SIGKILL at random moments and taken up again, bit by bit like one that was not.

``pytest tests/test_resume_kills.py -s`` prints the table of kills.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import saved_states, tiny_run
from tests.forked import Command, until

pytestmark = pytest.mark.slow

SEED = 20
#: dropout on (BERT's own 0.1), an uneven last batch and last update, evaluations off the epochs
RUN = (
    "train", "base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl",
    "--bias", "q,v", "--epochs", "6", "--batch-size", "8", "--accumulation", "2", "--lr", "1e-2",
    "--schedule", "linear", "--warmup", "5", "--save-steps", "1", "--track-steps", "1",
    "--log-steps", "3", "--eval-steps", "4", "--keep", "best", "--save-snapshots",
    "--device", "cpu",
)  # fmt: skip
UPDATES = 60
ENDED = "too late"


@dataclass(frozen=True)
class DieIn:
    """Makes a process kill itself with SIGKILL in the midst of something.

    Attributes:
        place: of `PLACES`.
        call: which call of it.
    """

    place: str
    call: int = 1

    def __call__(self) -> None:
        from beftkit.runs import folders
        from beftkit.training import state, trainer
        from beftkit.training.journal import Journal

        owner, name, folder, half = {
            "half of run.yaml": (folders, "write_whole", None, _half_file),
            "half of a state": (state, "write_whole", None, _half_file),
            "before the renaming": (Path, "replace", "state", None),
            "after the renaming": (Path, "replace", "state", _whole),
            "half a line of the log": (Journal, "write", None, _half_line),
            "evaluation": (trainer, "evaluate_model", None, _whole),
            "half of the adapter": (Path, "replace", "adapter", _whole),
            "before the results": (folders, "write_results", None, None),
        }[self.place]
        plain, calls = getattr(owner, name), iter(range(1, 10**6))

        def dying(*given: Any, **named: Any) -> Any:
            here = folder is None or Path(given[1]).parent.name == folder
            if here and next(calls) == self.call:
                if half is not None:
                    half(plain, *given, **named)
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*given, **named)

        setattr(owner, name, dying)


def _whole(plain: Callable[..., Any], *given: Any, **named: Any) -> None:
    plain(*given, **named)


def _half_file(plain: Any, path: Path, data: bytes) -> None:
    (path.parent / ".beftkit-half").write_bytes(data[: len(data) // 2])


def _half_line(plain: Any, journal: Any, record: Any) -> None:
    with journal.path.open("a") as file:
        file.write(json.dumps(record)[:9])


def keep_every_state() -> None:
    from beftkit.training import state

    state.KEPT = 10**6


#: so many starts after the start of the process; so many updates after an update; in a place
Moment = float | tuple[int, float] | DieIn


@dataclass(frozen=True)
class Pace:
    """How fast this machine is, in seconds.

    Attributes:
        start: from the start of a process to its first update.
        update: of one update.
    """

    start: float
    update: float


def moments() -> list[Moment]:
    """28 moments to kill at: the first before anything is there, the last two after training."""
    rng = random.Random(SEED)
    middle: list[Moment] = [
        *(rng.uniform(0, 1) for _ in range(3)),
        *((rng.randint(1, 2), rng.uniform(0, 1)) for _ in range(14)),
        DieIn("half of a state", 2), DieIn("half of a state", 1), DieIn("before the renaming", 2),
        DieIn("after the renaming", 1), DieIn("half a line of the log", 3),
        DieIn("half a line of the log", 4), DieIn("evaluation"), DieIn("evaluation"),
    ]  # fmt: skip
    rng.shuffle(middle)
    last = [DieIn("half of the adapter"), DieIn("before the results")]
    return [DieIn("half of run.yaml"), *middle, *last]


def kill_at(moment: Moment, folder: Path, pace: Pace) -> tuple[str, str]:
    """Start the run or take it up, and kill it; returns where, and what it said.

    A kill by the clock may come too late, and the run's end before it: then that is where.
    """
    before = moment if isinstance(moment, DieIn) else None
    command = Command(folder, [*RUN, "--resume", "-o", "killed"], before=before)
    if isinstance(moment, DieIn):
        assert command.wait() == -signal.SIGKILL, command.said
        return f"{moment.place} ({moment.call})", command.said
    if isinstance(moment, float):
        time.sleep(moment * pace.start)
        where = f"{moment * pace.start:.3f} s after the start"
    else:
        begin = saved_states.newest(folder / "killed")
        until(lambda: saved_states.newest(folder / "killed") >= begin + moment[0], command)
        time.sleep(moment[1] * pace.update)
        where = f"{moment[1] * pace.update:.3f} s after update {begin + moment[0]}"
    command.kill()
    if command.process.exitcode == 0:
        return ENDED, command.said
    assert command.process.exitcode == -signal.SIGKILL, command.said
    return where, command.said


def test_killed_at_random_moments_a_run_comes_to_the_same_end(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(tiny / "base")
    tiny_run.write_task(tmp_path, train=150, validation=61)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    Command(tmp_path, ["--version"]).wait()  # the server has imported everything now
    begin = time.monotonic()
    command = Command(tmp_path, [*RUN, "-o", "whole"], before=keep_every_state)
    assert until(lambda: saved_states.newest(whole) > 0, command), command.said
    first = time.monotonic()
    assert command.wait() == 0, command.said
    pace = Pace(first - begin, (time.monotonic() - first) / UPDATES)
    expected = saved_states.states(whole)
    assert len(expected) == UPDATES

    table = ["| kill | when | log at | state at | taken up at | state equal |", "|---" * 6 + "|"]
    kills = 0
    for number, moment in enumerate(moments(), 1):
        held = saved_states.newest(killed)
        where, said = kill_at(moment, tmp_path, pace)
        if where == ENDED:
            shutil.rmtree(killed)
            continue
        kills += 1
        taken = "taken up at update " in said
        reached = saved_states.newest(killed)
        equal = reached == 0 or saved_states.same_state(
            saved_states.states(killed)[reached], expected[reached]
        )
        up = str(held) if taken else "-"
        table.append(
            f"| {number} | {where} | {saved_states.logged(killed)} | {reached} | {up} | {equal} |"
        )
        assert f"taken up at update {held}\n" in said if taken else True, said
        assert equal, "\n".join(table)
    print("", *table, sep="\n")
    assert kills >= 20
    assert saved_states.newest(killed) == UPDATES
    assert not (killed / "all_results.json").exists()

    command = Command(tmp_path, [*RUN, "--resume", "-o", "killed"])
    assert command.wait() == 0, command.said
    assert saved_states.same_runs(whole, killed)
    assert saved_states.snapshots(whole) == saved_states.snapshots(killed)
    assert not [*killed.rglob(".beftkit-*")], "what a kill left half-written is still there"


def test_killed_in_the_second_seed_a_run_repeats_no_first(tiny: Path, tmp_path: Path) -> None:
    tiny_run.link(tiny, tmp_path)
    arguments = [*RUN, "--seeds", "0,1", "--epochs", "2"]
    command = Command(tmp_path, [*arguments, "-o", "whole"])
    assert command.wait() == 0, command.said
    command = Command(tmp_path, [*arguments, "-o", "killed"])
    second = tmp_path / "killed" / "seed-1"
    assert until(lambda: saved_states.newest(second) >= 3, command), command.said
    command.kill()
    first = (tmp_path / "killed" / "seed-0" / "all_results.json").stat().st_mtime_ns
    command = Command(tmp_path, [*arguments, "--resume", "-o", "killed"])
    assert command.wait() == 0, command.said
    assert (tmp_path / "killed" / "seed-0" / "all_results.json").stat().st_mtime_ns == first
    for seed in ("seed-0", "seed-1"):
        assert saved_states.same_runs(tmp_path / "whole" / seed, tmp_path / "killed" / seed)
    whole, killed = (saved_states.results(tmp_path / name) for name in ("whole", "killed"))
    assert whole == killed
