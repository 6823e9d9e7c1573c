"""`beftkit.merge` against PEFT's own merges, and the folder as stock transformers loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.adapters import Tuned, write_adapter
from beftkit.errors import BeftError
from tests.merging import IDS, SIZES, loaded, logits, modules, tensors_of, write_base, write_beft

peft = pytest.importorskip("peft")
CLASSIFIER = "AutoModelForSequenceClassification"
BERT = {name: one for name, one in SIZES.items() if name != "num_key_value_heads"}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        assert one.dtype == theirs[name].dtype and torch.equal(one, theirs[name]), name


def classifier(
    tmp_path: Path, config: Any, ends: tuple[str, ...], heads: tuple[str, ...], **saving: Any
) -> Any:
    """A bare base with a tokenizer, an adapter with a head over it, and PEFT's model of both."""
    bare = write_base(tmp_path / "base", config, "AutoModel", **saving)
    words = {word: n for n, word in enumerate(("<pad>", "<s>", "</s>", "<unk>", "a", "b"))}
    tokenizer = transformers.BertTokenizer(vocab=words, unk_token="<unk>", pad_token="<pad>",
                                           cls_token="<s>", sep_token="</s>")  # fmt: skip
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", unk_token="<unk>",
        eos_token="</s>",
    ).save_pretrained(tmp_path / "base")  # fmt: skip
    del bare
    model = getattr(transformers, CLASSIFIER).from_pretrained(tmp_path / "base", num_labels=3)
    generator = torch.Generator().manual_seed(5)
    head = {
        name: torch.randn(one.shape, generator=generator)
        for name, one in model.named_parameters()
        if name.startswith(heads)
    }
    saved = [heads[0]] if len(heads) > 1 or heads[0] != "classifier" else ["classifier"]
    write_beft(
        tmp_path / "adapter", model, modules(model, *ends), task="SEQ_CLS",
        base=str(tmp_path / "base"), more=head, modules_to_save=saved,
    )  # fmt: skip
    return peft.PeftModel.from_pretrained(model.eval(), tmp_path / "adapter").eval()


@pytest.mark.parametrize("sharded", [False, True])
def test_bert_is_peft_s_merge(sharded: bool, tmp_path: Path) -> None:
    config = transformers.BertConfig(**BERT)
    saving = {"max_shard_size": "20KB"} if sharded else {}
    model = classifier(tmp_path, config, ("query", "value"), ("classifier",), **saving)
    found = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert (found.changed, found.labels) == (4, ("LABEL_0", "LABEL_1", "LABEL_2"))
    whole = loaded(tmp_path / "out", CLASSIFIER)
    merged = model.merge_and_unload()
    same(whole.state_dict(), merged.state_dict())
    assert torch.equal(logits(whole), logits(merged))
    assert len([*(tmp_path / "out").glob("*.safetensors")]) > 3 * sharded


def test_roberta_is_peft_s_merge_adapter(tmp_path: Path) -> None:
    config = transformers.RobertaConfig(**BERT, type_vocab_size=1)
    model = classifier(tmp_path, config, ("value",), ("classifier",))
    beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    model.merge_adapter()
    whole = loaded(tmp_path / "out", CLASSIFIER)
    assert torch.equal(logits(whole), logits(model))


