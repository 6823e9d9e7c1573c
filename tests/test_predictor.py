"""`beftkit.load`: answers held to plain transformers and PEFT, and to what `evaluate` measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import beftkit
from beftkit.errors import BeftError, UsageError
from beftkit.objectives import Answer
from beftkit.weights import adapter_info
from tests.answering import SHORT, write_lively
from tests.tiny_classifiers import write_classifier


def dev(folder: Path) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def test_answers_are_those_that_evaluate_measured(answering: Path) -> None:
    texts, labels = dev(answering)
    run = answering / "run"
    found = beftkit.load(run, device="cpu")(texts)
    assert len({answer.label for answer in found}) == 2, "else this shows nothing"
    right = [answer.label == label for answer, label in zip(found, labels, strict=True)]
    measured = beftkit.evaluate(
        adapter=run, validation_file=answering / "dev.jsonl", device="cpu"
    ).evaluation
    assert measured.metrics["accuracy"] == pytest.approx(np.mean(right), abs=1e-12)
    given = [answer.probabilities[label] for answer, label in zip(found, labels, strict=True)]
    assert measured.loss == pytest.approx(-np.log(given).mean(), rel=1e-5)
    [result] = json.loads((run / "all_results.json").read_text())["runs"]
    assert result["last"]["metrics"]["accuracy"] == measured.metrics["accuracy"]


def test_answers_are_those_of_stock_peft(answering: Path) -> None:
    """With the tokenizer that lies beside the adapter, and nothing of ours."""
    peft = pytest.importorskip("peft")
    texts, _ = dev(answering)
    place = answering / "run" / "adapter"
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained(place, num_labels=2).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    wanted = logits.double().softmax(-1).numpy()
    found = beftkit.load(adapter=place, device="cpu")(texts)
    assert [["neg", "pos"].index(str(one.label)) for one in found] == [*wanted.argmax(-1)]
    values = [[*one.probabilities.values()] for one in found]
    np.testing.assert_allclose(values, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pipeline_gives_the_same(dtype: str, answering: Path) -> None:
    predictor = beftkit.load(answering / "run", dtype=dtype, device="cpu")
    assert not predictor.model.training and predictor.model.config.id2label == {0: "neg", 1: "pos"}
    texts = [*dev(answering)[0], "", "film " * 60]  # longer than the model holds
    pipeline = predictor.pipeline()
    # One by one: in half precision a matrix's result depends on its height.
    for text, theirs in zip(texts, pipeline(texts), strict=True):
        ours = predictor(text)
        assert ours.label == theirs["label"]
        assert ours.probability == pytest.approx(theirs["score"], abs=1e-6)


def test_a_pipeline_of_values_and_pairs(answering: Path) -> None:
    predictor = beftkit.load(answering / "values", device="cpu")
    pairs = [("good film", "bad plot"), ("the", "very awful film"), ("", "a")]
    theirs = predictor.pipeline()([{"text": a, "text_pair": b} for a, b in pairs])
    ours = predictor(pairs)
    assert [one.value for one in ours] == pytest.approx([one["score"] for one in theirs], abs=1e-6)
    assert len({one.value for one in ours}) == 3 and ours[0].label is None
    assert predictor(pairs[0]).value == pytest.approx(ours[0].value, abs=1e-6)


def test_a_pipeline_that_would_differ_is_refused(answering: Path) -> None:
    with pytest.raises(UsageError, match="precision bf16: is autocast, which no pipeline does"):
        beftkit.load(answering / "run", precision="bf16", device="cpu").pipeline()
    with pytest.raises(UsageError, match="no pipeline withholds an answer"):
        beftkit.load(answering / "run", threshold=0.9, device="cpu").pipeline()


def test_what_it_is_called_with(answering: Path) -> None:
    predictor = beftkit.load(answering / "run", device="cpu", batch_size=2)
    one, *_ = many = predictor(["good film", "bad", ""])
    assert isinstance(one, Answer) and len(many) == 3 and predictor([]) == []
    assert predictor("good film").probability == pytest.approx(one.probability, abs=1e-6)
    assert repr(one) == f"Answer('{one.label}', {one.probability:.4g})"
    assert repr(predictor) == f"Predictor('{answering}/run/adapter', neg, pos)"
    wrong: Any
    for wrong in (("a", "b"), [("a", "b")]):
        with pytest.raises(
            BeftError, match=r"two texts an example, and .* was trained on one text"
        ):
            predictor(wrong)
    for wrong in ([3], ["a", ("b", "c")], [()], [("a", 2)], [None]):
        with pytest.raises(BeftError, match="expected a text as all others, or a tuple of two"):
            predictor(wrong)
    for wrong in ({"text": "good film"}, None, 3):  # a mapping was answered by its keys
        with pytest.raises(BeftError, match="expected a text, a tuple of two, or a list of them"):
            predictor(wrong)
    values = beftkit.load(answering / "values", device="cpu")
    assert repr(values).endswith(", values)") and "value=" not in repr(values(("a", "b")))
    with pytest.raises(BeftError, match=r"one text an example, and .* was trained on two texts"):
        values("good")


def test_an_answer_below_the_threshold_is_withheld(answering: Path) -> None:
    texts, _ = dev(answering)
    free = beftkit.load(answering / "run", device="cpu")(texts)
    least = sorted(one.probability or 0 for one in free)[10]
    shown = beftkit.load(answering / "run", device="cpu", threshold=least)(texts)
    for one, two in zip(free, shown, strict=True):
        assert two.probability == one.probability and two.probabilities == one.probabilities
        assert two.label == (one.label if (one.probability or 0) >= least else None)
    assert {None} < {one.label for one in shown}
    with pytest.raises(UsageError, match="gives values, which have no probability"):
        beftkit.load(answering / "values", device="cpu", threshold=0.5)


def test_a_text_without_a_token_gets_an_empty_answer(tmp_path: Path) -> None:
    """This tokenizer adds no tokens of its own."""
    import tokenizers

    base = write_classifier(tmp_path / "gpt2", "gpt2")
    maker = transformers.AutoTokenizer.from_pretrained(base)
    maker.backend_tokenizer.post_processor = tokenizers.processors.Sequence([])
    maker.save_pretrained(base)
    predictor = beftkit.load(base, device="cpu")
    found = predictor(["good film", "", "bad", " "])
    assert [one.label is None for one in found] == [False, True, False, True]
    assert found[0].label == predictor("good film").label and predictor([""]) == [Answer()]


@pytest.mark.parametrize("kind", ["convbert", "xlnet", "qwen2"])
def test_rows_of_any_length_beside_each_other(kind: str, tmp_path: Path) -> None:
    """Whatever a family makes of padding, a text's answer is its own."""
    base = write_classifier(tmp_path / kind, kind)
    predictor = beftkit.load(base, device="cpu")
    texts = ["good", "bad film the awful movie", "great film", "a a a a"]
    for text, one in zip(texts, predictor(texts), strict=True):
        assert one.probability == pytest.approx(predictor(text).probability, abs=1e-5)


