"""An adapter put onto a model of another task, in a bank or alone; a bank's in training mode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from beftkit.errors import BeftError
from beftkit.weights import BiasBank, apply_adapter
from tests.adapted import trained
from tests.tiny_models import build

pytest.importorskip("peft")


@pytest.mark.parametrize(
    ("made", "task", "said"),
    [
        ("BertForSequenceClassification", "TOKEN_CLS", "which is SEQ_CLS"),
        ("BertForSequenceClassification", "CAUSAL_LM", "which is SEQ_CLS"),
        ("BertForTokenClassification", "SEQ_CLS", "which is TOKEN_CLS"),
        ("BertForMultipleChoice", "SEQ_CLS", "give the model with the head"),
        ("Derived", "TOKEN_CLS", "which is SEQ_CLS"),
    ],
)
def test_an_adapter_of_another_task_is_refused(
    tmp_path: Path, made: str, task: str, said: str
) -> None:
    """Its tensors alone fit: heads over tokens and over texts have one name and shape."""
    base, _ = trained("bert", tmp_path / "adapter", task_type=task, options={"num_labels": 1})
    if made == "Derived":
        kind = type("Derived", (transformers.BertForSequenceClassification,), {})
    else:
        kind = getattr(transformers, made)
    model = kind(base.config)
    with pytest.raises(BeftError, match=f"task type {task}, and this is a {made}.*{said}"):
        BiasBank(model, {"one": tmp_path / "adapter"})
    with pytest.raises(BeftError, match=f"task type {task}, and this is a {made}.*{said}"):
        apply_adapter(model, tmp_path / "adapter")


def test_one_of_the_model_s_task_or_of_none_is_taken(tmp_path: Path) -> None:
    trained("bert", tmp_path / "tokens", task_type="TOKEN_CLS")
    base, _ = trained("bert", tmp_path / "none", task_type=None)
    bank = BiasBank(
        transformers.BertForTokenClassification(base.config),
        {"tokens": tmp_path / "tokens", "none": tmp_path / "none"},
    )
    assert bank.names == ("tokens", "none")


def test_a_model_in_training_mode_answers_without_dropout(tmp_path: Path) -> None:
    """And each of its modules is in its own mode again, also after an error."""
    trained("bert", tmp_path / "one")
    model = build("bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    bank = BiasBank(model.eval(), {"one": tmp_path / "one"})
    ids, names = torch.randint(2, 50, (2, 7)), ["one", None]
    with torch.no_grad():
        want = bank(names=names, input_ids=ids)
        model.train()
        model.bert.pooler.eval()
        modes = [module.training for module in model.modules()]
        assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
        got = bank(names=names, input_ids=ids)
        with bank.rows(names):
            inside = model(input_ids=ids).logits
    assert all(map(torch.equal, got, want)) and torch.equal(inside, torch.stack(want))
    with pytest.raises(IndexError):
        bank(names=names, input_ids=ids + 10_000)
    assert modes == [module.training for module in model.modules()]
