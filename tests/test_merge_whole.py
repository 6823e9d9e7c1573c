"""A merged folder is whole or absent at every moment; from the hub as from a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import beftkit
from beftkit.errors import BeftError, Refusal
from beftkit.runs import manifest
from tests.command import tree
from tests.hub_fixtures import outside
from tests.hub_server import Hub
from tests.killing import killed_at
from tests.merging import loaded


def test_killed_at_any_moment_it_is_absent_or_whole(mine: Path) -> None:
    beftkit.merge(mine / "llama", mine / "added", mine / "out")
    wanted = tree(mine / "out")
    inputs = {name: tree(mine / name) for name in ("llama", "added")}

    def make(overwrite: bool) -> None:
        beftkit.merge(mine / "llama", mine / "added", mine / "out", overwrite=overwrite)

    left = killed_at(make, mine / "out", wanted, 20)
    assert left >= 8, "most of them left something"
    # The last one ended, or the next does; what the others left is named and cleared.
    make(True)
    assert tree(mine / "out") == wanted and not [*mine.glob("out.tmp-*")]
    assert {name: tree(mine / name) for name in inputs} == inputs


def test_what_a_kill_left_is_named_and_cleared(mine: Path) -> None:
    words = mine / "llama", mine / "added", mine / "out"
    (theirs := mine / "out.tmp-photos").mkdir()
    (alike := mine / "out.tmp-4194305-x").mkdir()
    (alike / "precious").write_text("x")
    work = mine / "out.tmp-4194304-abc"
    work.mkdir()
    (work / ".beftkit.lock").write_text("4194304\nhere\n")
    os.link(mine / "llama" / "config.json", work / "linked")
    found = beftkit.merge(*words)
    assert not work.exists() and theirs.is_dir() and (alike / "precious").exists()
    assert any(f"{work}: left by a run that was killed; cleared" in one for one in found.notes)
    assert any("out.tmp-4194305-x: is called as ours are" in one for one in found.notes)
    assert (mine / "llama" / "config.json").is_file()
    # Killed while the former was out of its place.
    former = mine / "out.tmp-4194304-abc-former"
    (mine / "out").rename(former)
    with pytest.raises(BeftError, match="holds a model that was merged"):
        beftkit.merge(*words)
    assert (mine / "out").is_dir() and not former.exists()
    # A process that lives.
    from beftkit.runs.locks import occupied

    work.mkdir()
    with occupied(work), pytest.raises(Refusal, match=r"process .* writes there"):
        beftkit.merge(*words, overwrite=True)
    (live := mine / f"out.tmp-{os.getpid()}-abc").mkdir()
    manifest.begin(live)
    with pytest.raises(Refusal, match="may still be making"):
        beftkit.merge(*words, overwrite=True)


def test_a_base_on_the_hub(bases: Path, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    for path in (bases / "llama").iterdir():
        shutil.copy(path, tmp_path / "llama")
    (tmp_path / "llama" / "tokenizer.json").write_text("{}")
    hub.add("o/llama", tmp_path / "llama", "v1")
    adapter = shutil.copytree(bases / "added", tmp_path / "added")
    near = beftkit.merge(tmp_path / "llama", adapter, tmp_path / "near")
    far = beftkit.merge("o/llama", adapter, tmp_path / "far", revision="v1", link=True)
    assert any("no hard link can be made" in note for note in far.notes)
    skip = ("README.md",)
    ours, theirs = (
        {name: one for name, one in tree(tmp_path / name_).items() if name not in skip}
        for name_ in ("far", "near")
    )
    assert ours == theirs and near.added == far.added
    card = (tmp_path / "far" / "README.md").read_text()
    assert "base_model: o/llama" in card
    found = beftkit.merge(tmp_path / "llama", adapter, tmp_path / "own", tokenizer="o/pre")
    assert "tokenizer.json" in found.files, "that one has no tokenizer: the base's stays"
    (tmp_path / "repos" / "pre" / "tokenizer.json").write_text('{"model": 1}')
    found = beftkit.merge(tmp_path / "llama", adapter, tmp_path / "hers", tokenizer="o/pre")
    assert (tmp_path / "hers" / "tokenizer.json").read_text() == '{"model": 1}'
    assert "the one that was given" in str(found.notes)
    ran = outside(hub, tmp_path / "home", "merge", "o/llama", adapter, "-o", tmp_path / "third")
    assert ran.code == 0 and loaded(tmp_path / "third")


def test_a_hub_s_sizes_are_looked_at_before(
    bases: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/qwen2", bases / "qwen2")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BeftError, match="make room"):
        beftkit.merge("o/qwen2", bases / "changed", tmp_path / "out")
    assert hub.served("model.safetensors") < 10_000
