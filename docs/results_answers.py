"""Answers of docs/results.md: each a heading, words that follow from the numbers, the numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from results_data import (
    CANDIDATES,
    METHODS,
    RATES,
    SEEDS,
    TASKS,
    TITLES,
    Mean,
    Place,
    Runs,
    over_tasks,
    prose,
    rate_name,
    table,
)

At = float | str | None
EVERYWHERE: tuple[At, ...] = (*RATES, "own", None)
NOT_YET = "Not measured yet.\n"


def answers(runs: Runs, folder: Path) -> Iterator[str]:
    """Plain ones, each with its numbers."""
    yield from k_against_none(runs)
    yield from v_against_q(runs)
    yield from against_always_v(runs)
    yield from gaps(runs)
    yield from settling(runs)
    yield from fisher_over_training(runs)
    yield from added(folder)
    yield from disagreements(runs)


def k_against_none(runs: Runs) -> Iterator[str]:
    """Does fine-tuning b_k do more than its control?"""
    yield "### Does b_k differ from `none`?"
    yield ""
    by_task: dict[str, list[float]] = {}
    beyond = same = count = 0
    for place, row in runs.rows.items():
        other = runs.rows.get(Place(place.task, "none", place.rate, place.seed))
        if place.role != "k" or other is None:
            continue
        difference = float(row["best"]) - float(other["best"])
        by_task.setdefault(place.task, []).append(difference)
        error = math.hypot(*(float(one["standard_error"] or "inf") for one in (row, other)))
        beyond += abs(difference) > 2 * error
        same += row["evaluations"] == other["evaluations"]
        count += 1
    found = over_tasks(by_task)
    if found is None:
        yield NOT_YET
        return
    largest = max(abs(one) for some in by_task.values() for one in some)
    answer = "No" if beyond <= 0.05 * count else "Yes"
    yield prose(f"""
        {answer}. k minus `none`: {found}. Of {count} pairs of runs (task, rate, seed) {same} have
        the very same metrics at every evaluation, and {beyond} differ by more than two standard
        errors of the difference; the largest difference is {largest:.4f}. b_k is inert in BERT
        (softmax ignores it), so it must not; what differs comes of rounding that the optimiser
        amplifies.""")
    yield ""


def v_minus_q(runs: Runs, at: At) -> tuple[dict[str, list[float]], Mean | None]:
    """Task -> differences of its seeds, and their mean over tasks."""
    by_task: dict[str, list[float]] = {}
    for task in TASKS:
        for seed in SEEDS:
            if known := runs.judged(task, ("v", "q"), at, seed):
                by_task.setdefault(task, []).append(known["v"] - known["q"])
    return by_task, over_tasks(by_task)


def v_against_q(runs: Runs) -> Iterator[str]:
    """At a common rate, and each at its own."""
    yield "### Does b_v beat b_q?"
    yield ""
    body, ahead = [], {}
    for at in EVERYWHERE:
        by_task, found = v_minus_q(runs, at)
        if found is None:
            continue
        ahead[at] = found
        every = [one for some in by_task.values() for one in some]
        wins = sum(fmean(some) > 0 for some in by_task.values())
        runs_won = f"{sum(one > 0 for one in every)} of {len(every)}"
        row = [rate_name(at), f"{found.value:+.4f}", interval(found)]
        body.append([*row, f"{wins} of {len(by_task)}", runs_won])
    if not body:
        yield NOT_YET
        return
    yield from _verdict_on_v(ahead)
    yield from table(["rate", "v - q", "interval", "tasks with v ahead", "runs with v ahead"], body)


def _verdict_on_v(ahead: dict[At, Mean]) -> Iterator[str]:
    common = {at: one for at, one in ahead.items() if isinstance(at, float)}
    clear = [f"{at:g}" for at, one in common.items() if one.low > 0]
    lost = [f"{at:g}" for at, one in common.items() if one.high < 0]
    said = [f"At a common rate v leads beyond its interval at {', '.join(clear) or 'none of them'}"]
    said += [f"q leads at {', '.join(lost)}"] if lost else []
    yield "; ".join(said) + "."
    if own := ahead.get("own"):
        sure = "v leads" if own.low > 0 else "q leads" if own.high < 0 else "neither leads clearly"
        yield f"Each at its own best rate: {sure}: v - q is {own}."
    if published := ahead.get(None):
        yield f"Under the published protocol: v - q is {published}."
    yield ""


def against_always_v(runs: Runs) -> Iterator[str]:
    """Does any selection pay?"""
    yield "### Does a selection do better than always v?"
    yield ""
    for name, roles in CANDIDATES.items():
        found = regrets(runs, roles, "own")
        always = found.get("always-v")
        if always is None:
            continue
        better = [METHODS[m] for m, one in found.items() if one.value < always.value - 1e-12]
        better = [one for one in better if one != METHODS["always-q"]]
        told = f"less than always v ({always.value:.4f}) have {', '.join(better)}"
        none = f"no selection has less than always v ({always.value:.4f}): it does not pay here"
        said = f"- Among {name}, each judged at its own best rate: {told if better else none}."
        if q := found.get("always-q"):
            said += f" Always q has {plain(q)}."
        if mine := found.get("projection"):
            said += f" The projection has {plain(mine)}, always v {plain(always)}."
        yield said
    if not any(regrets(runs, roles, "own") for roles in CANDIDATES.values()):
        yield NOT_YET
    yield ""


def gaps(runs: Runs) -> Iterator[str]:
    """Does the projection's gap between v and q tell the metric's?"""
    from scipy.stats import spearmanr

    yield "### Does the gap of the scores foretell the gap of the metrics?"
    yield ""
    body = []
    for at in EVERYWHERE:
        pairs = []
        for (task, rate, seed), probe in runs.probes.items():
            known = runs.judged(task, ("v", "q"), at, seed)
            table_ = probe.get("projection", {})
            # A probe at the very rate where there is one, else the published one.
            fits = rate == at if (task, at, seed) in runs.probes else rate is None
            if known and fits and {"v", "q"} <= set(table_):
                gap = float(table_["v"]["score"]) - float(table_["q"]["score"])
                pairs.append((gap, known["v"] - known["q"]))
        if len(pairs) > 3:
            rho = spearmanr(*zip(*pairs, strict=True))
            body.append(
                [rate_name(at), f"{rho.statistic:+.2f}", f"{rho.pvalue:.3f}", str(len(pairs))]
            )
    if not body:
        yield NOT_YET
        return
    strong = [row[0] for row in body if float(row[2]) < 0.05 and float(row[1]) > 0]
    yield prose(f"""
        {"At " + ", ".join(strong) if strong else "Nowhere"} beyond chance (p < .05). Spearman's rho
        between projection(v) - projection(q) and metric(v) - metric(q), over tasks and seeds; the
        probe is that of the same rate where there is one, else the published one:""")
    yield ""
    yield from table(["metrics at rate", "rho", "p", "cells"], body)


def settling(runs: Runs) -> Iterator[str]:
    """From which share of a probe on its answer stayed."""
    yield "### How early does the probe's answer stand?"
    yield ""
    body = []
    for task in TASKS:
        shares: dict[str, list[float]] = {"settled_target": [], "settled_ranking": []}
        for seed in SEEDS:
            probe = runs.probes.get((task, None, seed), {}).get("projection", {})
            row = next(iter(probe.values()), None)
            for name, some in shares.items():
                if row and row[name]:
                    some.append(float(row[name]) / float(row["steps"]))
        if shares["settled_target"]:
            cells = [f"{100 * fmean(some):.0f} %" for some in shares.values()]
            worst = [f"{100 * max(some):.0f} %" for some in shares.values()]
            body.append([TITLES[task], cells[0], worst[0], cells[1], worst[1]])
    if not body:
        yield NOT_YET
        return
    yield prose("""
        Share of a published probe's updates after which the target (of q, k, v) and the candidates'
        ranking no longer changed, mean and worst of the seeds:""")
    yield ""
    yield from table(["task", "target", "worst", "ranking", "worst"], body)


def fisher_over_training(runs: Runs) -> Iterator[str]:
    """Whether Fisher's ranking before training is the one during it."""
    from scipy.stats import kendalltau

    yield "### Does Fisher's ranking stay put over training?"
    yield ""
    body, changed = [], 0
    for task in TASKS:
        rows = runs.states.get(task, {})
        epochs = sorted({epoch for epoch, _ in rows})
        roles = sorted({role for _, role in rows if rows[epochs[0], role]["inert"] != "yes"})
        if not epochs:
            continue
        first = [int(rows[epochs[0], role]["rank"]) for role in roles]
        for epoch in epochs:
            ranks = [int(rows[epoch, role]["rank"]) for role in roles]
            tau = float(kendalltau(first, ranks).statistic)
            order = sorted(roles, key=lambda role: int(rows[epoch, role]["rank"]))
            v, q = (float(rows[epoch, role]["score"]) for role in ("v", "q"))
            body.append([TITLES[task], str(epoch), f"{tau:+.2f}", f"{v / q:.3g}", " ".join(order)])
        changed += any(float(row[2]) < 1 for row in body if row[0] == TITLES[task])
    if not body:
        yield NOT_YET
        return
    count = len({row[0] for row in body})
    yield prose(f"""
        {"Yes" if not changed else "No"}: in {count - changed} of {count} tasks every role that can
        learn keeps its rank at all states that were looked at. Published probes, seed 0; Kendall's
        tau of the ranks against those before training; v / q is the ratio of their scores:""")
    yield ""
    yield from table(["task", "epoch", "tau", "v / q", "order"], body)


