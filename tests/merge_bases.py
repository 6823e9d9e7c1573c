"""Bases and adapters that tests of merged files read, made once, and a copy to be written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import tree


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``llama`` in shards with ``added``, ``qwen2`` in one file with ``changed``; to be read."""
    import transformers

    from tests.merging import SIZES, modules, write_base, write_beft

    folder = tmp_path_factory.mktemp("merge")
    llama = write_base(folder / "llama", transformers.LlamaConfig(**SIZES), max_shard_size="15KB")
    write_beft(folder / "added", llama, modules(llama, "v_proj"))
    qwen2 = write_base(folder / "qwen2", transformers.Qwen2Config(**SIZES))
    write_beft(folder / "changed", qwen2, modules(qwen2, "v_proj"))
    before = tree(folder)
    yield folder
    assert tree(folder) == before, "a test wrote into what all share"


@pytest.fixture
def mine(bases: Path, tmp_path: Path) -> Path:
    """A copy of them in the test's own folder."""
    shutil.copytree(bases, tmp_path, dirs_exist_ok=True)
    return tmp_path
