"""How right answers are: texts that a model wrote, and the one it chose among several.

All are shares from 0 to 1. SQuAD's exact match and F1 are those of its script for version 1.1,
DROP's those of its paper (Dua et al. 2019) as its own evaluation computes them, MultiRC's those
that SuperGLUE reports.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from itertools import starmap
from typing import Any

import numpy as np

from beftkit.errors import BeftError, option
from beftkit.tasks.metrics import compute_metrics
from beftkit.tasks.prompts import Prompted

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_GAPS = re.compile("[ -]")


def measure_written(
    metrics: Sequence[str], written: Sequence[str], prompts: Sequence[Prompted]
) -> dict[str, float]:
    """Means over the examples of how right the written answers are.

    Args:
        metrics: names of `WRITTEN_METRICS`.
        written: [N], without prompt and without what follows the answer's line.
        prompts: [N], with their right answers.

    Raises:
        BeftError: nothing to compare, or a metric for something else.
    """
    _check(metrics, WRITTEN_METRICS, written, prompts)
    for name in metrics:
        if name.startswith("drop_") and not all(one.bags for one in prompts):
            raise BeftError(
                f"{option('metric', name)}: is for answers of several spans, which only DROP's own "
                "data keep apart; expected token_f1 or exact_match"
            )
    return {
        name: float(np.mean([*starmap(WRITTEN_METRICS[name], zip(written, prompts, strict=True))]))
        for name in metrics
    }


def written_errors(
    metrics: Sequence[str], written: Sequence[str], prompts: Sequence[Prompted]
) -> dict[str, float]:
    """One standard error of each mean of `measure_written`: deviation (n - 1) / sqrt(N).

    NaN for a single example. Arguments as there.
    """
    found = {}
    for name in metrics:
        pairs = zip(written, prompts, strict=True)
        each = np.array([*starmap(WRITTEN_METRICS[name], pairs)])
        spread = each.std(ddof=1) if len(each) > 1 else math.nan
        found[name] = float(spread) / math.sqrt(len(each))
    return found


def measure_chosen(
    metrics: Sequence[Any], chosen: Sequence[int], prompts: Sequence[Prompted]
) -> dict[str, float]:
    """How right the chosen answers are.

    Args:
        metrics: names of `CHOSEN_METRICS`; or of `beftkit.tasks.METRIC_NAMES`, or what
            `load_metric` returned, where every example has the same answers.
        chosen: [N], numbers of ``answers``.
        prompts: [N], with the numbers of the right ones.

    Raises:
        BeftError: nothing to compare, or a metric for something else.
    """
    _check((), {}, chosen, prompts)
    found: dict[str, float] = {}
    for name in metrics:
        if isinstance(name, str) and name in CHOSEN_METRICS:
            found[name] = CHOSEN_METRICS[name](chosen, prompts)
        else:
            found |= compute_metrics([name], chosen, [one.right[0] for one in prompts])
    return found


def _check(
    metrics: Sequence[str],
    known: Collection[str],
    found: Sequence[object],
    wanted: Sequence[object],
) -> None:
    for name in metrics:
        if name not in known:
            said = name if isinstance(name, str) else getattr(name, "name", name)
            place = option("metric", said)
            raise BeftError(f"{place}: for written answers expected {', '.join(known)}")
    if len(found) != len(wanted) or not len(found):
        raise BeftError(f"{len(found)} answers for {len(wanted)} examples: no metric")


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 if the answer is one of these but for case, punctuation, articles and blanks; else 0."""
    return float(any(plain(answer) == plain(one) for one in gold))


def token_f1(answer: str, gold: Sequence[str]) -> float:
    """The best F1 of the answer's words and those of one of these, as bags, both made `plain`."""
    return max((_token_f1(plain(answer).split(), plain(one).split()) for one in gold), default=0.0)


def _token_f1(found: list[str], wanted: list[str]) -> float:
    same = (Counter(found) & Counter(wanted)).total()
    # Twice the shared over all: 0, not 1, where both are empty, as the official script has it.
    return 2 * same / (len(found) + len(wanted)) if same else 0.0


def plain(text: str) -> str:
    """A text without what SQuAD's script leaves aside: lower case, no ASCII punctuation, no
    articles, single blanks.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def drop_em(answer: str | Sequence[str], bags: Sequence[Sequence[str]]) -> float:
    """1 if the answer's spans are those of one of the right answers, made `drop_plain`."""
    spans = [*map(drop_plain, _spans(answer))]
    return float(
        any(
            {*spans} == {*wanted} and len(spans) == len(wanted)
            for bag in bags
            for wanted in [[*map(drop_plain, bag)]]
        )
    )