def disagreements(runs: Runs) -> Iterator[str]:
    """What the paper says and these runs do not."""
    yield "### Where we disagree with the paper"
    yield ""
    said = []
    ahead = {at: one for at in EVERYWHERE if (one := v_minus_q(runs, at)[1])}
    losing = [f"{rate_name(at)} ({one.value:+.4f})" for at, one in ahead.items() if one.value < 0]
    unsure = [rate_name(at) for at, one in ahead.items() if one.low <= 0 <= one.high]
    if losing:
        said.append(f"- b_v before b_q in every cell: not with rate {', '.join(losing)}.")
    if unsure:
        said.append(f"- The lead is not told apart from zero with rate {', '.join(unsure)}.")
    found = regrets(runs, ("q", "v"), "own")
    always, mine = found.get("always-v"), found.get("projection")
    if always and mine and mine.value >= always.value - 1e-12:
        said.append(
            "- The projection ratio as a selection: its picks cost no less than always v "
            f"({mine.value:.4f}, {always.value:.4f}), which needs no probe."
        )
    if any(place.role == "k" for place in runs.rows):
        said.append("- Figures of b_k are those of the head: see above.")
    if not said:
        said = [NOT_YET.strip() if not ahead else "Nowhere in what was measured."]
    yield from (*said, "")