CAUSAL = {
    "opt": transformers.OPTConfig(
        vocab_size=64, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64,
    ),
    "qwen2": transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
}  # fmt: skip


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("family", CAUSAL)
def test_causal_models_are_peft_s_merge(family: str, sharded: bool, tmp_path: Path) -> None:
    saving = {"max_shard_size": "20KB"} if sharded else {}
    model = write_base(tmp_path / "base", CAUSAL[family], **saving)
    write_beft(tmp_path / "adapter", model, modules(model, "q_proj", "v_proj"))
    found = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload()
    whole = loaded(tmp_path / "out")
    same(whole.state_dict(), theirs.state_dict())
    assert torch.equal(logits(whole), logits(theirs.eval()))
    assert found.changed == 4 and not found.roundings
    names = {path.name for path in (tmp_path / "base").glob("model*")}
    assert {path.name for path in (tmp_path / "out").glob("model*")} == names, "same sharding"
    before, after = tensors_of(tmp_path / "base"), tensors_of(tmp_path / "out")
    others = [name for name in before if not name.endswith(("q_proj.bias", "v_proj.bias"))]
    assert all(torch.equal(before[name], after[name]) for name in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpt2_s_slices_in_lora_s_format(dtype: torch.dtype, tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    model = write_base(tmp_path / "base", config, dtype=dtype)
    tuned, generator = [], torch.Generator().manual_seed(3)
    for name in modules(model, "c_attn"):
        module = model.get_submodule(name)
        pre = module.bias.detach().float().numpy()
        post = pre.copy()
        post[64:] += torch.randn(32, generator=generator).numpy()  # of values alone
        tuned.append(Tuned(f"{name}.bias", "conv1d", name, module.nx, pre, post))
    write_adapter(tmp_path / "adapter", tuned, format="lora", base="base", task_type="CAUSAL_LM",
                  metadata={})  # fmt: skip
    found = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload()
    whole = loaded(tmp_path / "out", dtype="auto")
    same(whole.state_dict(), theirs.state_dict())
    assert bool(found.roundings) == (dtype == torch.bfloat16)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_a_plain_lora_is_merged_in_blocks(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beftkit.checkpoints import shards

    monkeypatch.setattr(shards, "BLOCK", 1000)  # rows of 128 bytes: eight at once
    gpt2 = transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    model = write_base(tmp_path / "base", CAUSAL[family] if family == "qwen2" else gpt2)
    ends = ["q_proj", "down_proj"] if family == "qwen2" else ["c_attn", "c_proj"]
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=ends, task_type="CAUSAL_LM",
                             fan_in_fan_out=family == "gpt2")  # fmt: skip
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, one in wrapped.named_parameters():
            if "lora_" in name:
                one.copy_(torch.randn(one.shape, generator=torch.Generator().manual_seed(2)))
    wrapped.save_pretrained(tmp_path / "adapter")
    beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    theirs = wrapped.merge_and_unload().state_dict()
    ours = loaded(tmp_path / "out").state_dict()
    for name, one in ours.items():
        torch.testing.assert_close(one, theirs[name], rtol=0, atol=2e-6)
    assert any(not torch.equal(one, tensors_of(tmp_path / "base").get(name, one))
               for name, one in ours.items())  # fmt: skip


def test_our_own_format_and_a_norm(tmp_path: Path) -> None:
    model = write_base(tmp_path / "base", CAUSAL["opt"])
    name = "model.decoder.layers.1.self_attn_layer_norm"
    norm = model.get_submodule(name)
    pre = norm.bias.detach().numpy()
    weight = norm.weight.detach().numpy()
    one = Tuned(f"{name}.bias", "norm", name, 0, pre, pre + 0.25, weight)
    for form in ("biases", "beft"):
        write_adapter(tmp_path / form, [one], format=form, base="base", task_type=None, metadata={})
        found = beftkit.merge(tmp_path / "base", tmp_path / form, tmp_path / f"out-{form}")
        ours, before = tensors_of(tmp_path / f"out-{form}"), tensors_of(tmp_path / "base")
        changed = [key for key in ours if not torch.equal(ours[key], before[key])]
        assert changed == [f"{name}.bias"] and found.changed == 1
        assert torch.equal(ours[changed[0]], torch.from_numpy(pre + 0.25))


def test_what_rounding_takes_is_told(tmp_path: Path) -> None:
    model = write_base(tmp_path / "base", CAUSAL["qwen2"], dtype=torch.bfloat16)
    small = {"change": lambda x: x * 1e-3}
    write_beft(tmp_path / "adapter", model, modules(model, "v_proj"), **small)  # type: ignore[arg-type]
    found = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    (rounding,) = found.roundings
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload()
    same(loaded(tmp_path / "out", dtype="auto").state_dict(), theirs.state_dict())
    lost = change = stay = 0.0
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, one in held.items():
        key = name.removeprefix("base_model.model.").replace("beft_bias", "bias")
        pre = tensors_of(tmp_path / "base")[key].float()
        exact = pre + one.float()[0]
        kept = exact.bfloat16().float()
        lost += float(((kept - exact).double() ** 2).sum())
        change += float(((exact - pre).double() ** 2).sum())
        stay += int(((kept == pre) & (exact != pre)).sum())
    assert rounding.lost == pytest.approx((lost / change) ** 0.5, rel=1e-6)
    assert (rounding.dtype, rounding.biases, rounding.unchanged) == ("bfloat16", 2, stay)
    assert any("kept in bfloat16, the base's dtype: rounding lost" in one for one in found.notes)
    twice = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "wide",
                          dtype="float32")  # fmt: skip
    assert twice.dtype == "float32" and not twice.roundings
    config = json.loads((tmp_path / "wide" / "config.json").read_text())
    assert config["dtype"] == "float32" and loaded(tmp_path / "wide").dtype == torch.float32


def test_names_of_older_files(tmp_path: Path) -> None:
    """``beta`` and ``gamma`` in a LayerNorm, and a prefix that the adapter has not."""
    config = transformers.BertConfig(**BERT)
    model = classifier(tmp_path, config, ("value",), ("classifier",))
    path = tmp_path / "base" / "model.safetensors"
    renamed = {
        "bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")
                      .replace("LayerNorm.weight", "LayerNorm.gamma"): one
        for name, one in load_file(path).items()
    }  # fmt: skip
    save_file({**renamed, "cls.predictions.bias": torch.zeros(64)}, path, {"format": "pt"})
    found = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert any("left out 1 tensor of the base's own head" in note for note in found.notes)
    assert torch.equal(logits(loaded(tmp_path / "out", CLASSIFIER)),
                       logits(model.merge_and_unload()))  # fmt: skip


