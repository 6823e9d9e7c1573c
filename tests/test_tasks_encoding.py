"""Tokenising and batching, against transformers' own padding."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertTokenizer, DataCollatorWithPadding, PreTrainedTokenizerFast

from beftkit import tasks
from beftkit.errors import BeftError
from beftkit.tasks import encoding
from tests.task_files import SENTENCES

WORDS = [f"w{i}" for i in range(30)]
REAL = os.environ.get("BEFTKIT_DATA")


def bert(side: str = "right") -> BertTokenizer:
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    return BertTokenizer(vocab=vocab, padding_side=side)


def decoder(**special: str) -> PreTrainedTokenizerFast:
    """Adds no special token to a text, as GPT-2's."""
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(["<u>", *WORDS, "<e>"])}, "<u>"))
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<u>", **special)


def sentences(count: int, seed: int = 0, longest: int = 20) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, longest))) for _ in range(count)]


def split_of(*fields: list[str]) -> tasks.Split:
    return tasks.Split(fields, np.arange(len(fields[0])) % 3)


def check(split: tasks.Split, tokenizer: Any, max_length: int, **options: Any) -> tasks.Encoded:
    """Every batch equals what DataCollatorWithPadding makes of the tokenizer's own output."""
    encoded = tasks.encode(split, tokenizer, max_length=max_length, **options)
    rows = tokenizer(*split.texts, truncation=True, max_length=max_length)
    assert encoded.lengths.tolist() == [len(row) for row in rows["input_ids"]]
    whole = tokenizer(*split.texts, verbose=False)["input_ids"]
    assert encoded.truncated == sum(len(row) > max_length for row in whole)
    collate = DataCollatorWithPadding(tokenizer, **options)
    for examples in torch.randperm(len(split)).split(7):
        wanted = collate([{key: rows[key][i] for key in rows} for i in examples.tolist()])
        batch = encoded.batch(examples)
        for name in ("input_ids", "attention_mask"):
            assert batch.inputs[name].dtype == torch.int64
            torch.testing.assert_close(batch.inputs[name], wanted[name], rtol=0, atol=0)
        if encoded.type_ids is not None:
            torch.testing.assert_close(batch.inputs["token_type_ids"], wanted["token_type_ids"])
        else:
            assert "token_type_ids" not in batch.inputs
            assert not wanted.get("token_type_ids", torch.zeros(1)).any()
        assert batch.targets.tolist() == split.targets[examples.numpy()].tolist()
        assert (batch.examples, batch.index) == (len(examples), None)
    return encoded


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("max_length", [7, 64])
def test_as_transformers_pads(
    side: str, multiple: int | None, pairs: bool, max_length: int
) -> None:
    fields = [sentences(40, seed) for seed in range(2 if pairs else 1)]
    encoded = check(split_of(*fields), bert(side), max_length, pad_to_multiple_of=multiple)
    assert (encoded.type_ids is not None) == pairs
    assert encoded.padding_side == side
    assert (encoded.ids.dtype, encoded.starts.dtype) == (torch.int32, torch.int64)
    assert (encoded.truncated > 0) == (max_length == 7)


def test_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK", 9)
    check(split_of(sentences(40), sentences(40, 1)), bert(), 12)


def test_one_and_empty() -> None:
    encoded = check(split_of([""]), bert(), 8)
    assert encoded.batch(torch.tensor([0])).inputs["input_ids"].tolist() == [[2, 3]]
    check(split_of(list(SENTENCES)), bert(), 8)