def added(folder: Path) -> Iterator[str]:
    """Zero biases added to a decoder that has none: the ratio is 1 whatever changed."""
    path = folder / "added.csv"
    yield "### What holds for added biases?"
    yield ""
    if not path.is_file():
        yield NOT_YET
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    yield prose("""
        SmolLM2-135M-Instruct has no biases; a zero one was added to a projection and trained alone:
        SST-2 as a prompt, 400 training examples, the first 400 development rows, batch 8, linear
        decay, bf16, seed 0 (one standard error is about .02). The projection ratio of such a bias
        is 1 by definition and cannot choose; k is not inert here (rotary positions). At each one's
        own best rate v leads q by a point and k by twenty: the published order, with less between v
        and q than at one common rate.""")
    yield ""
    yield from table(list(rows[0]), [list(row.values()) for row in rows])


def regrets(runs: Runs, roles: Sequence[str], at: At) -> dict[str, Mean]:
    """Method -> its regret over tasks, by the published probes."""
    found: dict[str, dict[str, list[float]]] = {}
    for task in TASKS:
        for seed in SEEDS:
            known = runs.judged(task, roles, at, seed)
            for method in METHODS if known else ():
                pick = runs.pick(task, None, seed, method, roles)
                if known and pick:
                    cost = max(known.values()) - known[pick]
                    found.setdefault(method, {}).setdefault(task, []).append(cost)
    means = {method: over_tasks(by_task) for method, by_task in found.items()}
    return {method: one for method, one in means.items() if one}


def taus(runs: Runs, method: str, roles: Sequence[str]) -> list[float]:
    """Kendall's tau of each task and seed, metrics at own rates."""
    from scipy.stats import kendalltau

    found = []
    for task in TASKS:
        for seed in SEEDS:
            known = runs.judged(task, roles, "own", seed)
            scores = runs.probes.get((task, None, seed), {}).get(method, {})
            if known and set(roles) <= set(scores):
                pairs = [(float(scores[role]["score"]), known[role]) for role in roles]
                tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
                found += [] if math.isnan(tau) else [tau]
    return found


def plain(one: Mean) -> str:
    """A mean and its interval, without signs."""
    return f"{one.value:.4f}" + (f" ({one.low:.4f} to {one.high:.4f})" if one.count > 1 else "")


def interval(one: Mean) -> str:
    """The interval alone."""
    return f"{one.low:+.4f} to {one.high:+.4f}" if one.count > 1 else "-"