def test_a_classifier_of_a_causal_model(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**SIZES)
    model = classifier(tmp_path, config, ("v_proj",), ("score",))
    found = beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert found.switches == ("attention_bias",) and (found.added, found.zeros) == (2, 6)
    whole = loaded(tmp_path / "out", CLASSIFIER)
    assert type(whole) is transformers.LlamaForSequenceClassification
    torch.testing.assert_close(logits(whole), logits(model), rtol=0, atol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = write_base(tmp_path / "base", CAUSAL["qwen2"])
    names = modules(model, "v_proj")
    good = write_beft(tmp_path / "good", model, names)
    held = load_file(good / "adapter_model.safetensors")
    first = next(iter(held))
    bad = {
        "is \\[1, 3\\], but": {**held, first: torch.zeros(1, 3)},
        "NaN": {**held, first: torch.full((1, 16), float("nan"))},
        "which .*base has not": {
            **held,
            first.replace("layers.0", "layers.7"): held[first].clone(),
        },
        "stored as I32": {**held, first: torch.zeros(1, 16, dtype=torch.int32)},
    }
    for number, (message, tensors) in enumerate(bad.items()):
        folder = write_beft(tmp_path / f"bad{number}", model, names)
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        with pytest.raises(BeftError, match=message):
            beftkit.merge(tmp_path / "base", folder, tmp_path / "out")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    head = {"lm_head.weight": torch.zeros(64, 32)}
    tied = write_beft(tmp_path / "tied", model, names, more=head)
    with pytest.raises(BeftError, match=r"changes lm_head\.weight, which .*base has not"):
        beftkit.merge(tmp_path / "base", tied, tmp_path / "out")
    token = write_beft(tmp_path / "token", model, names, task="TOKEN_CLS",
                       more={"score.weight": torch.zeros(3, 32)})  # fmt: skip
    with pytest.raises(BeftError, match="TOKEN_CLS; expected SEQ_CLS"):
        beftkit.merge(tmp_path / "base", token, tmp_path / "out")
    assert config["model_type"] == "qwen2" and not (tmp_path / "out").exists()
    assert IDS.shape == (1, 17)
