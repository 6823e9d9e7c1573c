"""The widths that are captured: against all ways to choose them, and against the goal."""

from __future__ import annotations

import itertools
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from beftkit.accelerator import make_accelerator
from beftkit.gradients import means
from beftkit.tasks import Encoded, encode, plan, widths
from beftkit.tasks.costs import costs_of
from beftkit.tasks.widths import ADDED, MOST, Costs, Widths, choose_widths

DATA = os.environ.get("BEFTKIT_DATA")
#: BERT-base in float32 on a GPU, about
COSTS = Costs(launch=0.02, token=8e-6, capture=0.06)


def cost(counts: dict[int, float], rows: int, chosen: set[int], eager: set[int]) -> float:
    """What a way costs that fills each batch up to the next chosen width, or leaves it eager."""
    total = COSTS.capture * len(chosen)
    for width, number in counts.items():
        if width in eager:
            total += number * max(COSTS.launch, COSTS.token * rows * width)
        else:
            total += number * rows * COSTS.token * min(w for w in chosen if w >= width)
    return total


def test_it_is_the_cheapest_of_all_ways() -> None:
    """Each set of chosen widths, each set of eager ones; without the limit on tokens."""
    draw = random.Random(0)
    for _ in range(12):
        counts = {n: float(draw.randint(1, 30)) for n in draw.sample(range(4, 400), 5)}
        every = [{*s} for n in range(6) for s in itertools.combinations(sorted(counts), n)]
        least = min(
            cost(counts, 16, chosen, eager)
            for eager in every
            for chosen in every
            if not chosen & eager
            and all(any(w >= one for w in chosen) for one in counts if one not in eager)
        )
        found = choose_widths(counts, 16, COSTS, most=10.0)
        eager = {one for one in counts if not found.of(one)[1]}
        assert cost(counts, 16, {*found.chosen}, eager) == pytest.approx(least)


def chosen_of(counts: dict[int, float], found: widths.Widths) -> tuple[set[int], set[int]]:
    """Captured widths, and those whose batches are eager."""
    return {*found.chosen}, {one for one in counts if not found.of(one)[1]}


@pytest.mark.parametrize("everything", [True, False])
def test_the_cheapest_within_the_limit(everything: bool) -> None:
    """Where the limit on tokens binds: all ways that keep it, tried one by one."""
    draw, bound = random.Random(1), 0
    for _ in range(200):
        span = draw.choice([40, 400])
        counts = {n: draw.choice([1.0, 3.0, 30.0, 99.0]) for n in draw.sample(range(4, span), 5)}
        every = [{*s} for n in range(6) for s in itertools.combinations(sorted(counts), n)]
        tokens = sum(one * number for one, number in counts.items())
        free, best = math.inf, math.inf
        for eager in every[:1] if everything else every:
            for chosen in every:
                filled = [one for one in counts if one not in eager]
                if chosen & eager or any(max(chosen, default=0) < one for one in filled):
                    continue
                tops = {one: min(w for w in chosen if w >= one) for one in filled}
                more = sum(counts[one] * (top - one) for one, top in tops.items()) / tokens
                whole = cost(counts, 16, chosen, eager)
                free, best = min(free, whole), min(best, whole if more < ADDED else math.inf)
        bound += free < best
        found = choose_widths(counts, 16, COSTS, everything=everything)
        assert found.added < ADDED
        assert cost(counts, 16, *chosen_of(counts, found)) <= best * (
            1 + 1e-9 if everything else 1.15
        )
    assert bound > 5


def test_where_the_limit_cannot_be_kept_as_few_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widths, "MOST", 3)
    draw = random.Random(2)
    for _ in range(10):
        counts = {n: float(draw.randint(1, 30)) for n in draw.sample(range(4, 400), 9)}
        found = choose_widths(counts, 16, COSTS, everything=True, most=0.02)
        least = math.inf
        for chosen in itertools.combinations(sorted(counts), 3):
            if chosen[-1] == max(counts):
                tops = {one: min(w for w in chosen if w >= one) for one in counts}
                least = min(least, sum(counts[one] * (tops[one] - one) for one in counts))
        assert least / sum(one * counts[one] for one in counts) >= 0.02
        assert found.added == pytest.approx(least / sum(one * counts[one] for one in counts))


