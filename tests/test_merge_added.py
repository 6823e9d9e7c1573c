"""Biases that a base has not: by a switch, as Llama, or folded; each against hooks or PEFT."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.adapters import Tuned, write_adapter
from beftkit.biases.adding import MISTRAL, SWITCHES
from beftkit.checkpoints import open_checkpoint
from beftkit.errors import BeftError
from beftkit.weights.products import output_product
from tests.merging import SIZES, draw, loaded, logits, modules, tensors_of, write_base, write_beft

SMALL = {**SIZES, "head_dim": 8}
ROWS = [(switch, group, name) for switch, group, types in SWITCHES for name in types.split()]


def small(model_type: str, **more: Any) -> Any:
    return type(transformers.AutoConfig.for_model(model_type))(**{**SMALL, **more})


@pytest.mark.parametrize(("switch", "group", "model_type"), ROWS)
def test_a_switch_gives_what_the_table_says(
    switch: str, group: tuple[str, ...], model_type: str
) -> None:
    if model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        pytest.skip(f"this transformers has no {model_type}")
    held = []
    for on in (False, True):
        config = small(model_type)
        assert hasattr(config, switch)
        setattr(config, switch, on)
        with torch.device("meta"):
            held.append({*transformers.AutoModelForCausalLM.from_config(config).state_dict()})
    layer = re.compile(r"model\.layers\.\d+\.")
    new = sorted(held[1] - held[0])
    assert not held[0] - held[1] and all(layer.match(name) for name in new)
    wanted = {f"model.layers.{n}.{leaf}.bias" for n in range(2) for leaf in group}
    assert {*new} == wanted


@torch.no_grad()
def hooked(model: Any, adapter: Path) -> Any:
    """The model with the adapter's biases added at its modules' outputs."""
    for name, one in load_file(adapter / "adapter_model.safetensors").items():
        path = name.removeprefix("base_model.model.").removesuffix(".beft_bias")
        vector = one[0].to(next(model.parameters()).dtype)
        model.get_submodule(path).register_forward_hook(lambda _, __, y, b=vector: y + b)
    return model


@pytest.mark.parametrize(
    ("model_type", "ends"),
    [
        ("llama", ("v_proj",)),
        ("llama", ("q_proj", "o_proj", "gate_proj", "down_proj")),
        ("gemma", ("v_proj",)),
        ("gemma2", ("k_proj",)),
        ("gemma3_text", ("v_proj", "q_proj")),
        ("qwen3", ("k_proj", "v_proj")),
        ("olmo2", ("q_proj",)),
        ("smollm3", ("v_proj", "up_proj")),
        ("cohere", ("o_proj",)),
        ("granite", ("v_proj",)),
        ("stablelm", ("v_proj",)),
    ],
)
def test_as_peft_has_it_unmerged(model_type: str, ends: tuple[str, ...], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = write_base(tmp_path / "base", small(model_type))
    adapter = write_beft(tmp_path / "adapter", model, modules(model, *ends))
    before = (tmp_path / "base" / "model.safetensors").read_bytes()
    found = beftkit.merge(tmp_path / "base", adapter, tmp_path / "out")
    assert found.added == 2 * len(ends) and found.model_type == model_type
    # Two whole models are compared by that switch; where none is turned a bias would be missing.
    assert beftkit.score(tmp_path / "base", tmp_path / "out").target is None
    whole = loaded(tmp_path / "out")
    with pytest.warns(UserWarning, match="no bias term"):
        theirs = peft.PeftModel.from_pretrained(model, adapter).eval()
    torch.testing.assert_close(logits(whole), logits(theirs), rtol=0, atol=1e-5)
    assert not torch.allclose(logits(whole), logits(loaded(tmp_path / "base")))
    names = sorted(path.name for path in (tmp_path / "out").glob("model*"))
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                     "model.safetensors.index.json"]  # fmt: skip
    assert (tmp_path / "out" / names[0]).read_bytes() == before
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    former = json.loads((tmp_path / "base" / "config.json").read_text())
    changed = {key for key in config if config[key] != former.get(key)}
    assert changed == {*found.switches} and all(config[key] is True for key in changed)
    held = tensors_of(tmp_path / "out")
    zero = [name for name, one in held.items() if name.endswith("proj.bias") and not one.any()]
    assert len(zero) == found.zeros


def test_a_sharded_base_in_half_precision(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = write_base(
        tmp_path / "base", small("llama"), dtype=torch.bfloat16, max_shard_size="10KB"
    )
    adapter = write_beft(tmp_path / "adapter", model, modules(model, "v_proj"))
    found = beftkit.merge(tmp_path / "base", adapter, tmp_path / "out", link=True)
    assert len(found.linked) > 2 and not found.copied
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert {*index["weight_map"].values()} == {
        p.name for p in (tmp_path / "out").glob("*.safetensors")
    }
    assert index["metadata"]["total_size"] == sum(
        one.numel() * one.element_size() for one in tensors_of(tmp_path / "out").values()
    )
    (rounding,) = found.roundings
    assert rounding.dtype == "bfloat16" and 0 < rounding.lost < 2**-8
    whole = loaded(tmp_path / "out", dtype="auto")
    with pytest.warns(UserWarning, match="no bias term"):
        theirs = peft.PeftModel.from_pretrained(model, adapter).eval()
    assert (logits(whole) - logits(theirs)).abs().max() < 0.05 * logits(theirs).abs().max()


def test_mistral_is_written_as_llama(tmp_path: Path) -> None:
    model = write_base(tmp_path / "base", small("mistral", sliding_window=None))
    adapter = write_beft(tmp_path / "adapter", model, modules(model, "v_proj", "o_proj"))
    found = beftkit.merge(tmp_path / "base", adapter, tmp_path / "out")
    assert found.model_type == "llama" and any("written as Llama" in one for one in found.notes)
    whole = loaded(tmp_path / "out")
    assert type(whole) is transformers.LlamaForCausalLM
    assert torch.equal(logits(whole), logits(hooked(model, adapter)))
    bare = {key: one for key, one in json.loads(
        (tmp_path / "base" / "config.json").read_text()).items()
        if key not in ("head_dim", "sliding_window", "max_position_embeddings")}  # fmt: skip
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps({**bare, "sliding_window": None}))
    beftkit.merge(tmp_path / "base", adapter, tmp_path / "again")
    config = loaded(tmp_path / "again").config
    assert config.max_position_embeddings == MISTRAL["max_position_embeddings"]
    for wrong, message in (
        ({}, "looks back 4096 tokens"),
        ({"sliding_window": 7}, "back 7 tokens"),
    ):
        path.write_text(json.dumps({**bare, **wrong}))
        with pytest.raises(BeftError, match=message):
            beftkit.merge(tmp_path / "base", adapter, tmp_path / "no")


def test_what_mistral_means_where_it_does_not_say() -> None:
    own = transformers.MistralConfig()
    assert {key: getattr(own, key) for key in MISTRAL} == MISTRAL


def _codegen(x: torch.Tensor) -> torch.Tensor:
    """A change of values alone: q, v, k stand in four blocks."""
    parts = x.view(4, 3, -1).clone()
    parts[:, (0, 2)] = 0
    return parts.view(1, -1)


FOLDING: dict[str, tuple[Any, tuple[str, ...], Callable[[torch.Tensor], torch.Tensor]]] = {
    "gpt_neo": (
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 64,
         "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64,
         "window_size": 8},
        ("v_proj",), lambda x: x,
    ),
    "gptj": (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 64,
         "n_positions": 64},
        ("v_proj", "out_proj"), lambda x: x,
    ),
    "codegen": (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 64,
         "n_positions": 64, "n_ctx": 64},
        ("qkv_proj",), _codegen,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FOLDING)
def test_folded_it_is_exact_in_float64(family: str, tmp_path: Path) -> None:
    sizes, ends, change = FOLDING[family]
    config = type(transformers.AutoConfig.for_model(family))(**sizes)
    model = write_base(tmp_path / "base", config, dtype=torch.float64)
    adapter = write_beft(tmp_path / "adapter", model, modules(model, *ends), change=change)
    found = beftkit.merge(tmp_path / "base", adapter, tmp_path / "out")
    assert found.folded == 2 and not found.added and "exact in evaluation mode" in str(found.notes)
    whole = loaded(tmp_path / "out", dtype=torch.float64)
    before = logits(model)
    wanted = logits(hooked(model, adapter))
    scale = (wanted - before).abs().max()
    assert scale > 0.05
    assert (logits(whole) - wanted).abs().max() < 1e-12 * scale
    names = [path.name for path in (tmp_path / "out").glob("model*")]
    assert names == ["model.safetensors"], "nothing new: same sharding"
    if family == "gptj":  # o alone is as it is in the MLP's bias, q nowhere
        for end in ("q_proj", "k_proj"):
            other = write_beft(tmp_path / end, model, modules(model, end))
            with pytest.raises(BeftError, match=rf"attn\.{end}, which no bias .* keep the adapter"):
                beftkit.merge(tmp_path / "base", other, tmp_path / "no")
    if family == "codegen":
        other = write_beft(tmp_path / "all", model, modules(model, *ends))
        with pytest.raises(BeftError, match="to queries or keys"):
            beftkit.merge(tmp_path / "base", other, tmp_path / "no")


def test_a_value_s_bias_is_repeated_for_its_queries(tmp_path: Path) -> None:
    """Against attention written out, whose two value heads serve four of queries."""
    model = write_base(tmp_path / "base", small("llama"), dtype=torch.float64)
    base = open_checkpoint(tmp_path / "base")
    bias = np.random.default_rng(0).normal(size=16)
    name = "model.layers.0.self_attn.o_proj.weight"
    found = output_product(base, name, bias, 4)
    attention = model.model.layers[0].self_attn
    value = attention.v_proj
    x = torch.randn(1, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions = model.model.rotary_emb(x, torch.arange(5)[None])
    with torch.no_grad():
        plain = attention(x, position_embeddings=positions, attention_mask=None)[0]
        handle = value.register_forward_hook(lambda _, __, y: y + torch.from_numpy(bias))
        moved = attention(x, position_embeddings=positions, attention_mask=None)[0]
        handle.remove()
    np.testing.assert_allclose((moved - plain)[0], np.tile(found, (5, 1)), rtol=0, atol=1e-13)
    with pytest.raises(BeftError, match="fits no 5 heads"):
        output_product(base, name, bias, 5)


def test_where_nothing_computes_the_same(tmp_path: Path) -> None:
    phi = write_base(tmp_path / "phi3", small("phi3", rope_parameters=None))
    adapter = write_beft(tmp_path / "adapter", phi, modules(phi, "qkv_proj"))
    with pytest.raises(BeftError, match=r"no plain model with a bias in self_attn\.qkv_proj"):
        beftkit.merge(tmp_path / "phi3", adapter, tmp_path / "out")
    mpt = write_base(tmp_path / "mpt", transformers.MptConfig(
        d_model=32, n_heads=4, n_layers=2, vocab_size=64, max_seq_len=64))  # fmt: skip
    fused = write_beft(tmp_path / "fused", mpt, modules(mpt, "Wqkv"))
    with pytest.raises(BeftError, match=r"no plain model with a bias in attn\.Wqkv, nor .* keep"):
        beftkit.merge(tmp_path / "mpt", fused, tmp_path / "out")
    # No configuration of theirs would give these a bias, nor any other module.
    for one in (phi, mpt):
        assert not [name for name in one.state_dict() if name.endswith("bias")]
    cohere = write_base(tmp_path / "cohere", small("cohere"))
    both = write_beft(tmp_path / "both", cohere, modules(cohere, "v_proj", "up_proj"))
    with pytest.raises(BeftError, match=r"bias in mlp\.up_proj, nor another"):
        beftkit.merge(tmp_path / "cohere", both, tmp_path / "out")
    llama = write_base(tmp_path / "llama", small("llama"))
    path = tmp_path / "llama" / "config.json"
    config = json.loads(path.read_text())
    values = write_beft(tmp_path / "values", llama, modules(llama, "v_proj"))
    path.write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(BeftError, match=r"is quantised, and .* adds biases"):
        beftkit.merge(tmp_path / "llama", values, tmp_path / "out")
    with pytest.raises(BeftError, match="is quantised, and its numbers mean nothing in another"):
        beftkit.merge(tmp_path / "llama", values, tmp_path / "out", dtype="bfloat16")
    head = write_beft(tmp_path / "head", llama, ["lm_head"])
    path.write_text(json.dumps(config))
    with pytest.raises(BeftError, match="which is in no layer"):
        beftkit.merge(tmp_path / "llama", head, tmp_path / "out")
    nested = {"model_type": "gemma3", "text_config": {**config, "model_type": "gemma3_text"}}
    path.write_text(json.dumps(nested))
    with pytest.raises(BeftError, match="a model of several towers"):
        beftkit.merge(tmp_path / "llama", values, tmp_path / "out")
    assert not (tmp_path / "out").exists() and draw(llama) is llama


def test_the_text_tower_of_several(tmp_path: Path) -> None:
    """Gemma 3 with pictures: its text configuration has the switch, its files other names."""
    config = transformers.Gemma3Config(
        text_config={**SMALL, "sliding_window": 8}, mm_tokens_per_image=4, image_token_index=60,
        boi_token_index=61, eoi_token_index=62,
        vision_config={"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
                       "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
    )  # fmt: skip
    auto = "AutoModelForImageTextToText"
    model = write_base(tmp_path / "base", config, auto)
    names = [name for name in modules(model, "v_proj") if "vision" not in name]
    assert any(name.startswith("language_model.model.") for name in tensors_of(tmp_path / "base"))
    adapter = write_beft(tmp_path / "adapter", model, names)
    found = beftkit.merge(tmp_path / "base", adapter, tmp_path / "out")
    assert (found.added, found.zeros, found.switches) == (2, 6, ("attention_bias",))
    former, said = (json.loads((tmp_path / one / "config.json").read_text())
                    for one in ("base", "out"))  # fmt: skip
    assert said["text_config"].pop("attention_bias") is True
    assert former["text_config"].pop("attention_bias") is False and said == former
    # The biases that a switch brings are compared with zeros, where it is off in PRE.
    notes = beftkit.score(tmp_path / "base", tmp_path / "out").notes
    assert "the text tower" in notes[0] and "every compared bias is zero in PRE" in notes[1]
    whole, plain = loaded(tmp_path / "out", auto), logits(model)
    assert torch.equal(logits(whole), logits(hooked(model, adapter)))
    assert not torch.allclose(logits(whole), plain)
    outside = write_beft(tmp_path / "outside", model, ["lm_head", *names])
    with pytest.raises(BeftError):
        beftkit.merge(tmp_path / "base", outside, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("form", ["lora", "biases"])
def test_added_biases_in_our_other_formats(form: str, tmp_path: Path) -> None:
    model = write_base(tmp_path / "base", small("llama"))
    tuned, beft = [], write_beft(tmp_path / "beft", model, modules(model, "v_proj"))
    held = load_file(beft / "adapter_model.safetensors")
    for name in modules(model, "v_proj"):
        post = held[f"base_model.model.{name}.beft_bias"][0].numpy()
        zero = np.zeros_like(post)
        tuned.append(Tuned(f"{name}.bias", "linear", name, 32, zero, post, None, True))
    write_adapter(tmp_path / form, tuned, format=form, base="base", task_type="CAUSAL_LM",
                  metadata={})  # fmt: skip
    beftkit.merge(tmp_path / "base", beft, tmp_path / "one")
    beftkit.merge(tmp_path / "base", tmp_path / form, tmp_path / "other")
    one, other = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "other")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_quantised_or_narrow_base_is_refused_where_it_cannot_be_right(tmp_path: Path) -> None:
    model = write_base(tmp_path / "base", transformers.Qwen2Config(**SIZES), dtype=torch.float16)
    names = modules(model, "v_proj")
    huge = write_beft(tmp_path / "huge", model, names, change=lambda x: x * 1e6)
    with pytest.raises(BeftError, match=r"v_proj\.bias is no number of F16"):
        beftkit.merge(tmp_path / "base", huge, tmp_path / "out")
    path = tmp_path / "base" / "model.safetensors"
    held = load_file(path)
    save_file({name: one.to(torch.int8) if name.endswith("v_proj.bias") else one
               for name, one in held.items()}, path, {"format": "pt"})  # fmt: skip
    adapter = write_beft(tmp_path / "adapter", model, names)
    with pytest.raises(BeftError, match=r"stored as I8, so it is quantised"):
        beftkit.merge(tmp_path / "base", adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
