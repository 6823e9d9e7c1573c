"""What a merged classifier's classes are called, and heads that are none over a whole text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.errors import BeftError
from tests.merging import SIZES, draw

peft = pytest.importorskip("peft")
MULTI = "multi_label_classification"


def base(folder: Path, kind: str = "SequenceClassification", **config: Any) -> Any:
    """A drawn BERT with a head of its own, and a tokenizer beside it."""
    sizes = {name: one for name, one in SIZES.items() if name != "num_key_value_heads"}
    own = transformers.BertConfig(**sizes, **config)
    model = draw(getattr(transformers, f"BertFor{kind}")(own))
    model.save_pretrained(folder)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")
    transformers.BertTokenizer(vocab={word: n for n, word in enumerate(words)}).save_pretrained(
        folder
    )
    return model


def adapted(model: Any, folder: Path, task: str) -> Any:
    """PEFT's LoRA with all biases on it, drawn and saved; returns its merge."""
    config = peft.LoraConfig(task_type=task, r=1, bias="all", target_modules=["value"])
    model = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 10
    model.save_pretrained(folder)
    return model.merge_and_unload()


@pytest.mark.parametrize("several", [False, True])
def test_the_base_s_labels_are_kept(several: bool, tmp_path: Path) -> None:
    """PEFT writes no names: its own merge has the base's, and what they are to each other."""
    names = {0: "bad", 1: "so so", 2: "good"}
    options = {"id2label": names, "label2id": {name: n for n, name in names.items()}}
    model = base(tmp_path / "base", problem_type=MULTI if several else None, **options)
    theirs = adapted(model, tmp_path / "adapter", "SEQ_CLS")
    found = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {str(n): name for n, name in theirs.config.id2label.items()}
    assert (config["problem_type"] == MULTI) == several
    assert found.labels == (*names.values(),)
    assert any("names no labels" in note for note in found.notes)
    if several:
        with pytest.raises(BeftError, match=MULTI):
            beftkit.load(tmp_path / "base", adapter=tmp_path / "adapter")
    else:
        answer = beftkit.load(tmp_path / "base", adapter=tmp_path / "adapter")("a b")
        assert set(answer.probabilities) == {*names.values()}


def test_an_extracted_head_of_several_labels_stays_one(tmp_path: Path) -> None:
    base(tmp_path / "pre")
    base(tmp_path / "post", num_labels=3, problem_type=MULTI)
    beftkit.extract(tmp_path / "pre", tmp_path / "post", output=tmp_path / "adapter")
    beftkit.merge(tmp_path / "pre", tmp_path / "adapter", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["problem_type"] == MULTI
    with pytest.raises(BeftError, match=MULTI):
        beftkit.load(tmp_path / "pre", adapter=tmp_path / "adapter")


@pytest.mark.parametrize(
    ("kind", "task"), [("TokenClassification", "TOKEN_CLS"), ("QuestionAnswering", "QUESTION_ANS")]
)
def test_a_head_over_tokens_is_no_classifier(kind: str, task: str, tmp_path: Path) -> None:
    adapted(base(tmp_path / "base", kind), tmp_path / "adapter", task)
    for what in (
        lambda: beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out"),
        lambda: beftkit.load(tmp_path / "base", adapter=tmp_path / "adapter"),
    ):
        with pytest.raises(BeftError, match=f"task type {task}; expected SEQ_CLS"):
            what()


def test_a_base_that_transformers_does_not_load_is_refused(tmp_path: Path) -> None:
    """The state of a compiled model in a parallel one: a merge with it would load as noise."""
    model = base(tmp_path / "base")
    adapted(model, tmp_path / "adapter", "SEQ_CLS")
    held = load_file(tmp_path / "base" / "model.safetensors")
    for before in ("module._orig_mod.", "module.", "_orig_mod."):
        whole = {before + name: one for name, one in held.items()}
        save_file(whole, tmp_path / "base" / "model.safetensors", {"format": "pt"})
        with pytest.raises(BeftError, match=f"'{before}.*which transformers does not load"):
            beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    adapted(base(tmp_path / "base"), tmp_path / "adapter", "SEQ_CLS")
    given, out = tmp_path / "base", tmp_path / "out"
    for take in (
        lambda: beftkit.merge(given, tmp_path / "adapter", out, revision="v1"),
        lambda: beftkit.export(tmp_path / "adapter", out, model=given, revision="v1"),
        lambda: beftkit.train(given, task="sst2", output=out, revision="v1"),
        lambda: beftkit.select(given, task="sst2", output=out, revision="v1"),
        lambda: beftkit.fisher_all(given, task="sst2", revision="v1"),
        lambda: beftkit.runs.evaluate(given, task="sst2", revision="v1"),
        lambda: beftkit.load(given, revision="v1"),
    ):
        with pytest.raises(BeftError, match="revision='v1': is of models on the hub"):
            take()
    assert not out.exists()