def test_what_has_no_trained_head_is_refused(answering: Path, tmp_path: Path) -> None:
    with pytest.raises(BeftError, match=r"holds no trained classifier\.bias.*by lot"):
        beftkit.load(answering / "base")
    with pytest.raises(BeftError, match="neither a model nor adapter was given"):
        beftkit.load()
    several = write_classifier(tmp_path / "several", "bert")
    config = json.loads((several / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (several / "config.json").write_text(json.dumps(config))
    with pytest.raises(BeftError, match="each of its labels is true or not by itself"):
        beftkit.load(several)


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    base = write_classifier(tmp_path / "bert", "bert")
    predictor = beftkit.load(base, device="cpu")
    with torch.no_grad():
        predictor.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(BeftError, match="example 1: the model's answer is no number"):
        predictor("good")


def test_a_run_is_repeated_as_it_was(answering: Path, tmp_path: Path) -> None:
    """Length, precision and tokenizer, whatever the base's own is."""
    base = write_lively(tmp_path / "base")
    other = shutil.copytree(answering / "base", tmp_path / "other")
    words = json.loads((other / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    (other / "tokenizer.json").write_text(json.dumps(words))
    run = tmp_path / "run"
    beftkit.train(
        base, train_file=answering / "train.jsonl", tokenizer=str(other), output=run, max_length=5,
        precision="bf16", bias="v", **SHORT,
    )  # fmt: skip
    predictor = beftkit.load(run, device="cpu")
    assert predictor.max_length == 5 and predictor.settings.precision == "bf16"
    ids = predictor.tokenizer("good")["input_ids"]
    assert ids == transformers.AutoTokenizer.from_pretrained(other)("good")["input_ids"]
    assert ids != transformers.AutoTokenizer.from_pretrained(base)("good")["input_ids"]
    given = beftkit.load(run, device="cpu", precision="fp32", max_length=9, tokenizer=str(base))
    assert given.max_length == 9 and given.settings.precision == "fp32"
    assert given.tokenizer("good")["input_ids"] != ids
    for path in (run / "adapter").glob("tokenizer*"):
        path.unlink()
    adapter = run / "adapter" / "adapter_model.safetensors"
    header = adapter_info(run / "adapter").metadata
    save_file(load_file(adapter), adapter, {**header, "beftkit.tokenizer_files": "[]"})
    lacking = beftkit.load(run, device="cpu")
    assert any("a tokenizer of its own, which does not lie" in one for one in lacking.notes)
    assert not beftkit.load(answering / "run", device="cpu", tokenizer=str(base)).notes[1:]
