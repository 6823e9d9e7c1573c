"""Python that a model's folder brings is never run, nor asked about, unless it was allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_run
from tests.command import Beftkit, refused

CONFIGURATION = """
open('RAN', 'a').write('configuration')
from transformers import BertConfig
class C(BertConfig):
    model_type = 'mine'
"""
MODELLING = """
open('RAN', 'a').write('modelling')
from transformers import BertForSequenceClassification
from .configuration_my import C
class M(BertForSequenceClassification):
    config_class = C
"""
TOKENIZER = """
open('RAN', 'a').write('tokenizer')
from transformers import BertTokenizer
class T(BertTokenizer):
    pass
"""


def change(path: Path, **values: Any) -> None:
    """Entries of a JSON file; None: without it."""
    changed = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: one for key, one in changed.items() if one is not None}))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose configuration and class are code beside it."""
    folder = tiny_run.write_base(tmp_path / "mine")
    (folder / "configuration_my.py").write_text(CONFIGURATION)
    (folder / "modeling_my.py").write_text(MODELLING)
    names = {
        "AutoConfig": "configuration_my.C",
        "AutoModelForSequenceClassification": "modeling_my.M",
    }
    change(folder / "config.json", model_type="mine", auto_map=names)
    tiny_run.write_task(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


COMMANDS = {
    "train": ("--train-file", "train.jsonl", "-o", "out"),
    "dry-run": ("--train-file", "train.jsonl", "--dry-run"),
    "evaluate": ("--validation-file", "dev.jsonl"),
    "fisher": ("--train-file", "train.jsonl"),
    "select": ("--train-file", "train.jsonl", "-o", "out"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_named_and_not_run(mine: Path, command: str, beftkit: Beftkit) -> None:
    ran = beftkit("train" if command == "dry-run" else command, "mine", *COMMANDS[command], "-q")
    refused(ran, "mine: its model is of a kind of its own, whose configuration_my.py, modeling_my.")
    assert "--trust-remote-code" in ran.err
    assert not Path("RAN").exists()


def test_nobody_is_asked(mine: Path) -> None:
    """Not even where somebody would answer."""
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-m", "beftkit", "train", "mine", *COMMANDS["dry-run"], "-q"],
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'kernels'}"},
        input="y\n", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1 and "y/N" not in ran.stdout, ran
    assert not Path("RAN").exists()


def test_a_tokenizers_code(mine: Path, beftkit: Beftkit) -> None:
    change(mine / "config.json", model_type="bert", auto_map=None)
    (mine / "tokenization_my.py").write_text(TOKENIZER)
    for name in ("tokenizer.json", "vocab.txt"):
        (mine / name).unlink(missing_ok=True)
    change(
        mine / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_my.T", None]},
        tokenizer_class="T",
    )
    ran = beftkit("train", "mine", *COMMANDS["train"], "-q")
    assert ran.code == 1 and ran.err.count("\n") == 1, ran
    assert not Path("RAN").exists()


def test_a_known_kind_needs_none(mine: Path, beftkit: Beftkit) -> None:
    change(mine / "config.json", model_type="bert")
    assert beftkit("train", "mine", *COMMANDS["dry-run"]).code == 0
    assert not Path("RAN").exists()


def test_it_is_run_where_that_was_allowed(mine: Path, beftkit: Beftkit) -> None:
    given = (*COMMANDS["train"], "--epochs", "1", "--device", "cpu", "--trust-remote-code")
    ran = beftkit("train", "mine", *given)
    assert ran.code == 0, ran
    assert (
        "its own code is run (--trust-remote-code): configuration_my.py, modeling_my.py" in ran.err
    )
    assert {"configuration", "modelling"} <= {
        word for word in ("configuration", "modelling") if word in Path("RAN").read_text()
    }
    assert "auto_map" in beftkit("train", "--help").out
