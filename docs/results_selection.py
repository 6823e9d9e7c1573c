"""Answers of docs/results.md about what selects: regret, gaps, how early, Fisher over training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations
from statistics import fmean

from results_data import (
    CANDIDATES,
    EVERYWHERE,
    METHODS,
    NOT_YET,
    SEEDS,
    TASKS,
    TITLES,
    At,
    Mean,
    Runs,
    difference,
    over_tasks,
    prose,
    rate_name,
    table,
)


def costs(runs: Runs, roles: Sequence[str], at: At) -> dict[str, dict[str, list[float]]]:
    """Method -> task -> regret of its picks by the published probes, seed by seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for task in TASKS:
        for seed in SEEDS:
            known = runs.judged(task, roles, at, seed)
            for method in METHODS if known else ():
                pick = runs.pick(task, None, seed, method, roles)
                if known and pick:
                    cost = max(known.values()) - known[pick]
                    found.setdefault(method, {}).setdefault(task, []).append(cost)
    return found


def regrets(runs: Runs, roles: Sequence[str], at: At) -> dict[str, Mean]:
    """Method -> its regret over tasks."""
    means = {method: over_tasks(by_task) for method, by_task in costs(runs, roles, at).items()}
    return {method: one for method, one in means.items() if one}


def taus(runs: Runs, method: str, roles: Sequence[str]) -> Mean | None:
    """Kendall's tau over tasks, metrics at own rates."""
    from scipy.stats import kendalltau

    found: dict[str, list[float]] = {}
    for task in TASKS:
        for seed in SEEDS:
            known = runs.judged(task, roles, "own", seed)
            scores = runs.probes.get((task, None, seed), {}).get(method, {})
            if known and set(roles) <= set(scores):
                pairs = [(float(scores[role]["score"]), known[role]) for role in roles]
                tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
                if not math.isnan(tau):
                    found.setdefault(task, []).append(tau)
    return over_tasks(found)


def against_always_v(runs: Runs) -> Iterator[str]:
    """Does any selection pay?"""
    yield "### Does a selection do better than always v?"
    yield ""
    picks = [
        runs.pick(task, None, seed, "projection", ("q", "v")) for task, _, seed in places(runs)
    ]
    known = [pick for pick in picks if pick]
    if known and set(known) == {"v"}:
        yield prose(f"""
            The projection picked v in all {len(known)} published probes: as a selection it is
            always v, with a probe to pay for. It cannot have less regret.""")
        yield ""
    for at in ("own", None):
        wins = [
            max(judged, key=lambda role: judged[role]) == pick
            for task, _, seed in places(runs)
            if (pick := runs.pick(task, None, seed, "projection", ("q", "v")))
            and (judged := runs.judged(task, ("q", "v"), at, seed))
        ]
        if wins:
            where = "under the published protocol" if at is None else "each at its own best rate"
            yield prose(f"""
                Its winner wins against the other of q and v in {sum(wins)} of {len(wins)} runs
                {where}.""")
            yield ""
    said = False
    for name, roles in CANDIDATES.items():
        found = costs(runs, roles, "own")
        always = found.get("always-v")
        if not always:
            continue
        said = True
        base = over_tasks(always)
        less, sure = [], []
        for method, by_task in found.items():
            paired = over_tasks(
                {task: [fmean(by_task[task]) - fmean(always[task])] for task in by_task}
            )
            if paired and paired.value < -1e-12:
                less.append(f"{METHODS[method]} ({paired})")
                if paired.high < 0:
                    sure.append(METHODS[method])
        assert base is not None  # it has tasks
        text = f"- Among {name}, each judged at its own best rate: "
        if sure:
            text += (
                f"less than always v ({base.value:.4f}), beyond the interval: {', '.join(sure)}."
            )
        elif less:
            text += (
                f"no selection has less than always v ({base.value:.4f}) beyond chance: "
                f"it does not pay here. Less by its mean, minus always v's: {'; '.join(less)}."
            )
        else:
            text += f"no selection has less than always v ({base.value:.4f}): it does not pay here."
        means = regrets(runs, roles, "own")
        for method, label in (("projection", "The projection"), ("always-q", "Always q")):
            text += f" {label} has {means[method].unsigned}." if method in means else ""
        yield text
    if not said:
        yield NOT_YET
    yield ""


def places(runs: Runs) -> list[tuple[str, float | None, int]]:
    """Of the published probes."""
    return [place for place in runs.probes if place[1] is None]


def gaps(runs: Runs) -> Iterator[str]:
    """Does the projection's gap between v and q tell the metric's?"""
    yield "### Does the gap of the scores foretell the gap of the metrics?"
    yield ""
    body = []
    for at in EVERYWHERE:
        pairs = []
        for task in TASKS:
            metric = difference(runs, task, "v", "q", at)
            some = [gap for seed in SEEDS if (gap := _gap(runs, task, None, seed)) is not None]
            if metric and some:
                pairs.append((fmean(some), metric.value))
        if len(pairs) > 4:
            rho, p = exact_spearman(pairs)
            body.append([rate_name(at), f"{rho:+.2f}", f"{p:.3f}", str(len(pairs))])
    if not body:
        yield NOT_YET
        return
    strong = [row[0] for row in body if float(row[2]) * len(body) < 0.05]
    lone = [row[0] for row in body if float(row[2]) < 0.05 and row[0] not in strong]
    answer = f"At {', '.join(strong)}" if strong else "No"
    if lone:
        answer += f"; p < .05 at {', '.join(lone)} is what so many tests give by chance"
    yield prose(f"""
        {answer} (p < .05 / {len(body)}, the number of tests). Spearman's rho over tasks (seeds
        averaged) between projection(v) - projection(q) of the published probe and metric(v) -
        metric(q), p from all permutations. With so few tasks only a near perfect order can be
        told from chance:""")
    yield ""
    yield from table(["metrics at rate", "rho", "p", "tasks"], body)
    scores = [
        fmean(some)
        for task in TASKS
        if (some := [gap for seed in SEEDS if (gap := _gap(runs, task, None, seed)) is not None])
    ]
    own = [one.value for task in TASKS if (one := difference(runs, task, "v", "q", "own"))]
    if own:
        yield prose(f"""
            Over tasks the scores' gap runs from {min(scores):+.2f} to {max(scores):+.2f}, the
            metrics' (own rates) from {min(own):+.3f} to {max(own):+.3f}.""")
        yield ""
    yield from _by_rate(runs)


