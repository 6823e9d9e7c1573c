"""Demonstrations: solved training examples that stand before a prompt (in-context learning)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beftkit.errors import BeftError, option
from beftkit.objectives.prompts import longest_rows
from beftkit.tasks import Split
from beftkit.tasks.prompts import Prompted

#: between demonstrations, and before the prompt: as published
BETWEEN = "\n\n"
#: tokens that a demonstration may be longer among others than alone
_SLACK = 4


@dataclass(frozen=True)
class Shots:
    """How many demonstrations stand before each example, and how they are drawn.

    Attributes:
        count: so many.
        common: one draw for all examples, not a new one for each.
        seed: of the draws. An example's own follows from it and its prompt, whatever else is
            evaluated, and a smaller number is the beginning of a larger one.
    """

    count: int
    common: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Demonstrated:
    """Examples with their demonstrations.

    Attributes:
        split: they.
        left_out: demonstrations that found no room within the most tokens of a row.
        shortened: examples that have fewer therefore.
    """

    split: Split
    left_out: int = 0
    shortened: int = 0


def demonstrate(
    split: Split, train: Split, how: Shots, tokenizer: Any, max_length: int
) -> Demonstrated:
    """Put demonstrations before the prompts of examples.

    Those that do not fit are left out whole, from the last on: what examples with one draw have is
    the same text from its beginning on, and in draws of their own the last is any. An evaluated
    example is never shown with its answer.

    Args:
        split: N prompts.
        train: prompts to draw from.
        how: the draws.
        tokenizer: the model's.
        max_length: tokens a row may have.

    Raises:
        BeftError: there are not that many examples to draw from.
    """
    pool = [one for one in train.asked if one.right]
    texts = [_solved(one) for one in pool]
    drawn = [*_draws(split.asked, pool, how)]
    kept = [how.count] * len(drawn)
    sizes: dict[int, int] = {}
    waiting: Sequence[int] = range(len(drawn))
    asked = [*split.asked]
    while waiting:
        for n in waiting:
            shown = [texts[at] for at in drawn[n][: kept[n]]]
            prompt = BETWEEN.join([*shown, split.asked[n].prompt])
            asked[n] = replace(split.asked[n], prompt=prompt)
        lengths = longest_rows([asked[n] for n in waiting], tokenizer)
        over = {n: by - max_length for n, by in zip(waiting, lengths, strict=True)}
        waiting = [n for n in waiting if over[n] > 0 and kept[n]]
        new = {at for n in waiting for at in drawn[n]} - {*sizes}
        sizes |= {at: _tokens(texts[at], tokenizer) for at in new}
        for n in waiting:
            kept[n] -= _least(over[n], [sizes[at] for at in drawn[n][: kept[n]]])
    fewer = [how.count - one for one in kept]
    return Demonstrated(replace(split, asked=tuple(asked)), sum(fewer), sum(map(bool, fewer)))


def _solved(one: Prompted) -> str:
    return (one.prompt + one.answers[one.right[0]]).strip()


def _draws(asked: Sequence[Prompted], pool: Sequence[Prompted], how: Shots) -> Iterator[list[int]]:
    """Numbers of the training examples that stand before each example."""
    if how.common:
        evaluated = {one.prompt for one in asked}
        same = _drawn(evaluated, pool, how.count, [how.seed])
        yield from [same] * len(asked)
        return
    for one in asked:
        own = hashlib.sha256(one.prompt.encode(errors="surrogatepass")).digest()
        yield _drawn({one.prompt}, pool, how.count, [how.seed, int.from_bytes(own[:8], "big")])


def _drawn(but: set[str], pool: Sequence[Prompted], count: int, seed: Sequence[int]) -> list[int]:
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(pool)).tolist()
    found: list[int] = []
    for at in order:
        if len(found) == count:
            break
        if pool[at].prompt not in but:
            found.append(at)
    if len(found) < count:
        raise BeftError(
            f"{option('shots', count)}: there are {len(found)} training examples with an answer, "
            "beside those that are evaluated; lower it"
        )
    return found


def _least(over: int, sizes: Sequence[int]) -> int:
    """How many from the end have to go at least, so that a row has so many tokens less."""
    gone = 0
    for number, size in enumerate(reversed(sizes), 1):
        gone += size + _SLACK
        if gone >= over:
            return number
    return len(sizes)


def _tokens(text: str, tokenizer: Any) -> int:
    return len(tokenizer(text + BETWEEN, add_special_tokens=False, verbose=False)["input_ids"])
