"""Adapters that change one of two tied matrices, which PEFT keeps apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import beftkit
from beftkit.errors import BeftError
from beftkit.weights import apply_adapter
from tests.merging import SIZES, draw, loaded, logits

peft = pytest.importorskip("peft")


def written(tmp_path: Path, tied: bool, saved: str, **config: Any) -> Any:
    """A base, PEFT's adapter with drawn values on it, and PEFT's model of both, loaded anew."""
    auto = transformers.AutoModelForCausalLM
    own = transformers.Qwen2Config(**SIZES, tie_word_embeddings=tied)
    draw(auto.from_config(own)).save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(
        r=1, bias="all", target_modules=["q_proj"], modules_to_save=[saved], task_type="CAUSAL_LM",
        **config,
    )  # fmt: skip
    model = peft.get_peft_model(auto.from_pretrained(tmp_path / "base"), lora)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 10
    model.save_pretrained(tmp_path / "adapter")
    return peft.PeftModel.from_pretrained(
        auto.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    ).eval()


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.*:UserWarning")
@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
def test_one_of_two_that_are_tied_is_refused(saved: str, tmp_path: Path) -> None:
    theirs = written(tmp_path, True, saved)
    parts = theirs.get_input_embeddings().weight, theirs.get_output_embeddings().weight
    assert not torch.equal(*parts), "PEFT unties them"
    with pytest.raises(BeftError, match=r"tied in the base .* merge this adapter with PEFT"):
        beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(BeftError, match="tied in the base"):
        apply_adapter(model, tmp_path / "adapter")
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


@pytest.mark.parametrize(
    ("tied", "saved"), [(False, "embed_tokens"), (False, "lm_head"), (True, "norm")]
)
def test_what_is_not_tied_is_merged(tied: bool, saved: str, tmp_path: Path) -> None:
    theirs = written(tmp_path, tied, saved)
    beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    apply_adapter(model, tmp_path / "adapter")
    for one in (loaded(tmp_path / "out"), model.eval()):
        torch.testing.assert_close(logits(one), logits(theirs), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.*:UserWarning")
def test_a_classifier_of_xlm_has_no_language_model_head(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8, "vocab_size": 30}
    own = transformers.XLMRobertaConfig(**sizes, num_attention_heads=2, num_labels=3)
    auto = transformers.AutoModelForSequenceClassification
    draw(auto.from_config(own)).save_pretrained(tmp_path / "base")
    words = {word: n for n, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"))}
    transformers.BertTokenizer(vocab=words).save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(
        r=1, bias="all", target_modules=["query"], task_type="SEQ_CLS",
        modules_to_save=["classifier", "word_embeddings"],
    )  # fmt: skip
    model = peft.get_peft_model(auto.from_pretrained(tmp_path / "base"), lora).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 10
    model.save_pretrained(tmp_path / "adapter")
    beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    ids = torch.tensor([[0, 5, 6, 2]])
    merged = auto.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(merged(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
