"""`beftkit.merge` of what our own runs made: as `export` has it, and which base it belongs to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.errors import BeftError
from tests.answering import SHORT
from tests.command import tree
from tests.merging import SIZES, loaded, logits, modules, tensors_of, write_base, write_beft


def test_a_run_is_merged_as_it_is_exported(answering: Path, tmp_path: Path) -> None:
    for name in ("run", "values"):
        found = beftkit.merge(answering / "base", answering / name, tmp_path / f"{name}-merged")
        beftkit.export(answering / name, tmp_path / f"{name}-exported")
        ours, theirs = tree(tmp_path / f"{name}-merged"), tree(tmp_path / f"{name}-exported")
        assert ours == theirs
        assert found.labels == (("neg", "pos") if name == "run" else ())
    answer = beftkit.load(tmp_path / "run-merged", device="cpu")("good film")
    ours = beftkit.load(answering / "run", device="cpu")("good film")
    assert answer.label == ours.label
    assert answer.probability == pytest.approx(ours.probability, abs=1e-6)


def test_another_base_is_told(answering: Path, tmp_path: Path) -> None:
    base = shutil.copytree(answering / "base", tmp_path / "base")
    found = beftkit.merge(base, answering / "run", tmp_path / "same")
    assert not any("may mean nothing" in note for note in found.notes)
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in tensors if name.endswith("value.bias"))
    tensors[name][0] += 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    found = beftkit.merge(base, answering / "run", tmp_path / "other")
    assert any("are not those of the base that" in note and "may mean nothing" in note
               for note in found.notes)  # fmt: skip


def test_a_head_nobody_trained_is_refused(answering: Path, tmp_path: Path) -> None:
    beftkit.train(
        answering / "base", train_file=answering / "train.jsonl", bias="v", output=tmp_path / "run",
        max_steps=1, **SHORT,
    )  # fmt: skip
    path = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    from beftkit.checkpoints import open_checkpoint

    metadata = dict(open_checkpoint(path.parent).metadata)
    held = {name: one for name, one in load_file(path).items() if "classifier" not in name}
    save_file(held, path, {**metadata, "format": "pt"})
    with pytest.raises(BeftError, match=r"holds no trained classifier\.(bias|weight), nor does"):
        beftkit.merge(answering / "base", tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_language_model_s_own_head_gives_way(tmp_path: Path) -> None:
    """Over a language model in shards, whose head is no part of a classifier."""
    config = transformers.Qwen2Config(**SIZES, tie_word_embeddings=False)
    model = write_base(tmp_path / "base", config, max_shard_size="10KB")
    path = tmp_path / "base" / "tokenizer.json"
    words = {f"w{n}": n for n in range(60)} | {"<unk>": 60, "</s>": 61}
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel(words, unk_token="<unk>")).save(str(path))
    (tmp_path / "base" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>",
                    "unk_token": "<unk>"})
    )  # fmt: skip
    head = {"score.weight": torch.randn(3, 32, generator=torch.Generator().manual_seed(4))}
    adapter = write_beft(
        tmp_path / "adapter", model, modules(model, "v_proj"), task="SEQ_CLS", more=head,
        modules_to_save=["score"],
    )  # fmt: skip
    found = beftkit.merge(tmp_path / "base", adapter, tmp_path / "out", link=True)
    held = tensors_of(tmp_path / "out")
    assert "lm_head.weight" not in held and torch.equal(held["score.weight"], head["score.weight"])
    assert found.linked and "left out 1 tensor of the base's own head" in str(found.notes)
    whole = loaded(tmp_path / "out", "AutoModelForSequenceClassification")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForSequenceClassification"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert whole.config.pad_token_id == tokenizer.pad_token_id is not None
    assert logits(whole).shape == (1, 3)
