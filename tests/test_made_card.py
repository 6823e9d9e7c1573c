"""Cards of extracted and averaged adapters: what they were made of, and code that runs."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import ModelCard

import beftkit as api
from beftkit.runs.publishing import push
from tests.adapted import same, trained
from tests.card_blocks import block
from tests.command import Beftkit, tree
from tests.hub_server import Hub
from tests.hub_uploads import UploadHub
from tests.test_extract import pair, values
from tests.tiny_models import build

pytest.importorskip("peft")
#: a folder's name that would be markup, a row of a table, a command and another line
ODD = "po|st `id` <b>\n``` $(touch x)"


def ran(code: str, blanks: dict[str, Path], **there: Any) -> Any:
    """The model that a card's Python makes or changes."""
    for word, path in blanks.items():
        code = code.replace(f'"{word}"', repr(str(path)))
    exec(compile(code, "README.md", "exec"), there)
    return there["model"]


@pytest.mark.parametrize("form", ["beft", "biases"])
def test_an_extracted_one(form: str, tmp_path: Path, beftkit: Beftkit) -> None:
    base, post = pair(tmp_path, "bert", values, num_labels=3)
    (tmp_path / "post").rename(odd := tmp_path / ODD)
    out = tmp_path / "out"
    api.extract(tmp_path / "pre", odd, "v", output=out, adapter_format=form)
    text = (out / "README.md").read_text()
    assert str(tmp_path) not in text and "`id`" not in text and "<b>" not in text
    assert text.count("```") % 2 == 0 and "po\\|st" in text
    said = ModelCard.load(out / "README.md").data.to_dict()
    assert said["tags"] == ["beft", "beftkit", "bias-tuning"] and "base_model" not in said
    assert said["pipeline_tag"] == "text-classification"
    assert said.get("library_name") == ("peft" if form == "beft" else None)
    scores = api.score(tmp_path / "pre", odd)
    for side in (scores.pre, scores.post):
        assert f"`SHA-256 of the biases {side.bias_sha256}`" in text
    assert "- Labels: 0 LABEL" in text and "were not looked at" in text
    code, blanks = block(text, "Use", "python"), {"BASE": tmp_path / "pre", "ADAPTER": out}
    got = ran(code, blanks, **({} if form == "beft" else {"model": base}))
    got = got.merge_and_unload() if form == "beft" else got
    assert same(got, post)
    command = block(text, "Made of", "sh")
    words = [{"BASE": str(tmp_path / "pre"), "POST": str(odd), "out": str(tmp_path / "again")}
             .get(word, word) for word in shlex.split(command)[1:]]  # fmt: skip
    assert beftkit(*words).code == 0
    assert tree(tmp_path / "again") == tree(out)


def test_one_of_the_hub_s(hub: Hub) -> None:
    api.extract("o/pre", "o/post@main", output="out")
    text = Path("out/README.md").read_text()
    assert ModelCard.load("out/README.md").data.to_dict()["base_model"] == "o/pre"
    assert "beftkit extract o/pre o/post@main --bias=v --adapter-format=beft -o out" in text
    assert "| after | o/post@main | `SHA-256" in text and "BASE" not in text
    assert "\nbeftkit score o/pre@" in text  # the commit that was read


def test_an_averaged_one(tmp_path: Path, beftkit: Beftkit, uploads: UploadHub) -> None:
    build("bert").save_pretrained(tmp_path / "base")
    for seed, name in enumerate(("a`*b", "c")):
        trained("bert", tmp_path / name, seed=seed, base=str(tmp_path / "base"))
    both, out = [tmp_path / "a`*b", tmp_path / "c"], tmp_path / "out"
    api.average(*both, output=out, weights=[-0.5, 2], scale=0.25)
    text = (out / "README.md").read_text()
    assert str(tmp_path) not in text and "\n# a\\`\\*b + c\n" in text
    for path, weight in zip(both, ("-0.5", "2"), strict=True):
        digest = hashlib.sha256((path / "adapter_model.safetensors").read_bytes()).hexdigest()
        assert f"weight {weight} | " in text and f"`SHA-256 {digest}`" in text
    words = shlex.split(block(text, "Made of", "sh"))[1:]
    at = {path.name: str(path) for path in both} | {"out": str(tmp_path / "again")}
    assert beftkit(*(at.get(word, word) for word in words)).code == 0
    assert tree(tmp_path / "again") == tree(out)
    assert push(out, "o/mine") == f"{uploads.url}/o/mine"
    pushed = uploads.repos["o/mine"].folder
    assert (pushed / "README.md").read_text() == text
    # Heads differ, so none is in it and there is no task.
    model = ran(block(text, "Use", "python"), {"ADAPTER": out}, model=build("bert"))
    assert not same(model, build("bert"))


def test_a_base_on_the_hub_is_named(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        trained("bert", tmp_path / name, seed=number, base="o/base")
    out = tmp_path / "out"
    api.average(tmp_path / "one", tmp_path / "two", output=out, head=tmp_path / "two")
    text = (out / "README.md").read_text()
    said = ModelCard.load(out / "README.md").data.to_dict()
    assert said["base_model"] == "o/base" and said["base_model_relation"] == "adapter"
    assert 'AutoModelForSequenceClassification.from_pretrained("o/base", num_labels=' in text
    assert "beftkit score o/base ADAPTER" in text and "BASE" not in text


def test_a_pooler_that_came_along_is_not_the_classifier(tmp_path: Path) -> None:
    """A masked language model has none: the card's code and the labels are the classifier's."""
    pre, post = tmp_path / "pre", tmp_path / "post"
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8, "vocab_size": 30}
    own = transformers.BertConfig(**sizes, num_attention_heads=2)
    transformers.BertForMaskedLM(own).save_pretrained(pre)
    names = {0: "no", 1: "maybe", 2: "yes"}
    options = {"id2label": names, "label2id": {name: n for n, name in names.items()}}
    model = transformers.BertForSequenceClassification.from_pretrained(pre, **options)
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.self.value.bias += 1
    model.save_pretrained(post)
    found = api.extract(pre, post, "v", output=tmp_path / "out")
    assert {"classifier", "bert.pooler.dense"} == {*found.head}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- Labels: 0 no, 1 maybe, 2 yes" in text
    code = block(text, "Use", "python")
    got = ran(code, {"BASE": pre, "ADAPTER": tmp_path / "out"})
    assert same(got.merge_and_unload(), model)
