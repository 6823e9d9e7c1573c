"""An adapter that stands alone: its tokenizer, its words, the base that it belongs to."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.numpy import load_file, save_file

import beftkit
from beftkit.checkpoints import base_digest
from beftkit.errors import BeftError
from beftkit.runs import standing
from beftkit.runs.standing import Standing
from beftkit.weights import AdapterInfo, adapter_info
from tests.answering import SHORT
from tests.command import tree

TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


def train(answering: Path, output: Path, base: Path | None = None, **settings: Any) -> Any:
    given: dict[str, Any] = {"train_file": answering / "train.jsonl", **SHORT, "epochs": 1}
    result = beftkit.train(base or answering / "base", output=output, **{**given, **settings})
    return result.runs[0]


def test_what_an_adapter_says(answering: Path) -> None:
    base = answering / "base"
    for name, kind, columns in (("run", "classes", ("text",)), ("values", "values", ("a", "b"))):
        folder = answering / name / "adapter"
        said = Standing.of(adapter_info(folder))
        assert (said.kind, said.columns, said.texts) == (kind, columns, len(columns))
        assert {*said.tokenizer_files} == TOKENIZER < {path.name for path in folder.iterdir()}
        assert said.base_given == str(base) and said.base_digest == base_digest(str(base), None)
        assert said.base_is is not None and said.base_is.startswith("bert, 2 layers, ")
        assert not (folder / "config.json").exists(), "transformers takes that for a whole model"


def test_the_tokenizer_beside_it_is_the_run_s(answering: Path) -> None:
    """For transformers as well, which finds no config.json there."""
    theirs = transformers.AutoTokenizer.from_pretrained(answering / "run" / "adapter")
    own = transformers.AutoTokenizer.from_pretrained(answering / "base")
    texts = ["good film", "", "nothing known", "the plot was awful " * 20]
    for options in ({}, {"truncation": True, "max_length": 9}):
        assert theirs(texts, **options)["input_ids"] == own(texts, **options)["input_ids"]
    saved = json.loads((answering / "run" / "adapter" / "tokenizer.json").read_text())
    assert saved["truncation"] is None and saved["padding"] is None, "else cut by who loads it"


@pytest.mark.parametrize("way", ["class", "auto", "pipeline"])
def test_stock_peft_and_transformers_are_not_confused(way: str, answering: Path) -> None:
    peft = pytest.importorskip("peft")
    place = str(answering / "run" / "adapter")
    own = beftkit.load(place, device="cpu")("good film")
    if way == "pipeline":
        found = transformers.pipeline("text-classification", place, device="cpu")("good film")[0]
        assert found["score"] == pytest.approx(own.probability, abs=2e-6)
        return
    auto = {
        "auto": peft.AutoPeftModelForSequenceClassification,
        "class": transformers.AutoModelForSequenceClassification,
    }[way]
    model = auto.from_pretrained(place).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    logits = model(**tokenizer("good film", return_tensors="pt")).logits[0]
    assert logits.softmax(-1).max().item() == pytest.approx(own.probability, abs=2e-6)


def test_a_colleague_s_path(answering: Path, tmp_path: Path) -> None:
    """The base moved: what it must be is said; given by hand it is taken, if it is the one."""
    base = shutil.copytree(answering / "base", tmp_path / "mine")
    adapter = tmp_path / "adapter"
    train(answering, tmp_path / "run", base=base)
    shutil.copytree(tmp_path / "run" / "adapter", adapter)
    other = base.rename(tmp_path / "theirs")
    with pytest.raises(BeftError) as met:
        beftkit.load(adapter)
    assert f"it was given as {base} and is bert, 2 layers, " in str(met.value)
    found = beftkit.load(str(other), adapter=adapter, device="cpu")
    assert not any("may mean nothing" in note for note in found.notes)
    found = beftkit.load(str(answering / "base"), adapter=adapter, device="cpu")
    assert not any("may mean nothing" in note for note in found.notes), "the same, elsewhere"


def test_another_base_is_told(answering: Path, tmp_path: Path) -> None:
    base = shutil.copytree(answering / "base", tmp_path / "base")
    train(answering, tmp_path / "run", base=base)
    run = tmp_path / "run"
    assert beftkit.load(run, device="cpu").notes
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in tensors if name.endswith("value.bias"))
    tensors[name][0] += 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    for call in (lambda: beftkit.load(run), lambda: beftkit.export(run, tmp_path / "x")):
        with pytest.raises(BeftError, match=r"base: has changed since .* was trained on it"):
            call()
    told = beftkit.load(str(base), adapter=run, device="cpu").notes
    assert any("are not those of the base that" in note and "may mean nothing" in note
               for note in told)  # fmt: skip
    dev = answering / "dev.jsonl"
    with pytest.raises(BeftError, match="has changed since"):
        beftkit.evaluate(adapter=run, validation_file=dev, device="cpu")


def test_the_run_s_files_are_listed_and_replaced(answering: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(answering, run)
    listed = json.loads((run / "manifest.json").read_text())["files"]
    assert {f"adapter/{name}" for name in TOKENIZER} < {*listed}
    before = tree(run / "adapter")
    (run / "adapter" / "mine.txt").write_text("precious")
    train(answering, run, overwrite=True, bias="full")
    assert {path.name for path in (run / "adapter").iterdir()} == {"mine.txt"}
    train(answering, tmp_path / "again")
    assert {k: v for k, v in tree(tmp_path / "again" / "adapter").items() if k != "README.md"} == {
        k: v for k, v in before.items() if k != "README.md"
    }


class _Full:
    """A disk that takes no tokenizer."""

    def __call__(self, *_: object) -> None:
        raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("what", ["save", "move", "other", "code", "large", "reserved", "table"])
def test_a_tokenizer_never_costs_an_adapter(
    what: str, answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast
    plain = tokenizer.save_pretrained
    note = {
        "save": "its files could not be saved (", "move": "could not be written",
        "other": "saved and read back it gives other tokens", "code": "it is code of its own (",
        "large": "tokens, the model", "reserved": "it brings config.json",
        "table": "PEFT asks for the model's table of tokens",
    }[what]  # fmt: skip
    if what == "save":
        monkeypatch.setattr(tokenizer, "save_pretrained", _Full())
    elif what == "move":
        monkeypatch.setattr(standing, "move_files", _Full())
    elif what == "table":

        def none(self: Any) -> Any:
            raise NotImplementedError

        monkeypatch.setattr(
            transformers.BertForSequenceClassification, "get_input_embeddings", none
        )
    elif what == "large":
        monkeypatch.setattr(tokenizer, "__len__", lambda self: 99)
    else:

        def saved(self: Any, folder: Path, **options: Any) -> Any:
            names = plain(self, folder, **options)
            if what == "other":
                path = Path(folder) / "tokenizer.json"
                path.write_text(path.read_text().replace('"good"', '"goods"'))
            else:
                (Path(folder) / ("a.py" if what == "code" else "config.json")).write_text("{}")
            return names

        monkeypatch.setattr(tokenizer, "save_pretrained", saved)
    run = train(answering, tmp_path / "run")
    assert any(note in one for one in run.notes), run.notes
    monkeypatch.undo()
    adapter = tmp_path / "run" / "adapter"
    assert not TOKENIZER & {path.name for path in adapter.iterdir()}
    assert not [*(tmp_path / "run").glob(".beftkit-*")]
    found = beftkit.load(adapter, device="cpu")
    assert found("good film").label in ("neg", "pos")
    assert any("its tokenizer's files are gone" in one for one in found.notes) == (what == "move")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("tokenizer_files", '["../x", "/etc/passwd", "a/../../b", "adapter_config.json", 3, ""]'),
        ("tokenizer_files", "{"),
        ("tokenizer_files", "[" * 5000),
        ("base", "[1]"),
        ("columns", '{"a": 1}'),
        ("precision", "fp64"),
        ("dtype", "int8"),
    ],
)
def test_a_header_of_others_is_words(key: str, text: str) -> None:
    info = AdapterInfo("x", "beft", None, None, None, 2, {f"beftkit.{key}": text})
    assert Standing.of(info) == Standing()


def test_a_kind_of_a_later_version_is_named(answering: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(answering / "run" / "adapter", tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        said = {**file.metadata(), "beftkit.as": "os.system"}
    save_file(load_file(path), path, said)
    with pytest.raises(BeftError, match=r"of kind 'os\.system', which this version does not know"):
        beftkit.load(folder)


def test_an_adapter_of_stock_peft(answering: Path, tmp_path: Path) -> None:
    """It says nothing: classes are numbered, the base's tokenizer is taken."""
    folder = shutil.copytree(answering / "run" / "adapter", tmp_path / "adapter")
    for name in TOKENIZER:
        (folder / name).unlink()
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path), path, {"format": "pt"})
    ours = beftkit.load(answering / "run", device="cpu")("good film")
    found = beftkit.load(folder, device="cpu")
    assert found.labels == ("LABEL_0", "LABEL_1") and found.max_length == 32
    assert found("good film").probability == pytest.approx(ours.probability, abs=1e-6)
