"""Demonstrations: solved examples that stand before a prompt (in-context learning)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from beftkit.errors import BeftError, option
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
        pool: how many there were to draw from.
        evaluated: how many more there would be, were they not evaluated.
    """

    split: Split
    left_out: int = 0
    shortened: int = 0
    pool: int = 0
    evaluated: int = 0


def demonstrate(
    split: Split,
    others: Split,
    how: Shots,
    max_length: int,
    lengths_of: Callable[[Sequence[Prompted]], Sequence[int]],
    tokenizer: Any,
) -> Demonstrated:
    """Put demonstrations before the prompts of examples.

    Those that do not fit are left out whole, from the last on: what examples with one draw have is
    the same text from its beginning on, and in draws of their own the last is any. None is one of
    the N examples that are evaluated, wherever it stands: a prompt like one of theirs is left out.

    Args:
        split: N prompts.
        others: prompts to draw from.
        how: the draws.
        max_length: tokens an example may take.
        lengths_of: how many it takes, of each; `Objective.lengths`.
        tokenizer: the model's.

    Raises:
        BeftError: there are not that many examples to draw from.
    """
    evaluated = {one.prompt for one in split.asked}
    pool = [one for one in others.asked if one.right]
    free = [one.prompt not in evaluated for one in pool]
    if sum(free) < how.count:
        raise BeftError(
            f"{option('shots', how.count)}: there are {sum(free)} examples with an answer to draw "
            "from, beside those that are evaluated; lower it, or give more"
        )
    texts = [_solved(one) for one in pool]
    drawn = [*_draws(split.asked, free, how)]
    kept = [how.count] * len(drawn)
    sizes: dict[int, int] = {}
    asked = [*split.asked]
    # First by the longest answer alone: an example may have dozens, and all share the prompt.
    for alone in (True, False) if any(len(one.answers) > 1 for one in asked) else (False,):
        waiting: Sequence[int] = range(len(drawn))
        while waiting:
            for n in waiting:
                shown = [texts[at] for at in drawn[n][: kept[n]]]
                prompt = BETWEEN.join([*shown, split.asked[n].prompt])
                asked[n] = replace(split.asked[n], prompt=prompt)
            lengths = lengths_of([_of_one(asked[n]) if alone else asked[n] for n in waiting])
            over = {n: by - max_length for n, by in zip(waiting, lengths, strict=True)}
            waiting = [n for n in waiting if over[n] > 0 and kept[n]]
            new = {at for n in waiting for at in drawn[n]} - {*sizes}
            sizes |= {at: _tokens(texts[at], tokenizer) for at in new}
            for n in waiting:
                kept[n] -= _least(over[n], [sizes[at] for at in drawn[n][: kept[n]]])
    fewer = [how.count - one for one in kept]
    counts = sum(fewer), sum(map(bool, fewer)), sum(free), len(free) - sum(free)
    return Demonstrated(replace(split, asked=tuple(asked)), *counts)


def _solved(one: Prompted) -> str:
    return (one.prompt + one.answers[one.right[0]]).strip()


def _of_one(one: Prompted) -> Prompted:
    """With its longest answer alone, which takes no more tokens than all of them."""
    longest = max(range(len(one.answers)), key=lambda at: len(one.answers[at]), default=None)
    return one if longest is None else replace(one, answers=(one.answers[longest],), right=(0,))


def _draws(asked: Sequence[Prompted], free: Sequence[bool], how: Shots) -> Iterator[list[int]]:
    """Numbers of the examples that stand before each one.

    Args:
        asked: N.
        free: which may; the order they are drawn in does not depend on it.
        how: the draws.
    """
    if how.common:
        yield from [_drawn(free, how.count, [how.seed])] * len(asked)
        return
    for one in asked:
        own = hashlib.sha256(one.prompt.encode(errors="surrogatepass")).digest()
        yield _drawn(free, how.count, [how.seed, int.from_bytes(own[:8], "big")])


def _drawn(free: Sequence[bool], count: int, seed: Sequence[int]) -> list[int]:
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(free)).tolist()
    return [*islice((at for at in order if free[at]), count)]


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
