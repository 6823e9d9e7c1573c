"""One standard error of each figure of chosen answers, as `beftkit.tasks.standard_errors` has them.

Answers to one question of MultiRC are right or wrong together, so its errors are those of a sample
of questions: as many single answers would be known better than these are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from beftkit.tasks.answer_metrics import hits, hits_by_group
from beftkit.tasks.deviations import DRAWS, SEED, standard_errors
from beftkit.tasks.prompts import Prompted


def chosen_errors(
    metrics: Sequence[Any], chosen: Sequence[int], prompts: Sequence[Prompted]
) -> dict[str, float]:
    """How far each figure would scatter over other samples of as many examples.

    ``accuracy``: sqrt(sum over groups of (sum over its examples of hit - accuracy)^2) / N, of
    examples without groups sqrt(p (1 - p) / N); ``multirc_em``: sqrt(p (1 - p) / questions);
    ``multirc_f1a``: the deviation of bootstrap samples of questions.

    Args:
        metrics, chosen, prompts: as `beftkit.tasks.measure_chosen` took them; metrics that are none
            of ours are passed over.

    Returns:
        Name -> standard error; NaN where there is none.
    """
    found: dict[str, float] = {}
    grouped = all(one.group for one in prompts)
    for name in metrics:
        if name == "accuracy":
            groups = (
                hits_by_group(chosen, prompts, whole=False)
                if grouped
                else [[one] for one in hits(chosen, prompts)]
            )
            found[name] = _of_mean(groups)
        elif name == "multirc_em" and grouped:
            wholly = [[all(one)] for one in hits_by_group(chosen, prompts, whole=True)]
            found[name] = _of_mean(wholly) if wholly else math.nan
        elif name == "multirc_f1a":
            found[name] = _of_f1a(chosen, prompts)
        else:
            found |= standard_errors([name], chosen, [one.right[0] for one in prompts])
    return found


def _of_mean(groups: Sequence[Sequence[bool]]) -> float:
    count = sum(map(len, groups))
    mean = sum(map(sum, groups)) / count
    return math.sqrt(sum((sum(one) - mean * len(one)) ** 2 for one in groups)) / count


def _of_f1a(chosen: Sequence[int], prompts: Sequence[Prompted]) -> float:
    names: dict[str, int] = {}
    rows = [names.setdefault(one.group or f" {at}", len(names)) for at, one in enumerate(prompts)]
    said = np.array([int(one) == 1 for one in chosen])
    true = np.array([one.right[0] == 1 for one in prompts])
    counts = np.zeros((len(names), 2))  # twice the true positives; said and true together
    np.add.at(counts, rows, np.stack([2 * (said & true), said.astype(int) + true], 1))
    chances = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(SEED).multinomial(len(names), chances, size=DRAWS) @ counts
    scores = drawn[:, 0] / np.maximum(drawn[:, 1], 1)  # 0 where nothing is said nor true
    return float(scores.std(ddof=1))
