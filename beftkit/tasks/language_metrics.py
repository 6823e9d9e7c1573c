"""How well a model knows texts: perplexity and token accuracy, over the tokens of all examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.errors import BeftError, option
from beftkit.tasks.deviations import DRAWS, SEED
from beftkit.tasks.metrics import LANGUAGE_METRICS

#: of an example: -log p of its learnt tokens, how many were the likeliest, how many there are
Counted = tuple[float, float, float]
Values = npt.NDArray[np.float64]


def check_language(metrics: Sequence[Any]) -> None:
    """Refuse a metric of something else.

    Raises:
        BeftError: it names those there are.
    """
    for one in metrics:
        if one not in LANGUAGE_METRICS:
            name = one if isinstance(one, str) else one.name
            raise BeftError(
                f"{option('metric', name)}: is not for texts that are learnt; expected "
                f"{' or '.join(LANGUAGE_METRICS)}"
            )


def measure_language(metrics: Sequence[Any], counted: Sequence[Counted]) -> dict[str, float]:
    """``perplexity``: exp of the mean -log p over all tokens, infinite beyond all measure;
    ``token_accuracy``: the share of tokens that were the likeliest.

    Args:
        metrics: of `beftkit.tasks.metrics.LANGUAGE_METRICS`.
        counted: [N].

    Raises:
        BeftError: no examples, or a metric of something else.
    """
    check_language(metrics)
    if not len(counted):
        raise BeftError("no examples: no metric")
    sums = np.asarray(counted, "float64").sum(axis=0, keepdims=True)
    return {name: float(_measured(name, sums)[0]) for name in metrics}


def language_errors(metrics: Sequence[Any], counted: Sequence[Counted]) -> dict[str, float]:
    """One standard error of each: the deviation over `DRAWS` bootstrap samples of the examples,
    whose tokens go together. NaN of a single example.
    """
    table = np.asarray(counted, "float64")
    count = len(table)
    if count < 2:
        return dict.fromkeys(metrics, math.nan)
    random, sums = np.random.default_rng(SEED), np.empty((DRAWS, 3))
    chances = np.full(count, 1 / count)
    for draw in range(DRAWS):  # one after the other: files may have millions of rows
        sums[draw] = random.multinomial(count, chances) @ table
    return {name: _deviation(_measured(name, sums)) for name in metrics}


def _measured(name: str, sums: Values) -> Values:
    """A metric of sums over examples, [n, 3]."""
    if name == "token_accuracy":
        return np.asarray(sums[:, 1] / sums[:, 2])
    with np.errstate(over="ignore"):
        return np.exp(sums[:, 0] / sums[:, 2])


def _deviation(samples: Values) -> float:
    known = samples[np.isfinite(samples)]
    return float(known.std(ddof=1)) if len(known) == len(samples) else math.nan
