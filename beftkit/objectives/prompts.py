"""Prompts and their answers to tokens: where an answer begins is found among the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from beftkit.errors import BeftError
from beftkit.tasks import Encoded
from beftkit.tasks.prompts import Prompted

#: examples per call of the tokenizer: places of characters are lists of Python's pairs
CHUNK = 1024


@dataclass(frozen=True)
class Row:
    """A prompt and one answer as tokens.

    Attributes:
        ids: all of them; what the tokenizer puts behind a text (an end token) is left out.
        first: where the answer begins: the first token that holds some of its text. A token that
            holds the end of the prompt as well is the answer's.
        start: how many tokens the tokenizer puts before a text.
    """

    ids: list[int]
    first: int
    start: int


def encode_prompts(
    examples: Sequence[Prompted], targets: Any, tokenizer: Any, max_length: int
) -> Encoded:
    """One row for each answer of each example, prompt and answer together.

    Rows that are too long lose the beginning of their prompt, all rows of an example alike; never
    a token of the answer, nor what the tokenizer puts before a text.

    Args:
        examples: N, each with one answer or more.
        targets: [N], what the objective compares its predictions with.
        tokenizer: of transformers, with a pad token.
        max_length: most tokens of a row, special ones included.

    Raises:
        BeftError: an example without answers, an answer that gives no token, that has nothing
            before it, or that leaves no room for its prompt.
    """
    ids: list[int] = []
    lengths: list[int] = []
    answers: list[int] = []
    truncated = 0
    for number, rows in enumerate(_rows(examples, tokenizer), 1):
        where = f"example {number} of {len(examples)}"
        over = max(0, max(len(row.ids) for row in rows) - max_length)
        truncated += over > 0
        for row in rows:
            ids += row.ids[: row.start]
            ids += _cut(row, over, max_length, where)
            lengths.append(len(row.ids) - over)
            answers.append(len(row.ids) - row.first)
    counts = [len(one.answers) for one in examples]
    return Encoded(
        ids=torch.tensor(ids, dtype=torch.int32),
        type_ids=None,
        starts=_sums(lengths),
        first_row=_sums(counts),
        targets=torch.as_tensor(np.asarray(targets)),
        truncated=truncated,
        pad_id=int(tokenizer.pad_token_id),
        padding_side=tokenizer.padding_side,
        answers=torch.tensor(answers),
        asked=tuple(examples),
    )


def without_answers(encoded: Encoded) -> Encoded:
    """One row for each example, its prompt alone, where every answer is one token behind it.

    How likely these are its last place tells, so that more rows tell no more. As it is where an
    answer has several tokens, takes one of the prompt's into itself, or examples have other numbers
    of answers.
    """
    counts, lengths, first = encoded.first_row.diff(), encoded.row_lengths, encoded.first_row[:-1]
    if encoded.answers is None or bool((encoded.answers != 1).any()):
        return encoded
    most = int(counts.max())
    if bool((counts != most).any()) or bool((lengths.view(-1, most) != lengths[first, None]).any()):
        return encoded
    own = lengths[first] - 1
    starts = torch.cat([own.new_zeros(1), own.cumsum(0)])
    place = torch.arange(int(starts[-1])) - starts[:-1].repeat_interleave(own)
    at = encoded.starts[first].repeat_interleave(own) + place
    for number in range(1, most):
        other = at + (number * lengths[first]).repeat_interleave(own)
        if not torch.equal(encoded.ids[at], encoded.ids[other]):
            return encoded
    return replace(
        encoded,
        ids=encoded.ids[at],
        starts=starts,
        first_row=torch.arange(len(own) + 1),
        answers=None,
        among=encoded.ids[encoded.starts[1:] - 1].view(-1, most).long(),
    )


def longest_rows(examples: Sequence[Prompted], tokenizer: Any) -> list[int]:
    """Tokens of each example's longest row, were none cut.

    Raises:
        BeftError: as `encode_prompts`, of answers.
    """
    return [max(len(row.ids) for row in rows) for rows in _rows(examples, tokenizer)]


def _cut(row: Row, over: int, max_length: int, where: str) -> list[int]:
    """A row behind its start, without as many tokens of its prompt."""
    if over and row.first - row.start <= over:
        raise BeftError(
            f"{where}: its longest answer leaves no room for the prompt within {max_length} tokens"
            " (--max-length); raise that, or leave the example out"
        )
    if row.first == 0:
        raise BeftError(
            f"{where}: nothing stands before its answer, so a causal model cannot tell how likely"
            " that is; give it a prompt"
        )
    return row.ids[row.start + over :]


def _sums(counts: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))


def _rows(examples: Sequence[Prompted], tokenizer: Any) -> Iterator[list[Row]]:
    """The rows of each example."""
    whole = _Whole(tokenizer)
    for begin in range(0, len(examples), CHUNK):
        some = examples[begin : begin + CHUNK]
        for number, one in enumerate(some, begin + 1):
            if not one.answers or not all(one.answers):
                what = "an empty answer" if one.answers else "no answers"
                raise BeftError(f"example {number} of {len(examples)}: {what}; leave it out")
        pairs = [(one.prompt, answer) for one in some for answer in one.answers]
        made = _tokenised([prompt + answer for prompt, answer in pairs], tokenizer)
        rows = (whole.row(*pair, found) for pair, found in zip(pairs, made, strict=True))
        for number, one in enumerate(some, begin + 1):
            own = [next(rows) for _ in one.answers]
            if any(row.first == len(row.ids) for row in own):
                answer = next(a for a, r in zip(one.answers, own, strict=True)
                              if r.first == len(r.ids))  # fmt: skip
                raise BeftError(
                    f"example {number} of {len(examples)}: the answer {answer!r} gives no token of"
                    " its own behind its prompt; leave it out, or give another tokenizer"
                )
            yield own


#: of a text: ids, which of them are special (1), and where their characters end, if that is known
_Tokens = tuple[list[int], list[int], list[int] | None]


def _tokenised(texts: list[str], tokenizer: Any) -> Iterator[_Tokens]:
    made = tokenizer(
        texts, return_special_tokens_mask=True, return_attention_mask=False,
        return_token_type_ids=False, return_offsets_mapping=tokenizer.is_fast, verbose=False,
    )  # fmt: skip
    for at, ids in enumerate(made["input_ids"]):
        ends = [end for _, end in made["offset_mapping"][at]] if tokenizer.is_fast else None
        yield ids, made["special_tokens_mask"][at], ends


class _Whole:
    """Finds where answers begin, so that their text is whole.

    The place of the characters tells; whether the text comes back from the tokens is looked at,
    once for each that is met. Where it does not, or where a tokenizer tells no places, the answer
    begins where its prompt's own tokens end to be the row's: early rather than late, as tokens
    that the prompt's end and the answer share are then the answer's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[tuple[str, tuple[int, ...]], bool] = {}

    def row(self, prompt: str, answer: str, tokens: _Tokens) -> Row:
        ids, special, ends = tokens
        start, end = _ends_of(special)
        ids = ids[:end]
        if ends is not None:
            first = end
            while first > start and ends[first - 1] > len(prompt):
                first -= 1
            if self.comes_back(answer, ids[first:]):
                return Row(ids, first, start)
        own, marks, _ = next(_tokenised([prompt], self.tokenizer))
        own = own[: _ends_of(marks)[1]]
        pairs = zip(own, ids, strict=False)
        same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(own), len(ids)))
        return Row(ids, max(same, start), start)

    def comes_back(self, answer: str, ids: list[int]) -> bool:
        """Whether the answer's text is in these tokens, but for blanks and case."""
        key = answer, tuple(ids)
        if key not in self.known:
            text = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            self.known[key] = _bare(text).endswith(_bare(answer))
        return self.known[key]


def _ends_of(special: Sequence[int]) -> tuple[int, int]:
    """Where a text begins and ends between what its tokenizer puts around it."""
    start, end = 0, len(special)
    while start < end and special[start]:
        start += 1
    while end > start and special[end - 1]:
        end -= 1
    return start, end


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()


def prompt_tokens(prompts: Sequence[str], tokenizer: Any) -> Iterator[tuple[list[int], int]]:
    """Of each prompt alone its ids, without what the tokenizer puts behind a text; and `start`."""
    for begin in range(0, len(prompts), CHUNK):
        for ids, special, _ in _tokenised([*prompts[begin : begin + CHUNK]], tokenizer):
            start, end = _ends_of(special)
            yield ids[:end], start