def _gap(runs: Runs, task: str, rate: float | None, seed: int) -> float | None:
    scores = runs.probes.get((task, rate, seed), {}).get("projection", {})
    return (
        float(scores["v"]["score"]) - float(scores["q"]["score"])
        if {"v", "q"} <= set(scores)
        else None
    )


def _by_rate(runs: Runs) -> Iterator[str]:
    """A probe at each rate: does it see that q overtakes?"""
    seen = [
        (gap, metric.value)
        for task, rate, seed in runs.probes
        if rate is not None
        and (gap := _gap(runs, task, rate, seed)) is not None
        and (metric := difference(runs, task, "v", "q", rate))
    ]
    if seen:
        blind = all(gap > 0 for gap, _ in seen) and any(value < 0 for _, value in seen)
        unseen = " Where q is ahead the projection does not see it." if blind else ""
        yield prose(f"""
            Probes at the grid's own rates: of {len(seen)} (task and rate), the projection puts v
            before q in {sum(gap > 0 for gap, _ in seen)}, the metric at that rate in
            {sum(value > 0 for _, value in seen)}.{unseen}""")
        yield ""


def exact_spearman(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Rho and its two-sided p over all orders; at most eight pairs."""
    import numpy as np
    from scipy.stats import rankdata

    x, y = (rankdata(some) - (len(pairs) + 1) / 2 for some in zip(*pairs, strict=True))
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    if scale == 0:
        return math.nan, 1.0
    every = np.array(list(permutations(y))) @ x / scale
    rho = float(x @ y / scale)
    return rho, float(np.mean(np.abs(every) >= abs(rho) - 1e-9))


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
    rows = [next(iter(probe["projection"].values())) for probe in runs.probes.values()]
    first = [row for row in rows if row["settled_target"] == row["settled_ranking"] == "1"]
    if len(first) == len(rows):
        yield prose(f"""
            From the first update on: in all {len(rows)} probes (published and at the grid's rates)
            the target and the order of q, k and v after one update are those of the end.""")
        yield ""
    else:
        yield prose("""
            Share of a published probe's updates after which the target (of q, k, v) and the
            candidates' ranking no longer changed, mean and worst of the seeds:""")
        yield ""
        yield from table(["task", "target", "worst", "ranking", "worst"], body)
    yield from _by_norm(runs)


def _by_norm(runs: Runs) -> Iterator[str]:
    """An order that stands at once was there before: the pretrained norms'."""
    from scipy.stats import kendalltau

    found, smallest, count = [], 0, 0
    for probe in runs.probes.values():
        rows = [row for row in probe["projection"].values() if row["inert"] != "yes"]
        if len(rows) < 3 or not all(row.get("norm_pre") for row in rows):
            continue
        norms = [-float(row["norm_pre"]) for row in rows]
        found.append(float(kendalltau([float(row["score"]) for row in rows], norms).statistic))
        best = max(rows, key=lambda row: float(row["score"]))
        smallest += best is min(rows, key=lambda row: float(row["norm_pre"]))
        count += 1
    if found:
        yield prose(f"""
            That order was there before training: the smaller ‖pre‖, the higher the projection
            ratio, with Kendall's tau {fmean(found):.2f} on average ({min(found):.2f} to
            {max(found):.2f}) over the roles that can learn; the one with the highest ratio has the
            smallest ‖pre‖ in {smallest} of {count} probes. Adam moves every coordinate by about the
            rate, which turns a short vector further than a long one. So the ratio says little
            about the task.""")
        yield ""


def fisher_over_training(runs: Runs) -> Iterator[str]:
    """Whether Fisher's ranking before training is the one during it."""
    from scipy.stats import kendalltau

    yield "### Does Fisher's ranking stay put over training?"
    yield ""
    body, changed, states, v_first = [], 0, 0, 0
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
            states, v_first = states + 1, v_first + (v > q)
            body.append([TITLES[task], str(epoch), f"{tau:+.2f}", f"{v / q:.3g}", " ".join(order)])
        changed += any(float(row[2]) < 1 for row in body if row[0] == TITLES[task])
    if not body:
        yield NOT_YET
        return
    count = len({row[0] for row in body})
    yield prose(f"""
        {"Yes" if not changed else "No"}: in {count - changed} of {count} tasks every role that can
        learn keeps its rank at all states that were looked at. Its choice between q and v does
        {"" if v_first in (0, states) else "not "}stay: v comes first in {v_first} of {states}
        states. Published probes, seed 0; Kendall's tau of the ranks against those before training;
        v / q is the ratio of their scores:""")
    yield ""
    yield from table(["task", "epoch", "tau", "v / q", "order"], body)