def like_sst2(count: int, seed: int = 0) -> torch.Tensor:
    """Lengths as SST-2's sentences have them: many short, a tail up to 60."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, generator=generator) * 0.5 + 3.05
    return (drawn.exp() + 2).long().clamp(4, 66)


@pytest.mark.skipif(DATA is None, reason="real sentences: set BEFTKIT_DATA")
@pytest.mark.parametrize("task", ["sst2", "rte", "mrpc", "cb"])
def test_real_tasks_need_few(task: str) -> None:
    """As a run has them: the low regime in the encoder's tokens, batches of 16, 16 epochs."""
    from transformers import AutoTokenizer

    from beftkit.runs.loading import load_data
    from beftkit.settings.train import TrainSettings

    model = str(Path(DATA or "") / "weights" / "all-MiniLM-L6-v2-fp16")
    place = str(Path(DATA or "") / "data" / ("superglue" if task == "cb" else "glue"))
    data = load_data(TrainSettings(model=model, task=task, data_dir=place, regime="low"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = encode(data.train, tokenizer, max_length=128).lengths
    counts: dict[int, float] = {}
    for epoch in range(16):
        for batch in plan(lengths, 16, seed=0, epoch=epoch):
            width = int(lengths[batch].max())
            counts[width] = counts.get(width, 0.0) + 1
    for everything in (True, False):
        found = choose_widths(counts, 16, COSTS, everything=everything)
        assert found.added < ADDED and 1 <= len(found.chosen) <= MOST
        assert all(found.of(one)[1] for one in counts)


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("epochs", [1, 16])
def test_few_widths_and_few_tokens(epochs: int, everything: bool) -> None:
    """At SST-2's lengths, 1000 examples in batches of 16: under 10 % more tokens."""
    lengths = like_sst2(1000)
    counts: dict[int, float] = {}
    taken = []
    for epoch in range(epochs):
        taken += [int(lengths[b].max()) for b in plan(lengths, 16, seed=0, epoch=epoch)]
    for width in taken:
        counts[width] = counts.get(width, 0.0) + 1
    found = choose_widths(counts, 16, COSTS, everything=everything)
    assert 1 <= len(found.chosen) <= MOST
    added = sum(found.of(one)[0] for one in taken) / sum(taken) - 1
    assert added == pytest.approx(found.added) and added < ADDED
    assert all(found.of(one)[0] >= one for one in taken)
    if everything:
        assert all(found.of(one)[1] for one in taken)


def test_a_short_run_captures_little() -> None:
    assert choose_widths({20: 2.0, 40: 2.0}, 16, COSTS).chosen == ()
    assert choose_widths({20: 200.0, 21: 200.0}, 16, COSTS).chosen == (21,)
    assert choose_widths({20: 2.0, 40: 2.0}, 16, COSTS, everything=True).chosen
    # The first one takes longer: where one alone pays, but not for that, none is.
    late = replace(COSTS, first=0.1)
    assert (
        choose_widths({20: 6.0}, 16, COSTS).chosen and not choose_widths({20: 6.0}, 16, late).chosen
    )
    assert choose_widths({20: 20.0}, 16, late).chosen == (20,)


def test_a_width_that_was_not_looked_at() -> None:
    """It goes where the next one up goes, and beyond all of them it is eager."""
    found = choose_widths({10: 500.0, 11: 500.0, 30: 500.0, 90: 1.0}, 16, COSTS)
    assert found.of(11) == (11, True) and found.of(9) == (found.of(10)[0], True)
    assert found.of(20) == (30, True)
    assert found.of(70) == (70, False) and found.of(91) == (91, False)
    assert choose_widths({}, 16, COSTS).of(5) == (5, False)


def test_costs_are_those_that_were_measured() -> None:
    """On an H200, BERT-base in float32: docs/log.md, "updates captured on a GPU"."""
    from transformers import BertConfig, BertForSequenceClassification

    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig())
    found = costs_of(model, half=False)
    replayed = 0.0067
    tokens = 0.002  # of that
    assert found.launch == pytest.approx(0.02228 - replayed + tokens, rel=0.05)
    assert found.capture == pytest.approx(0.058, rel=0.05)
    assert found.capture + found.first == pytest.approx(0.168, rel=0.05)
    # Between 16 x 24 and 16 x 128 tokens a replay went from 7.6 to 20.6 ms.
    assert found.token * 16 * 104 == pytest.approx(0.013, rel=0.1)
    seen = costs_of(model, half=True, trains=False)
    assert seen.launch < found.launch and seen.token < found.token and seen.first < found.first
    # A model kept in half precision computes so, whatever it is called.
    assert costs_of(model.to(torch.bfloat16), half=False) == costs_of(model, half=True)


def test_without_a_limit_padding_is_taken_where_it_is_cheaper() -> None:
    """As Fisher takes it, whose batches are gone over once; 1000 examples of SST-2's lengths."""
    counts = dict.fromkeys(range(17, 34), 1.0) | {4: 11.0, 7: 9.0, 9: 8.0, 13: 10.0, 16: 7.0}
    costs = Costs(launch=0.018, token=8.6e-6, capture=0.058, first=0.11)
    held, free = (choose_widths(counts, 16, costs, most=most) for most in (ADDED, math.inf))

    def seconds(found: Widths) -> float:
        total = costs.first + costs.capture * len(found.chosen)
        for width, number in counts.items():
            top, captured = found.of(width)
            each = costs.token * 16 * top
            total += number * (each if captured else max(each, costs.launch))
        return total

    assert held.added < ADDED < free.added
    assert seconds(free) < 0.7 * seconds(held)
    assert not any(held.of(width)[1] for width in (31, 32, 33)) and free.of(33) == (33, True)


def test_fisher_goes_without_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """SST-2's widths and about BERT-base's costs, by which training's limit leaves some eager."""
    tops = [*range(17, 34), *[4] * 11, *[7] * 9, *[9] * 8, *[13] * 10, *[16] * 7]
    lengths = torch.tensor(tops).repeat_interleave(16)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    encoded = Encoded(
        ids=torch.full((int(starts[-1]),), 7, dtype=torch.int32),
        type_ids=None,
        starts=starts,
        first_row=torch.arange(len(lengths) + 1),
        targets=torch.arange(len(lengths)) % 2,
        truncated=0,
        pad_id=0,
    )
    costs = Costs(launch=0.018, token=8.6e-6, capture=0.058, first=0.11)
    monkeypatch.setattr(means, "costs_of", lambda *given, **how: costs)
    plans = list(torch.arange(len(lengths)).split(16))
    found = means._widths(None, encoded, plans, make_accelerator("cpu"), "auto")
    assert found is not None and found.added > ADDED and found.of(33) == (33, True)
