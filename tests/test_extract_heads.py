"""`beftkit extract` from models with heads of other names, and from models of several towers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import beftkit
from tests.merging import IDS, SIZES, draw, logits

peft = pytest.importorskip("peft")


def test_bart_s_head_comes_along(tmp_path: Path) -> None:
    config = transformers.BartConfig(
        vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
        max_position_embeddings=64, num_labels=3, eos_token_id=19,
    )  # fmt: skip
    base = transformers.BartModel(config)
    draw(base).save_pretrained(tmp_path / "pre")
    kind = transformers.BartForSequenceClassification
    post = kind.from_pretrained(tmp_path / "pre").eval()
    with torch.no_grad():
        for name, parameter in post.named_parameters():
            if name.endswith("v_proj.bias") or name.startswith("classification_head"):
                parameter += torch.randn(parameter.shape) / 10
    post.save_pretrained(tmp_path / "post")
    found = beftkit.extract(
        tmp_path / "pre", tmp_path / "post", "v", output=tmp_path / "adapter",
        adapter_format="lora", deep=True,
    )  # fmt: skip
    assert found.head == ("classification_head",)
    assert (found.beside.changed, found.beside.only_post) == (0, ())
    auto = peft.AutoPeftModelForSequenceClassification
    merged = auto.from_pretrained(tmp_path / "adapter", num_labels=3).merge_and_unload().eval()
    assert torch.equal(logits(merged, IDS), logits(post, IDS))


def clip(folder: Path, seed: int) -> None:
    sizes = {name: SIZES[name] for name in ("hidden_size", "intermediate_size")}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": 64, "max_position_embeddings": 32},
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    draw(transformers.CLIPModel(config), seed).save_pretrained(folder)


def test_one_tower_of_two(tmp_path: Path) -> None:
    """Neither the other tower's norms go along, nor is it missed in a POST that has it not."""
    clip(tmp_path / "pre", 0)
    clip(tmp_path / "post", 1)
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", "all", output=tmp_path / "one")
    names = load_file(tmp_path / "one" / "adapter_model.safetensors")
    assert found.vectors == 9
    assert all("text_model" in name for name in names), names
    assert "vision_model.pre_layrnorm.bias" in found.beside.biases
    transformers.CLIPTextModel.from_pretrained(tmp_path / "post").save_pretrained(tmp_path / "text")
    beftkit.extract(tmp_path / "pre", tmp_path / "text", "all", output=tmp_path / "two")
    for name, one in load_file(tmp_path / "two" / "adapter_model.safetensors").items():
        assert torch.equal(one, names[name]), name


def test_models_of_two_kinds_are_told(tmp_path: Path) -> None:
    sizes = {name: one for name, one in SIZES.items() if name != "num_key_value_heads"}
    draw(transformers.BertModel(transformers.BertConfig(**sizes))).save_pretrained(tmp_path / "a")
    other = transformers.RobertaConfig(**sizes, type_vocab_size=2)
    draw(transformers.RobertaModel(other), 1).save_pretrained(tmp_path / "b")
    said = "PRE is a bert, POST a roberta: matched by their names alone"
    assert said in beftkit.extract(tmp_path / "a", tmp_path / "b", output=tmp_path / "out").notes
    assert said in beftkit.compare(tmp_path / "b", tmp_path / "b", base=tmp_path / "a").notes
    assert said in beftkit.score(tmp_path / "a", tmp_path / "b").notes


def test_one_head_in_three_formats_is_one(tmp_path: Path) -> None:
    """A pooler's bias is a change in two of them, in the third a value that no change reaches."""
    sizes = {name: one for name, one in SIZES.items() if name != "num_key_value_heads"}
    for seed, name in enumerate(("pre", "post", "other")):
        config = transformers.BertConfig(**sizes, num_labels=3)
        model = draw(transformers.BertForSequenceClassification(config), seed)
        model.bert.pooler.dense.bias.data += float(seed)
        model.save_pretrained(tmp_path / name)
    made = []
    for post, format in (("post", "beft"), ("post", "biases"), ("post", "lora"), ("other", "beft")):
        made.append(tmp_path / f"{post}-{format}")
        beftkit.extract(tmp_path / "pre", tmp_path / post, output=made[-1], adapter_format=format)
    for order in (made[:3], made[2::-1]):
        found = beftkit.average(*order, output=tmp_path / "mean", overwrite=True)
        assert found.head == str(order[0]), found.notes
    mixed = beftkit.average(made[1], made[3], output=tmp_path / "mean", overwrite=True)
    assert mixed.head is None


def test_zeros_that_stand_in_have_no_dtype(tmp_path: Path) -> None:
    """PRE has no bias at all, so both are in bfloat16, as far as anything is."""
    for name, switch in (("pre", False), ("post", True)):
        config = transformers.LlamaConfig(**SIZES, attention_bias=switch)
        model = draw(transformers.LlamaForCausalLM(config)).to(torch.bfloat16)
        model.save_pretrained(tmp_path / name)
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", output=tmp_path / "adapter")
    assert found.added == 2
    assert not any("PRE is in" in note for note in found.notes), found.notes
