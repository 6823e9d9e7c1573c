"""Texts to token ids, once, packed without padding; and batches cut from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from beftkit.errors import BeftError, option
from beftkit.tasks.data import Split
from beftkit.tasks.prompts import Prompted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Rows per call of the tokenizer: its lists of Python integers are large.
CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples in R rows of T tokens, ready for a model.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, int64 [R, T]; ``token_type_ids`` likewise
            where the examples have them; ``answer_at``, int64 [R, A], where their rows end in an
            answer, or hold tokens that are learnt: the places of these tokens in the row, -1 behind
            those of a row with fewer.
            Where a row is a prompt alone ``among``, int64 [R, C]: the tokens that may follow it.
        targets: [B], class ids as int64, or values as float32.
            Where answers are to be written ``prompt_input_ids`` and ``prompt_attention_mask``,
            int64 [R, P], the prompts alone, filled up on the left.
        index: int64 [R], which of the B examples a row belongs to; None: row i is example i.
        tokenizer: makes texts of what is written; None: nothing is.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    index: Tensor | None = None
    tokenizer: Any = None

    @property
    def examples(self) -> int:
        """B."""
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Encoded:
    """N examples in R rows of tokens, back to back: one row each, or one for each of its answers.

    Attributes:
        ids: int32 [tokens].
        type_ids: uint8 [tokens], or None where the tokenizer makes none or only zeros, which is
            what a model takes for granted.
        starts: int64 [R + 1], where rows begin in ``ids``.
        first_row: int64 [N + 1], where examples begin among the rows.
        targets: [N], class ids as int64, or values as float32.
        truncated: examples that were cut at ``max_length``.
        pad_id, pad_type_id: what rows are filled up with.
        padding_side: ``right`` or ``left``, the tokenizer's.
        pad_to_multiple_of: round the width of batches up; None: the longest row.
        notes: what a user should be told, one line each.
        by_length: whether evaluation puts rows of one length together, as padding would be read.
        answers: int64 [R], how many of a row's last tokens are its answer; None: there are none.
        asked: the N examples as a causal model is asked, for what metrics want to know of them;
            empty where a head reads texts.
        prompts: the N prompts alone, where answers are to be written.
        tokenizer: as in `Batch`.
        learnt: uint8 [tokens], 1 where a token is learnt, wherever in a row; None: ``answers`` say
            it, or nothing is.
        among: int64 [N, C], of examples whose rows are their prompts alone the tokens of their
            answers, one each; None: rows hold answers, or there are none.
    """

    ids: Tensor
    type_ids: Tensor | None
    starts: Tensor
    first_row: Tensor
    targets: Tensor
    truncated: int
    pad_id: int
    pad_type_id: int = 0
    padding_side: str = "right"
    pad_to_multiple_of: int | None = None
    notes: tuple[str, ...] = ()
    by_length: bool = False
    answers: Tensor | None = None
    asked: tuple[Prompted, ...] = ()
    prompts: Encoded | None = None
    tokenizer: Any = None
    learnt: Tensor | None = None
    among: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def row_lengths(self) -> Tensor:
        """int64 [R], tokens of each row."""
        return self.starts.diff()

    @cached_property
    def lengths(self) -> Tensor:
        """int64 [N], tokens of each example's longest row."""
        if self._one_row_each:
            return self.row_lengths
        rows = torch.segment_reduce(self.row_lengths.double(), "max", lengths=self.first_row.diff())
        return rows.long()

    def take(self, examples: Tensor) -> Encoded:
        """The examples of these numbers, int64 [n], in this order; for few of them."""
        chosen = [torch.arange(*self.first_row[n : n + 2].tolist()) for n in examples.tolist()]
        rows = torch.cat(chosen)
        cells = [torch.arange(*self.starts[row : row + 2].tolist()) for row in rows.tolist()]
        at = torch.cat(cells)
        zero = torch.zeros(1, dtype=torch.int64)
        return replace(
            self,
            ids=self.ids[at],
            type_ids=None if self.type_ids is None else self.type_ids[at],
            starts=torch.cat([zero, self.row_lengths[rows].cumsum(0)]),
            first_row=torch.cat([zero, torch.tensor([len(one) for one in chosen]).cumsum(0)]),
            targets=self.targets[examples],
            answers=None if self.answers is None else self.answers[rows],
            asked=tuple(self.asked[n] for n in examples.tolist()) if self.asked else (),
            prompts=None if self.prompts is None else self.prompts.take(examples),
            learnt=None if self.learnt is None else self.learnt[at],
            among=None if self.among is None else self.among[examples],
        )

    def batch(
        self,
        examples: Tensor,
        *,
        device: torch.device | str | None = None,
        pad_to: int | None = None,
    ) -> Batch:
        """Cut a batch out, filled up to its longest row.

        Args:
            examples: int64 [B], numbers of examples.
            device: where to; a CUDA device is copied to without waiting. None: the CPU.
            pad_to: fill up to this width instead, at least that of the longest row.
        """
        if self._one_row_each:
            rows, index = examples, None
        else:
            index, rows = self._rows(examples)
        lengths = self.row_lengths[rows]
        width = int(lengths.max())
        if pad_to is not None:
            if pad_to < width:
                raise ValueError(f"pad_to={pad_to}, but a row has {width} tokens")
            width = pad_to
        elif self.pad_to_multiple_of:
            width += -width % self.pad_to_multiple_of
        offset = self._positions[:width]
        if self.padding_side == "left":
            offset = offset - (width - lengths).unsqueeze(1)
            mask = offset >= 0
        else:
            mask = offset < lengths.unsqueeze(1)
        # Every cell of padding reads the one pad token behind the last row.
        where = torch.where(mask, self.starts[rows].unsqueeze(1) + offset, len(self.ids))
        inputs = {"input_ids": self._padded_ids[where].long(), "attention_mask": mask.long()}
        if self._padded_types is not None:
            inputs["token_type_ids"] = self._padded_types[where].long()
        if self.answers is not None:
            counts = self.answers[rows].unsqueeze(1)
            behind = width if self.padding_side == "left" else lengths.unsqueeze(1)
            place = torch.arange(int(counts.max()))
            inputs["answer_at"] = torch.where(place < counts, behind - counts + place, -1)
        if self.among is not None:
            inputs["among"] = self.among[examples]
        if self.prompts is not None:
            alone = self.prompts.batch(examples).inputs
            inputs |= {f"prompt_{name}": value for name, value in alone.items()}
        if self._padded_learnt is not None:
            learnt = self._padded_learnt[where].bool()
            counts = learnt.sum(1, keepdim=True)
            place = torch.arange(int(counts.max()))
            found = learnt.long().argsort(dim=1, descending=True, stable=True)[:, : len(place)]
            inputs["answer_at"] = torch.where(place < counts, found, -1)
        return _moved(Batch(inputs, self.targets[examples], index, self.tokenizer), device)

    @cached_property
    def _one_row_each(self) -> bool:
        return len(self.starts) == len(self.first_row) and len(self.starts) == len(self) + 1

    def _rows(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Example within the batch, and row, of every row of these examples; both int64 [rows]."""
        first = self.first_row[examples]
        counts = self.first_row[examples + 1] - first
        index = torch.repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        return index, torch.arange(len(index)) + (first - before)[index]

    @cached_property
    def _positions(self) -> Tensor:
        longest = int(self.row_lengths.max()) if len(self.row_lengths) else 0
        return torch.arange(max(longest + (self.pad_to_multiple_of or 0), 4096))

    @cached_property
    def _padded_ids(self) -> Tensor:
        return torch.cat([self.ids, self.ids.new_tensor([self.pad_id])])

    @cached_property
    def _padded_types(self) -> Tensor | None:
        if self.type_ids is None:
            return None
        return torch.cat([self.type_ids, self.type_ids.new_tensor([self.pad_type_id])])

    @cached_property
    def _padded_learnt(self) -> Tensor | None:
        return None if self.learnt is None else torch.cat([self.learnt, self.learnt.new_zeros(1)])


def _moved(batch: Batch, device: torch.device | str | None) -> Batch:
    device = torch.device(device or "cpu")
    if device.type == "cpu":
        return batch

    def move(tensor: Tensor) -> Tensor:
        # Only from pinned memory does a copy to CUDA return before it is done.
        source = tensor.pin_memory() if device.type == "cuda" else tensor
        return source.to(device, non_blocking=True)

    return Batch(
        {name: move(tensor) for name, tensor in batch.inputs.items()},
        move(batch.targets),
        None if batch.index is None else move(batch.index),
        batch.tokenizer,
    )


def encode(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    pad_to_multiple_of: int | None = None,
    allow_empty: bool = False,
) -> Encoded:
    """Tokenise a split.

    Args:
        split: one or two text fields; pairs are cut from the longer text first.
        tokenizer: of transformers, loaded for the model. Where it has no pad token, the
            end-of-sequence token takes its place, and the model's ``config.pad_token_id`` has to
            be set to `Encoded.pad_id` (GPT-2, Qwen2 and others find the last token by it).
        max_length: most tokens of a row, special ones included.
        pad_to_multiple_of: round the width of batches up.
        allow_empty: keep a row that has no token, for whoever puts it into no batch.

    Raises:
        BeftError: no pad token can be had, ``max_length`` leaves no room beside the special
            tokens, or a text gives no token at all.
    """
    pad_id, notes = _pad_id(tokenizer)
    ids: list[Any] = []
    types: list[Any] = []
    lengths: list[int] = []
    truncated = 0
    for texts in _chunks(split):
        rows, cut = _tokenise(tokenizer, texts, max_length)
        truncated += cut
        lengths += map(len, rows["input_ids"])
        ids.append(_flat(rows["input_ids"], np.int32))
        if "token_type_ids" in rows:
            types.append(_flat(rows["token_type_ids"], np.uint8))
    if 0 in lengths and not allow_empty:
        text = " / ".join(field[lengths.index(0)] for field in split.texts)
        raise BeftError(
            f"example {lengths.index(0) + 1} of {len(split)}: {text!r} gives no token; leave it out"
        )
    type_ids = torch.from_numpy(np.concatenate(types)) if types else None
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Encoded(
        ids=torch.from_numpy(np.concatenate([*ids, np.empty(0, np.int32)])),
        type_ids=type_ids if type_ids is not None and type_ids.any() else None,
        starts=torch.from_numpy(starts),
        first_row=torch.arange(len(split) + 1),
        targets=torch.from_numpy(split.targets),
        truncated=truncated,
        pad_id=pad_id,
        pad_type_id=tokenizer.pad_token_type_id,
        padding_side=tokenizer.padding_side,
        pad_to_multiple_of=pad_to_multiple_of,
        notes=notes,
    )


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> tuple[int, tuple[str, ...]]:
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id), ()
    if tokenizer.eos_token_id is None:
        raise BeftError("the tokenizer has neither a pad nor an end-of-sequence token to pad with")
    note = f"the tokenizer has no pad token; padded with {tokenizer.eos_token!r}"
    return int(tokenizer.eos_token_id), (note,)


def _chunks(split: Split) -> Iterator[list[list[str]]]:
    for start in range(0, len(split), CHUNK):
        yield [field[start : start + CHUNK] for field in split.texts]


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], max_length: int
) -> tuple[Any, int]:
    """The rows' ids and types as lists, and how many rows were cut."""
    options = {"return_attention_mask": False, "padding": False, "verbose": False}
    try:
        rows = tokenizer(*texts, truncation="longest_first", max_length=max_length, **options)
    except Exception as error:  # a Rust panic of tokenizers has no better class
        place = option("max_length", max_length)
        raise BeftError(f"{place}: the tokenizer refuses ({error})") from None
    special = tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
    if special >= max_length or max(map(len, rows["input_ids"])) > max_length:
        place = option("max_length", max_length)
        raise BeftError(f"{place} leaves no room for text beside the special tokens; raise it")
    if tokenizer.is_fast:
        return rows, sum(bool(row.overflowing) for row in rows.encodings)
    whole = tokenizer(*texts, truncation=False, **options)["input_ids"]
    return rows, sum(len(row) > max_length for row in whole)


def _flat(rows: list[list[int]], dtype: type) -> Any:
    return np.fromiter(chain.from_iterable(rows), dtype=dtype, count=sum(map(len, rows)))
