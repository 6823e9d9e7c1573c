"""The tiny model and its task, made once, and the folders that tests of training work in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny_run
from tests.command import tree


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``base`` with its tokenizer, ``train.jsonl``, ``dev.jsonl``: to be read, never written."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_run.write_base(folder / "base")
    tiny_run.write_task(folder)
    before = tree(folder)
    yield folder
    assert tree(folder) == before, "a test wrote into what all share"


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the runs of one module: the shared ``base``, and data of its own."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "base").symlink_to(tiny / "base")
    for path in tiny.glob("*.jsonl"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def workplace(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of one test, with links to all that is in ``place``."""
    tiny_run.link(place, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same of what a module's own fixture ``made`` has made."""
    tiny_run.link(made, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    """No task's data are to be had; what is said of that."""
    from beftkit.errors import Unreachable
    from beftkit.tasks import hub_tables

    said = "nyu-mll/glue rte: the hub cannot be reached"

    def read(*_: object, **__: object) -> None:
        raise Unreachable(f"{said}; give a local copy with --data-dir")

    monkeypatch.setattr(hub_tables, "read_hub", read)
    return said