def drop_f1(answer: str | Sequence[str], bags: Sequence[Sequence[str]]) -> float:
    """DROP's F1, the best over its right answers, each rounded to hundredths as officially.

    Spans of answer and right answer are paired one to one so that the sum of the pairs' F1 is
    largest; the mean is over as many as the longer of the two has. A pair's F1 is that of the words
    as sets, and 0 where the right span has numbers and the other one none of them.
    """
    found = [{*drop_plain(span).split()} for span in _spans(answer)]
    return max(
        (_aligned(found, [{*drop_plain(span).split()} for span in bag]) for bag in bags),
        default=0.0,
    )


def _spans(answer: str | Sequence[str]) -> Sequence[str]:
    return [answer] if isinstance(answer, str) else answer


def _aligned(found: list[set[str]], wanted: list[set[str]]) -> float:
    scores = np.array([[_set_f1(one, other) for other in found] for one in wanted])
    if not scores.size:
        return 0.0
    if 1 in scores.shape:  # nearly always; scipy takes its time to come
        best = float(scores.max())
    else:
        from scipy.optimize import linear_sum_assignment

        best = float(scores[linear_sum_assignment(scores, maximize=True)].sum())
    return float(np.round(best / max(scores.shape), 2))  # numpy's way with halves, as officially


def _set_f1(wanted: set[str], found: set[str]) -> float:
    numbers = {word for word in wanted if _is_number(word)}
    if numbers and not numbers & found:
        return 0.0
    same = len(wanted & found)
    precision = same / len(found) if found else 1.0
    recall = same / len(wanted) if wanted else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def drop_plain(span: str) -> str:
    """A span without what DROP's evaluation leaves aside: as `plain`, but word by word, hyphens
    part words too, and numbers keep their point and are all written as ``3.0``.
    """
    words = (_drop_word(word) for word in _GAPS.split(span.lower()))
    return " ".join(" ".join(words).split())


def _drop_word(word: str) -> str:
    if not _is_number(word):
        word = word.translate(_NO_PUNCTUATION)
    return _ARTICLES.sub(" ", str(float(word)) if _is_number(word) else word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def hits(chosen: Sequence[int], prompts: Sequence[Prompted]) -> list[bool]:
    """Which examples got a right choice [N]: of several right ones (ReCoRD) any will do."""
    return [int(one) in asked.right for one, asked in zip(chosen, prompts, strict=True)]


def hits_by_group(
    chosen: Sequence[int], prompts: Sequence[Prompted], *, whole: bool
) -> list[list[bool]]:
    """`hits` by what is judged together.

    Args:
        chosen, prompts: as of `measure_chosen`.
        whole: leave out groups some of whose examples are not here, as they were not drawn.
    """
    groups: defaultdict[str, list[bool]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for hit, asked in zip(hits(chosen, prompts), prompts, strict=True):
        groups[asked.group].append(hit)
        sizes[asked.group] = asked.whole
    return [found for name, found in groups.items() if not whole or len(found) >= sizes[name]]


def _accuracy(chosen: Sequence[int], prompts: Sequence[Prompted]) -> float:
    """The share of examples with a right choice."""
    return float(np.mean(hits(chosen, prompts)))


def _multirc_f1a(chosen: Sequence[int], prompts: Sequence[Prompted]) -> float:
    """F1 of *right* over the answers of all questions."""
    return compute_metrics(["f1"], chosen, [one.right[0] for one in prompts])["f1"]


def _multirc_em(chosen: Sequence[int], prompts: Sequence[Prompted]) -> float:
    """The share of questions all of whose answers are judged rightly; NaN where none is whole."""
    if not all(one.group for one in prompts):
        raise BeftError("metric multirc_em: it is not known which answers are of one question")
    questions = hits_by_group(chosen, prompts, whole=True)
    return float(np.mean([all(found) for found in questions])) if questions else math.nan


#: of answers that are written: of one answer, and what is right
WRITTEN_METRICS: dict[str, Callable[[str, Prompted], float]] = {
    "token_f1": lambda answer, asked: token_f1(answer, asked.gold),
    "exact_match": lambda answer, asked: exact_match(answer, asked.gold),
    "drop_f1": lambda answer, asked: drop_f1(answer, asked.bags),
    "drop_em": lambda answer, asked: drop_em(answer, asked.bags),
}
#: of answers that are chosen: of all examples
CHOSEN_METRICS: dict[str, Callable[[Sequence[int], Sequence[Prompted]], float]] = {
    "accuracy": _accuracy,
    "multirc_f1a": _multirc_f1a,
    "multirc_em": _multirc_em,
}