def test_a_tokenizer_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no record of what it cut: rows are counted another way."""
    tokenizer = bert()
    fields = [sentences(40), sentences(40, 1)]
    fast = tasks.encode(split_of(*fields), tokenizer, max_length=12)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    slow = tasks.encode(split_of(*fields), tokenizer, max_length=12)
    assert slow.truncated == fast.truncated > 0


def test_a_fixed_width() -> None:
    split = split_of(sentences(10))
    encoded = tasks.encode(split, bert(), max_length=16)
    batch = encoded.batch(torch.arange(10), pad_to=16)
    wanted = bert()(split.texts[0], truncation=True, max_length=16, padding="max_length")
    assert batch.inputs["input_ids"].tolist() == wanted["input_ids"]
    assert batch.inputs["attention_mask"].tolist() == wanted["attention_mask"]
    wide = encoded.batch(torch.arange(10), pad_to=5000)
    assert wide.inputs["attention_mask"].sum() == encoded.lengths.sum()
    with pytest.raises(ValueError, match="pad_to=3"):
        encoded.batch(torch.arange(10), pad_to=3)


def test_pad_tokens() -> None:
    split = split_of(["w1 w2 w3", "w4"])
    padded = check(split, decoder(pad_token="w9", padding_side="left"), 8)
    assert (padded.pad_id, padded.notes) == (10, ())
    with_end = tasks.encode(split, decoder(eos_token="<e>"), max_length=8)
    assert with_end.pad_id == 31
    assert with_end.notes == ("the tokenizer has no pad token; padded with '<e>'",)
    assert with_end.batch(torch.arange(2)).inputs["input_ids"].tolist() == [[2, 3, 4], [5, 31, 31]]
    with pytest.raises(BeftError, match="neither a pad nor an end-of-sequence token"):
        tasks.encode(split, decoder(), max_length=8)


def test_texts_without_tokens_and_no_room() -> None:
    with pytest.raises(BeftError, match="example 2 of 3: '' gives no token; leave it out"):
        tasks.encode(split_of(["w1", "", "w2"]), decoder(eos_token="<e>"), max_length=8)
    pair, alone = split_of(["w1 w2"], ["w3 w4"]), split_of(["w1 w2"])
    for split, lengths in ((pair, (-1, 0, 1, 2, 3)), (alone, (1, 2))):  # special tokens alone too
        for length in lengths:
            with pytest.raises(BeftError, match=f"max_length={length}"):
                tasks.encode(split, bert(), max_length=length)
    assert tasks.encode(pair, bert(), max_length=4).ids.tolist() == [2, 3, 8, 3]
    assert tasks.encode(alone, bert(), max_length=3).truncated == 1
    bare = tasks.encode(alone, decoder(eos_token="<e>"), max_length=1)  # it adds none
    assert (bare.row_lengths.tolist(), bare.truncated) == ([1], 1)


@pytest.mark.parametrize("side", ["right", "left"])
def test_several_rows_per_example(side: str) -> None:
    """Three examples of 2, 1 and 3 rows: what candidates will be."""
    rows = [[1, 2], [3], [4, 5, 6], [7], [8, 9], [5]]
    encoded = tasks.Encoded(
        ids=torch.tensor([token for row in rows for token in row], dtype=torch.int32),
        type_ids=None,
        starts=torch.tensor([0, 2, 3, 6, 7, 9, 10]),
        first_row=torch.tensor([0, 2, 3, 6]),
        targets=torch.tensor([1, 0, 2]),
        truncated=0,
        pad_id=0,
        padding_side=side,
    )
    assert encoded.lengths.tolist() == [2, 3, 2]
    batch = encoded.batch(torch.tensor([2, 0]))
    assert batch.index is not None
    assert batch.index.tolist() == [0, 0, 0, 1, 1]
    assert (batch.examples, batch.targets.tolist()) == (2, [2, 1])
    wanted = {
        "right": [[7, 0], [8, 9], [5, 0], [1, 2], [3, 0]],
        "left": [[0, 7], [8, 9], [0, 5], [1, 2], [0, 3]],
    }
    assert batch.inputs["input_ids"].tolist() == wanted[side]


@pytest.mark.gpu
def test_on_a_device() -> None:
    encoded = tasks.encode(split_of(sentences(10), sentences(10, 1)), bert(), max_length=16)
    here, there = (encoded.batch(torch.arange(10), device=name) for name in ("cpu", "cuda"))
    assert {tensor.device.type for tensor in (*there.inputs.values(), there.targets)} == {"cuda"}
    for name, tensor in here.inputs.items():
        assert torch.equal(there.inputs[name].cpu(), tensor)


@pytest.mark.skipif(not REAL, reason="BEFTKIT_DATA is not set")
@pytest.mark.parametrize(("task", "suite", "cut"), [("sst2", "glue", 0), ("boolq", "superglue", 1)])
def test_the_real_tokenizer(task: str, suite: str, cut: int) -> None:
    from transformers import AutoTokenizer

    root = Path(REAL or "")
    tokenizer = AutoTokenizer.from_pretrained(root / "weights" / "all-MiniLM-L6-v2-fp16")
    split = tasks.load_task(task, data_dir=root / "data" / suite).validation["validation"]
    encoded = check(split.take(range(300)), tokenizer, 128)
    assert (encoded.truncated > 0) == bool(cut)


LENGTHS = st.lists(st.integers(1, 128), min_size=1, max_size=300).map(torch.tensor)
Plan = Callable[..., list[torch.Tensor]]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 99), st.booleans())
def test_every_example_once(
    lengths: torch.Tensor, size: int, seed: int, epoch: int, grouped: bool
) -> None:
    state = torch.get_rng_state()
    plans = [tasks.plan(lengths, size, seed=seed, epoch=epoch, grouped=grouped) for _ in range(2)]
    for batches in (*plans, tasks.plan_evaluation(lengths, size)):
        assert all(len(batch) == size for batch in batches[:-1])
        assert 0 < len(batches[-1]) <= size
        assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    assert all(torch.equal(a, b) for a, b in zip(*plans, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def waste(batches: list[torch.Tensor], lengths: torch.Tensor) -> float:
    """Share of the cells that is padding."""
    cells = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - float(lengths.sum()) / cells


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(600, 3000))
def test_grouping_saves_padding(seed: int, count: int) -> None:
    lengths = torch.from_numpy(np.random.default_rng(seed).lognormal(3, 0.6, count)).long() + 3
    plain, grouped = (
        waste(tasks.plan(lengths, 16, seed=seed, epoch=0, grouped=g), lengths) for g in (0, 1)
    )
    assert grouped < 0.8 * plain  # 0.37 as a rule
    assert waste(tasks.plan_evaluation(lengths, 16), lengths) < grouped


@pytest.mark.parametrize("grouped", [True, False])
def test_epochs_and_seeds_differ(grouped: bool) -> None:
    lengths = torch.randint(5, 40, (200,), generator=torch.Generator().manual_seed(0))
    first = {
        tuple(tasks.plan(lengths, 16, seed=seed, epoch=epoch, grouped=grouped)[0].tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(first) == 25


def test_evaluation_is_longest_first() -> None:
    batches = tasks.plan_evaluation(torch.tensor([3, 9, 3, 7, 9]), 2)
    assert [batch.tolist() for batch in batches] == [[1, 4], [3, 0], [2]]
    lengths = torch.arange(3000) % 7  # so many that a sort may shuffle equal ones
    found = torch.cat(tasks.plan_evaluation(lengths, 16)).tolist()
    assert found == sorted(range(3000), key=lambda i: -(i % 7))
