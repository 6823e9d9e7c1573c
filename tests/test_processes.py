"""Two processes train what one does, take up what they left, and none waits for a dead one.

They are forked with what torchrun sets (`tests/forked.py`); one test goes through torchrun itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import saved_states, tiny_run
from tests.command import Beftkit
from tests.forked import Command, start_pair, until

pytestmark = pytest.mark.slow

DATA = ("train", "base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl",
        "--device", "cpu", "--batch-size", "8", "--accumulation", "2", "--lr", "1e-2")  # fmt: skip
RUN = (*DATA, "--bias", "q,v", "--epochs", "10", "--schedule", "linear", "--warmup", "5",
       "--track-steps", "1", "--eval-steps", "3", "--save-steps", "1", "--keep", "best",
       "--save-snapshots")  # fmt: skip
UPDATES = 40
#: without dropout, whose masks no two processes can draw as one does
EQUAL = ("train", "still", *DATA[2:6], *DATA[8:], "--bias", "q,v", "--epochs", "4",
         "--schedule", "linear", "--warmup", "3", "--eval-steps", "3",
         "--log-steps", "1")  # fmt: skip
#: 57 examples: the last batch of an epoch is one, of which the second process has nothing
TRAIN, VALIDATION = 57, 31


@pytest.fixture(scope="module", autouse=True)
def pair(place: Path) -> None:
    """In ``pair``: trained by two, uninterrupted; ``still`` is ``base`` (dropout 0.1) with none."""
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    tiny_run.write_base(place / "still", **none)
    tiny_run.write_task(place, train=TRAIN, validation=VALIDATION)
    run_pair(place, *RUN, "-o", "pair")


def run_pair(folder: Path, *arguments: str, before: Sequence[Any] = (None, None)) -> list[str]:
    """Run two processes to a good end; returns what each said."""
    pair = start_pair(folder, arguments, before)
    codes = [command.wait() for command in pair]
    said = [command.said for command in pair]
    assert codes == [0, 0], said
    return said


def report_writing() -> None:
    """Say on stderr whatever this process makes or changes in the run's folder; it has no GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def heard(event: str, given: tuple[Any, ...]) -> None:
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate"):
            return
        path = os.fsdecode(given[0]) if isinstance(given[0], str | bytes | os.PathLike) else ""
        reading = event == "open" and not (given[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if "two" in Path(path).parts and not reading:
            os.write(2, f"wrote {event} {path}\n".encode())

    sys.addaudithook(heard)


def test_two_processes_train_what_one_does(place: Path) -> None:
    """Without a device named, on a machine without a GPU."""
    one = Command(place, [*EQUAL, "-o", "one"], environment={"CUDA_VISIBLE_DEVICES": ""})
    assert one.wait() == 0, one.said
    first, second = run_pair(place, *EQUAL, "-o", "two", before=(report_writing, report_writing))
    assert "wrote os.rename" in first and "wrote open two/log.jsonl" in first
    assert second == ""  # writes nothing, says nothing

    difference = saved_states.largest_difference(place / "one", place / "two")
    print(f"\ntrained values of two processes and of one differ by at most {difference:.1e}")
    assert 0 < difference < 1e-5
    lines = [saved_states.log(place / name) for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) > 20
    for alone, together in zip(*lines, strict=True):
        assert alone.keys() == together.keys()
        if "metrics" in alone:  # every example once, in whichever process
            assert alone["metrics"] == together["metrics"]
            assert alone["examples"] == together["examples"] == VALIDATION
        for key in {"loss", "grad_norm"} & alone.keys():
            assert together[key] == pytest.approx(alone[key], rel=1e-4 if key != "loss" else 1e-5)


def test_an_evaluation_by_two_counts_every_example_once(place: Path) -> None:
    arguments = ["evaluate", "--adapter", "pair/adapter", "--validation-file", "dev.jsonl",
                 "--batch-size", "4", "--device", "cpu", "--format", "json"]  # fmt: skip
    alone = Command(place, arguments)
    assert alone.wait() == 0, alone.said
    pair = start_pair(place, arguments)
    assert [command.wait() for command in pair] == [0, 0], [command.said for command in pair]
    expected, found = (json.loads(one.out.read_text()) for one in (alone, pair[0]))
    assert found["metrics"] == expected["metrics"]
    assert found["examples"] == expected["examples"] == VALIDATION
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert pair[1].out.read_text() == ""


def test_a_bias_is_not_chosen_by_several(
    place: Path, monkeypatch: pytest.MonkeyPatch, beftkit: Beftkit
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = beftkit(*DATA, "--bias", "auto", "-o", "chosen")
    assert ran.code == 2 and "--bias auto: is for one process; several can share out" in ran.err
    assert not Path("chosen").exists()


def test_processes_that_are_not_connected_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Accelerate leaves them where it knows no exchange for the device: each takes all."""
    from beftkit import accelerator
    from beftkit.errors import BeftError

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerator, "_connected", lambda: True)
    with pytest.raises(BeftError, match="2 processes were started, and Accelerate connects 1"):
        accelerator.make_accelerator()


def test_nothing_to_train_is_no_failure(place: Path) -> None:
    arguments = (*DATA, "--epochs", "2", "--bias", "none", "--freeze-head", "--save-steps", "2")
    one = Command(place, [*arguments, "-o", "idle-one"])
    assert one.wait() == 0, one.said
    run_pair(place, *arguments, "-o", "idle-two")
    log = saved_states.log(place / "idle-one")
    assert log == saved_states.log(place / "idle-two")
    assert log[-1]["metrics"]
    assert saved_states.adapter(place / "idle-one") == saved_states.adapter(place / "idle-two")


def test_killed_together_or_one_by_one_they_take_up_the_run(place: Path) -> None:
    out = place / "killed"
    for victims in ((0, 1), (1,), (0,)):
        begin = saved_states.newest(out)
        pair = start_pair(place, [*RUN, "--resume", "-o", "killed"])
        assert until(lambda begin=begin: saved_states.newest(out) >= begin + 4, pair[0]), pair[
            0
        ].said
        for victim in victims:
            pair[victim].send(signal.SIGKILL)
        for command in pair:  # who lives on learns it from the closed connection
            assert command.wait(30) != 0
    assert 12 <= saved_states.newest(out) < UPDATES

    alone = Command(place, [*RUN, "--resume", "--quiet", "-o", "killed"])
    assert alone.wait() == 1
    assert alone.said == (
        "beftkit: error: killed: trained by 2 processes so far, now there are 1; dropout would "
        "differ, so resume with as many\n"
    )
    said = run_pair(place, *RUN, "--resume", "-o", "killed")[0]
    assert f"taken up at update {saved_states.newest(out)}\n" not in said
    assert "taken up at update " in said
    assert saved_states.same_runs(place / "pair", out)
    assert saved_states.snapshots(place / "pair") == saved_states.snapshots(out)
    # What came to its end needs no second process to say so.
    alone = Command(place, [*RUN, "--resume", "-o", "killed"])
    assert alone.wait() == 0 and "came to its end before" in alone.said


def test_a_signal_to_torchrun_stops_all_with_their_state_saved(place: Path) -> None:
    out = place / "torchrun"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
              "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    with (place / "torchrun.err").open("w") as err:
        agent = subprocess.Popen(
            [*launch, "-m", "beftkit", *RUN, "--epochs", "40", "-o", "torchrun"],
            cwd=place, stdout=err, stderr=err, env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )  # fmt: skip
    said = place / "torchrun.err"
    while saved_states.newest(out) < 3:
        assert agent.poll() is None, said.read_text()
        time.sleep(0.01)
    os.killpg(agent.pid, signal.SIGINT)  # as a terminal does: all of them, and torchrun tells again
    assert agent.wait(60) != 0
    text = said.read_text()
    assert "stopped; its state is saved, --output torchrun --resume takes it up\n" in text
    reached = saved_states.newest(out)
    assert 3 <= reached < 160

    pair = start_pair(place, [*RUN, "--epochs", "40", "--resume", "-o", "torchrun"])
    assert until(lambda: saved_states.newest(out) >= reached + 3, pair[0]), pair[0].said
    pair[1].send(signal.SIGTERM)  # one of them is enough
    assert [command.wait() for command in pair] == [143, 143]
    assert f"taken up at update {reached}\n" in pair[0].said


def spoil_a_gradient() -> None:
    """In the fourth update, of this process alone."""
    from beftkit.training import stepper

    plain, calls = stepper.sum_over_processes, iter(range(1, 10**6))

    def summed(accelerator: Any, tensors: list[Any]) -> None:
        if len(tensors) > 1 and next(calls) == 4:
            tensors[0][0] = float("nan")
        plain(accelerator, tensors)

    stepper.sum_over_processes = summed


def fail_in_a_batch() -> None:
    """In the third batch of this process alone."""
    from beftkit.errors import BeftError
    from beftkit.tasks import Encoded

    plain, calls = Encoded.batch, iter(range(1, 10**6))

    def batch(*given: Any, **named: Any) -> Any:
        if next(calls) == 3:
            raise BeftError("a row that only one process has")
        return plain(*given, **named)

    Encoded.batch = batch  # type: ignore[method-assign]


def test_a_bad_gradient_in_one_process_stops_both(place: Path) -> None:
    pair = start_pair(place, [*RUN, "--quiet", "-o", "bad"], (None, spoil_a_gradient))
    assert [command.wait(60) for command in pair] == [1, 1]
    for command in pair:
        assert command.said.count("\n") == 1
        assert "the loss or its gradient is not finite at update 4; try a lower" in command.said
    assert saved_states.newest(place / "bad") == 3


def test_an_error_in_one_process_keeps_no_other_waiting(place: Path) -> None:
    pair = start_pair(place, [*RUN, "--quiet", "-o", "row"], (None, fail_in_a_batch))
    assert pair[1].wait(30) == 1
    assert pair[1].said.endswith("beftkit: error: a row that only one process has\n")
    assert pair[0].wait(30) == 1


def test_a_folder_that_is_taken_is_refused_by_both(place: Path) -> None:
    pair = start_pair(place, [*RUN, "--quiet", "-o", "pair"])
    assert [command.wait(30) for command in pair] == [1, 1]
    for command in pair:
        assert command.said == (
            "beftkit: error: pair: holds a run; --resume takes it up, --overwrite replaces it\n"
        )


def look_elsewhere() -> None:
    """As on a second machine without the first one's disk."""
    os.chdir("elsewhere")


def test_a_folder_that_not_all_share_is_refused(place: Path) -> None:
    shutil.copytree(place / "pair", place / "shared")
    (place / "shared" / "all_results.json").unlink()
    (place / "elsewhere").mkdir()
    for name in ("base", "train.jsonl", "dev.jsonl"):
        (place / "elsewhere" / name).symlink_to(place / name)
    arguments = [*RUN, "--resume", "--quiet", "-o", "shared"]
    pair = start_pair(place, arguments, (None, look_elsewhere))
    assert [command.wait(30) for command in pair] == [1, 1]
    for command in pair:
        assert command.said == (
            "beftkit: error: shared: not all processes find the same state there; expected one "
            "folder that all of them share\n"
        )
