"""Two processes never write in one folder, and a lock ends with whoever holds it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from beftkit.errors import BeftError, Refusal
from beftkit.runs.locks import LOCK, check_free, occupied
from tests import saved_states
from tests.command import Beftkit, refused, tree
from tests.forked import Command, start_pair, until

DATA = ("base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu",
        "--batch-size", "8", "--lr", "1e-2")  # fmt: skip
LONG = ("train", *DATA, "--bias", "v", "--epochs", "400", "--save-steps", "1", "-q")
WRITES = "writes there; wait for its end, or give another --output"


def hold(folder: Path, ready: int) -> None:
    """In a process of its own, until it is killed."""
    with occupied(folder):
        os.write(ready, b"1")
        time.sleep(600)


def forked(folder: Path) -> int:
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            hold(folder, writing)
        finally:
            os._exit(1)
    assert os.read(reading, 1) == b"1"
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_holder_is_named_and_its_death_ends_the_lock(tmp_path: Path) -> None:
    child = forked(tmp_path)
    host = socket.gethostname()
    for _ in range(2):  # asking spoils nothing
        with pytest.raises(Refusal, match=f"process {child} on {host} {WRITES[:24]}"):
            check_free(tmp_path)
    end(child)
    assert (tmp_path / LOCK).is_file()  # what is left of it holds nobody up
    with occupied(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n{host}\n"
    check_free(tmp_path)


def test_a_worker_that_lives_on_holds_no_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    if not (parent := os.fork()):
        try:
            with occupied(tmp_path):
                if not (worker := os.fork()):
                    time.sleep(600)
                os.write(writing, str(worker).encode())
                time.sleep(600)
        finally:
            os._exit(1)
    worker = int(os.read(reading, 20))
    try:
        with pytest.raises(Refusal, match=f"process {parent} "):
            check_free(tmp_path)
        end(parent)
        os.kill(worker, 0)  # lives
        check_free(tmp_path)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_forked_child_closes_the_lock_whatever_filelock_does(tmp_path: Path) -> None:
    """The versions before 4 leave it open."""
    from beftkit.runs import locks

    with occupied(tmp_path):
        more = os.open(tmp_path / LOCK, os.O_RDWR)
        if not (child := os.fork()):
            try:
                os.fstat(more)
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        os.fstat(more)
        os.close(more)
        assert locks._HELD
    assert not locks._HELD


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("999999\nHERE\n", "not among the processes here); once it is surely gone, remove"),
        ("1\nelsewhere\n", "process 1 on elsewhere writes there (another machine); once it is"),
        ("", "another process writes there; wait for its end"),
    ],
)
def test_a_stale_lock_is_explained(said: str, message: str, tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / LOCK
    path.write_text(said.replace("HERE", socket.gethostname()))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Refusal) as caught:
            check_free(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_flock_a_soft_lock_is_taken(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    with occupied(tmp_path):
        assert (tmp_path / LOCK).read_text().split()[:2] == [str(os.getpid()), socket.gethostname()]
        if not (child := os.fork()):
            try:
                check_free(tmp_path)
            except Refusal as error:
                os._exit(0 if f"process {os.getppid()} on " in str(error) else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(BeftError, match="cannot be written"), occupied(tmp_path):
        pass


@pytest.mark.slow
def test_a_second_process_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, beftkit: Beftkit
) -> None:
    monkeypatch.chdir(place)
    first = Command(place, [*LONG, "-o", "out"])
    assert until(lambda: saved_states.newest(place / "out") > 2, first), first.said
    for more in ("--resume", "--overwrite", "-q"):
        who = f"out: process {first.process.pid} on {socket.gethostname()} {WRITES}"
        refused(beftkit(*LONG, "-o", "out", more), who)
    first.kill()
    lines = saved_states.log(place / "out")
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    second = Command(place, [*LONG, "-o", "out", "--resume"])
    reached = saved_states.newest(place / "out")
    assert until(lambda: saved_states.newest(place / "out") > reached, second), second.said
    second.kill()


@pytest.mark.slow
def test_begun_at_once_one_of_two_trains(place: Path) -> None:
    run = [*LONG, "--epochs", "8", "-o", "both"]
    pair = [Command(place, run, name=name) for name in ("one", "two")]
    codes = sorted(command.wait() for command in pair)
    assert codes == [0, 1], [one.said for one in pair]
    steps = [line["step"] for line in saved_states.log(place / "both") if "lr" in line]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_selection_is_one_process_group_s(
    place: Path, monkeypatch: pytest.MonkeyPatch, beftkit: Beftkit
) -> None:
    monkeypatch.chdir(place)
    grid = ("select", *DATA, "--epochs", "100", "--seeds", "0,1", "--no-fisher", "-q", "-o", "grid")
    cells = [place / "grid" / "cells" / f"all-lr0.01-e100-seed{n}" for n in (0, 1)]
    pair = start_pair(place, grid)
    for command, cell in zip(pair, cells, strict=True):
        assert until(lambda cell=cell: saved_states.newest(cell / "probe") > 0, command)
    refused(beftkit(*grid, "--resume"), f"grid: process {pair[0].process.pid} on ")
    refused(beftkit(*grid, "--overwrite"), f"grid: process {pair[0].process.pid} on ")
    pair[0].kill()  # and the second is left alone, with a cell in hand
    before = tree(cells[0])
    refused(beftkit(*grid, "--overwrite"), f"seed1: process {pair[1].process.pid} on ")
    assert tree(cells[0]) == before
    pair[1].kill()
    ran = beftkit(*grid, "--overwrite", "--epochs", "1")
    assert ran.code == 0, ran
    assert sorted(path.name for path in (place / "grid" / "cells").iterdir()) == [
        "all-lr0.01-e1-seed0", "all-lr0.01-e1-seed1",
    ]  # fmt: skip
