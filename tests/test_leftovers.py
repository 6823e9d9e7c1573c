"""What a killed process leaves of a single file that it was writing, and who clears it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest

from beftkit.files import lives, whole_file, write_whole


def killed_while_writing(path: Path) -> Path:
    """Write a file in another process, which is killed before it is done; what it leaves."""
    child = os.fork()
    if child == 0:
        with whole_file(path) as file:
            file.write(b"half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    [left] = path.parent.glob(f".beftkit-{child}-*")
    assert left.read_bytes() == b"half of it" and not path.exists()
    return left


def test_the_next_write_clears_what_a_kill_left(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "x.json")
    write_whole(tmp_path / "x.json", b"{}")
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]


def test_nothing_else_is_cleared(tmp_path: Path) -> None:
    """Not what somebody writes, here or on another machine, nor what is none of ours."""
    dead = killed_while_writing(tmp_path / "x.json").name
    number = dead.split("-")[1]
    (tmp_path / dead).rename(tmp_path / f"{dead[:-2]}zz")
    others = [".beftkit-notes", f".beftkit-{number}", f".beftkit-{number}-ab", ".beftkit-abcd1234",
              f"my.beftkit-{number}-abcd1234", f".beftkit-{number}-abcd1234.txt",
              f".beftkit-{os.getppid()}-abcd1234"]  # fmt: skip
    for name in (*others, "precious"):
        (tmp_path / name).write_text("mine")
    (tmp_path / f".beftkit-{number}-linked00").symlink_to("precious")
    (tmp_path / f".beftkit-{number}-folder00").mkdir()
    os.mkfifo(tmp_path / f".beftkit-{number}-aapipe00")
    elsewhere = tmp_path / f".beftkit-{number}-locked00"
    with elsewhere.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        before = {one.name for one in tmp_path.iterdir()}
        write_whole(tmp_path / "x.json", b"{}")
        after = {one.name for one in tmp_path.iterdir()}
    assert before - after == {f"{dead[:-2]}zz"} and after - before == {"x.json"}
    assert (tmp_path / "precious").read_text() == "mine"


def test_two_that_write_at_one_time_are_not_in_each_other_s_way(tmp_path: Path) -> None:
    """Of one process too, whose number says nothing then."""
    with whole_file(tmp_path / "y.json") as ours:
        ours.write(b"done")
        write_whole(tmp_path / "x.json", b"{}")
        [half] = tmp_path.glob(".beftkit-*")
        shutil.copy(half, half.with_name(f"{half.name[:-2]}zz"))  # a former one's of that number
        write_whole(tmp_path / "x.json", b"{}")
        assert [*tmp_path.glob(".beftkit-*")] == [half]
    assert (tmp_path / "y.json").read_bytes() == b"done"
    assert len([*tmp_path.iterdir()]) == 2


def test_where_there_are_no_locks_nothing_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = killed_while_writing(tmp_path / "x.json")

    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    write_whole(tmp_path / "x.json", b"{}")
    assert left.exists() and (tmp_path / "x.json").read_bytes() == b"{}"


def test_a_file_that_was_taken_for_a_leftover_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may come between its making and its lock."""
    lock, taken = fcntl.flock, [True]

    def late(descriptor: int, how: int) -> None:
        if taken.pop() if taken else False:
            [half] = tmp_path.glob(".beftkit-*")
            half.unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_whole(tmp_path / "x.json", b"{}")
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]


def test_a_number_of_no_process_is_none_that_lives() -> None:
    assert lives(os.getpid())
    assert not lives(10**30)
