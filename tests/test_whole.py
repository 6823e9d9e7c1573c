"""One rule for all folders that are made whole: what a kill left, and what others are making."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import beftkit
from beftkit.demo import make_demo_pair
from beftkit.errors import BeftError, Refusal
from beftkit.runs import whole
from beftkit.runs.locks import occupied
from tests.command import tree
from tests.killing import killed_at

Make = Callable[[bool], Any]


@pytest.fixture(params=["extract", "average"])
def made(request: pytest.FixtureRequest, mine: Path) -> tuple[Make, Path]:
    """Something that makes an adapter at ``out``, which it did once already."""
    post, out = mine / "qwen2-post", mine / "out"
    beftkit.merge(mine / "qwen2", mine / "changed", post)

    def make(overwrite: bool) -> Any:
        more: Any = {"output": out, "overwrite": overwrite}
        if request.param == "extract":
            return beftkit.extract(mine / "qwen2", post, "v", **more)
        base = str(mine / "qwen2")
        return beftkit.average(mine / "changed", mine / "changed", base=base, **more)

    make(False)
    return make, out


def test_killed_at_any_moment_it_is_absent_or_whole(made: tuple[Make, Path]) -> None:
    make, out = made
    wanted = tree(out)
    before = {name: one for name, one in tree(out.parent).items() if not name.startswith("out")}
    assert killed_at(make, out, wanted, 12) >= 4
    make(out.exists())
    assert tree(out) == wanted and not [*out.parent.glob(".beftkit-*")]
    after = {name: one for name, one in tree(out.parent).items() if name != "out"}
    assert {k: v for k, v in after.items() if not k.startswith("out/")} == before


def test_what_a_kill_left_is_told_and_what_lives_is_let_alone(made: tuple[Make, Path]) -> None:
    make, out = made
    dead = out.with_name("out.tmp-4194304-abc")
    dead.mkdir()
    (dead / ".beftkit.lock").write_text("4194304\nhere\n")
    (dead / "adapter_config.json").write_text("{}")
    told = make(True).notes
    assert not dead.exists() and any(f"{dead}: left by a run that was killed" in n for n in told)
    wanted = tree(out)
    dead.mkdir()
    with occupied(dead), pytest.raises(Refusal, match=r"process .* writes there"):
        make(True)
    assert dead.is_dir() and tree(out) == wanted
    (dead / ".beftkit.lock").unlink(missing_ok=True)
    dead.rename(live := out.with_name(f"out.tmp-{os.getpid()}-abc"))
    with pytest.raises(Refusal, match="may still be making"):
        make(True)
    assert live.is_dir() and tree(out) == wanted


def test_two_at_one_time_are_not_in_each_other_s_way(
    made: tuple[Make, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first has all but put its folder in place."""
    make, out = made
    met: list[BaseException] = []
    came: list[Path] = []

    def second() -> None:
        try:
            make(True)
        except BeftError as error:
            met.append(error)

    plain = whole.take_place

    def take_place(work: Path, folder: Path) -> None:
        if not came:
            came.append(work)
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        plain(work, folder)

    wanted = tree(out)
    monkeypatch.setattr(whole, "take_place", take_place)
    make(True)
    assert tree(out) == wanted and len(met) == 1 and isinstance(met[0], Refusal)
    assert not [*out.parent.glob("out.tmp-*")]


def test_one_that_ends_meanwhile_is_no_error(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "out.tmp-4194304-abc").mkdir()
    plain = Path.iterdir

    def gone(self: Path) -> Any:
        if self.name.startswith("out.tmp-"):
            self.rmdir()
        return plain(self)

    monkeypatch.setattr(Path, "iterdir", gone)
    assert whole.clear_leftovers(tmp_path / "out") == []


@pytest.mark.parametrize("path", ["x\0y", "n" * 300])
def test_a_path_that_is_none(path: str, mine: Path) -> None:
    with pytest.raises(BeftError, match=re.escape("cannot be written (")):
        beftkit.average(mine / "changed", output=mine / path)


def test_a_demo_clears_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    (dead := tmp_path / "out.tmp-4194304-abc" / "made").mkdir(parents=True)
    (dead.parent / ".beftkit.lock").write_text("4194304\nhere\n")
    monkeypatch.setattr("beftkit.demo._train_and_save", full)
    with pytest.raises(BeftError, match="cannot be written"):
        make_demo_pair(tmp_path / "out")
    assert not [*tmp_path.iterdir()]
