"""The demo's model: trained for real, but small."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import beftkit
from beftkit.demo import MARKER, DemoResult, DemoSize, Language, make_demo_pair
from beftkit.errors import BeftError
from beftkit.files import umask
from tests.command import Beftkit

TINY = DemoSize(
    layers=1, hidden=16, corpus=50, pretraining_steps=4, train_examples=32, eval_examples=16,
    epochs=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return make_demo_pair(tmp_path_factory.mktemp("demo") / "out")


@pytest.mark.slow
def test_it_learns(made: DemoResult) -> None:
    assert made.majority == 0.5
    assert made.accuracy_after > 0.8 > made.accuracy_before + 0.1


@pytest.mark.slow
def test_both_sides_are_ordinary_models(made: DemoResult) -> None:
    from transformers import (
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    assert AutoModelForMaskedLM.from_pretrained(made.pre).config.model_type == "bert"
    model = AutoModelForSequenceClassification.from_pretrained(made.post)
    assert model.config.id2label == {0: "bad", 1: "good"}
    tokenizer = AutoTokenizer.from_pretrained(made.post)
    words = " ".join(Language(0).statement(1))
    assert tokenizer.unk_token_id not in tokenizer(words)["input_ids"]
    model(**tokenizer(words, return_tensors="pt"))


@pytest.mark.slow
def test_only_biases_moved(made: DemoResult) -> None:
    pre, post = (load_file(folder / "model.safetensors") for folder in (made.pre, made.post))
    shared = [name for name in pre if name.startswith("bert.") and name in post]
    assert len(shared) > 50
    for name in shared:
        equal = torch.equal(pre[name], post[name])
        assert equal != name.endswith(".bias"), name


@pytest.mark.slow
def test_the_method_sees_an_inert_key_and_a_learning_value(made: DemoResult) -> None:
    scores = beftkit.score(made.pre, made.post)
    figures = {role: score.figures["projection"] for role, score in scores.roles.items()}
    assert scores.target == "v"
    assert scores.roles["k"].inert == "yes"
    assert figures["v"] > figures["q"] > 10 * figures["k"]


@pytest.mark.slow
def test_the_selection_is_that_of_the_pair(made: DemoResult) -> None:
    scores = beftkit.score(made.pre, made.post)
    (group,) = made.selection.groups
    assert made.selection.target == scores.target == "v"
    assert set(made.selection.targets) == {"projection", "magnitude", "fisher"}
    for role, score in scores.roles.items():
        found = group.projection.roles[role]
        assert found.rank == score.rank
        assert found.score == pytest.approx(score.figures["projection"], rel=1e-4)
    saved = json.loads((made.pre.parent / "select.json").read_text())
    assert saved["targets"] == made.selection.targets
    assert str(made.pre.parent / "train.jsonl") == saved["settings"]["train_file"]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    made = [
        make_demo_pair(tmp_path / str(i), seed=seed, size=TINY) for i, seed in enumerate((3, 3, 4))
    ]
    assert torch.equal(before, torch.get_rng_state()), "the caller's generator is left alone"
    files = [(one.post / "model.safetensors").read_bytes() for one in made]
    assert files[0] == files[1] != files[2]


def test_a_former_demo_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_demo_pair(out, size=TINY)
    (out / "mine.txt").write_text("kept")
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("kept")
    listed = json.loads((out / "manifest.json").read_text())
    listed["files"].append("post/stale.txt")
    (out / "manifest.json").write_text(json.dumps(listed))
    (out / "post" / "stale.txt").write_text("listed, and made no more")
    make_demo_pair(out, seed=1, size=TINY)
    record = json.loads((out / MARKER).read_text())
    assert record["seed"] == 1 and record["schema_version"] == 2
    assert sorted(path.name for path in out.iterdir()) == [
        MARKER, "manifest.json", "mine.txt", "notes", "post", "pre", "select.json", "train.jsonl",
        "validation.jsonl",
    ]  # fmt: skip
    assert not (out / "post" / "stale.txt").exists()
    for path in out.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(BeftError, match="not a former demo"):
        make_demo_pair(other, size=TINY)
    assert (other / "thesis.txt").read_text() == "precious"
    (out / "pre" / "thesis.txt").write_text("precious")
    with pytest.raises(BeftError, match=r"pre/thesis.txt: would be replaced, but manifest.json"):
        make_demo_pair(out, size=TINY)
    (out / "manifest.json").unlink()
    with pytest.raises(BeftError, match=r"holds a demo without manifest.json"):
        make_demo_pair(out, size=TINY)
    (out / MARKER).write_text("{}")
    with pytest.raises(BeftError, match="not a former demo"):
        make_demo_pair(out, size=TINY)
    assert (out / "pre" / "thesis.txt").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BeftError, match="is a file"):
        make_demo_pair(tmp_path / "file", size=TINY)
    with pytest.raises(BeftError, match="cannot be made"):
        make_demo_pair(tmp_path / "file" / "below", size=TINY)


def test_nothing_is_left_of_a_run_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("beftkit.demo._write_examples", fail)
    with pytest.raises(KeyboardInterrupt):
        make_demo_pair(tmp_path / "out", size=TINY)
    assert list(tmp_path.iterdir()) == []


TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"```(sh|python|text)\n(.*?)```", re.S)


def words_of(line: str) -> list[str]:
    """A line's words; figures differ from machine to machine, and roles change places by them."""
    return re.sub(r"[\d.]+(e-\d+)?", "0", line.replace("─", "")).split()


def holds(line: str, shown: str) -> bool:
    """Whether a line printed has what is shown of it, columns left out."""
    rest = iter(words_of(line))
    return all(word in rest for word in words_of(shown))


@pytest.mark.slow
def test_the_tutorial(
    made: DemoResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beftkit: Beftkit
) -> None:
    """Its blocks run as they stand, and print what it shows."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made.pre.parent, "beftkit-demo")
    names: dict[str, Any] = {}
    printed, blocks = "", BLOCK.findall(TUTORIAL.read_text("utf-8"))
    assert {kind for kind, _ in blocks} == {"sh", "python", "text"}
    for kind, text in blocks:
        if kind == "text":
            for shown in text.splitlines():
                assert any(holds(line, shown) for line in printed.splitlines()), (shown, printed)
            continue
        printed = ""
        if kind == "python":
            with redirect_stdout(StringIO()) as out:
                exec(text, names)
            printed = out.getvalue()
        for line in text.replace("\\\n", " ").splitlines() if kind == "sh" else ():
            if line == "beftkit demo":
                continue  # it was run for this file
            if line.startswith("beftkit "):
                ran = beftkit(*shlex.split(line)[1:])
                assert ran.code == 0, ran
                printed += ran.out + ran.err
            else:
                done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True)
                assert done.returncode == 0, done
                printed += done.stdout
    assert names["labels"] == ["bad", "good"] and "good" in printed
