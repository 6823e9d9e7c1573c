"""Answers of docs/results.md: each a heading, words that follow from the numbers, the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from results_added import added
from results_data import (
    CANDIDATES,
    EVERYWHERE,
    NOT_YET,
    PAPER,
    RATES,
    TASKS,
    TITLES,
    At,
    Difference,
    Place,
    Runs,
    difference,
    mean,
    over_tasks,
    prose,
    rate_name,
    table,
)
from results_selection import against_always_v, fisher_over_training, gaps, regrets, settling


def answers(runs: Runs, folder: Path) -> Iterator[str]:
    """Plain ones, each with its numbers."""
    yield from learned(runs)
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


def learned(runs: Runs) -> Iterator[str]:
    """Where a bias does more than the head alone: elsewhere comparisons are of noise."""
    yield "### Does a bias learn more than the head alone?"
    yield ""
    body, beyond = [], {}
    for task in TASKS:
        found = {role: difference(runs, task, role, "none", "own") for role in ("v", "q", "m1")}
        beyond[task] = [role for role, one in found.items() if one and one.beyond]
        if any(found.values()):
            found["all"] = difference(runs, task, "all", "none", "own")
            body.append([TITLES[task], *(str(one or "-") for one in found.values())])
    if not body:
        yield NOT_YET
        return
    said = [f"{TITLES[task]} ({', '.join(roles)})" for task, roles in beyond.items() if roles]
    flat = [row[0] for row in body if not any(TITLES[t] == row[0] for t in TASKS if beyond[t])]
    yield prose(f"""
        Beyond two standard errors: in {", ".join(said) or "none"}. In {", ".join(flat) or "none"}
        no bias does: there, whatever order of biases or picks, it is an order of noise. Role minus
        `none`, each at its own best rate (`*`: beyond two standard errors, of the examples and of
        the seeds; the best of five rates is picked on the same examples on both sides):""")
    yield ""
    yield from table(["task", "v", "q", "m1", "all"], body)
    collapsed: dict[str, int] = {}
    for place, row in runs.rows.items():
        if row["stayed"] == "True" and place.rate is not None and place.role in ("v", "q", "m1"):
            name = f"{TITLES[place.task]} {place.role} {place.rate:g}"
            collapsed[name] = collapsed.get(name, 0) + 1
    if collapsed:
        yield prose(f"""
            Never left a constant prediction: {", ".join(collapsed)}. At the smallest rates such a
            run had not begun to learn, at the largest it came apart.""")
        yield ""


def v_against_q(runs: Runs) -> Iterator[str]:
    """At a common rate, and each at its own."""
    yield "### Does b_v beat b_q?"
    yield ""
    found = {
        at: {task: one for task in TASKS if (one := difference(runs, task, "v", "q", at))}
        for at in EVERYWHERE
    }
    found = {at: by_task for at, by_task in found.items() if by_task}
    if not found:
        yield NOT_YET
        return
    common = {at: by_task for at, by_task in found.items() if at not in ("own", None)}
    if common:
        yield prose(f"""
            - At one common rate v leads beyond two standard errors in {_leads(common, +1)}; q in
            {_leads(common, -1)}.""")
    for at in ("own", None):
        if by_task := found.get(at):
            apart = sum(one.beyond for one in by_task.values())
            yield prose(f"""
                - {"Each at its own best rate" if at else "Under the published protocol"} v leads in
                {_leads({at: by_task}, +1)}, q in {_leads({at: by_task}, -1)};
                {len(by_task) - apart} of {len(by_task)} tasks do not tell them apart.""")
    other = {task: one for task in TASKS if (one := difference(runs, task, "m1", "v", "own"))}
    if other:
        values = ", ".join(f"{TITLES[task]} {one}" for task, one in other.items())
        yield prose(f"""
            - m1, no candidate of the paper's, leads v at own rates in {_leads({"own": other}, +1)};
            v leads m1 in {_leads({"own": other}, -1)} (m1 - v: {values}).""")
    body = []
    for at, by_task in found.items():
        values = {task: one.value for task, one in by_task.items()}
        all_of_them = mean(list(values.values()))
        assert all_of_them is not None  # by_task holds something
        largest = max(values, key=lambda task: abs(values[task]))
        others = mean([value for task, value in values.items() if task != largest])
        seeds = [value for one in by_task.values() for value in one.seeds]
        body.append([
            rate_name(at), f"{all_of_them.value:+.4f}", all_of_them.interval,
            f"{sum(one > 0 for one in values.values())} of {len(values)}",
            f"{sum(one > 0 for one in seeds)} of {len(seeds)}",
            f"{others.value:+.4f} ({TITLES[largest]})" if others else "-",
        ])  # fmt: skip
    yield ""
    heading = ["v - q at", *(rate_name(at) for at in found), "seeds of the grid"]
    on_grid = [by_task for at, by_task in found.items() if at is not None]
    rows = [
        [
            TITLES[task],
            *(str(by_task.get(task, "-")) for by_task in found.values()),
            str(max((len(some[task].seeds) for some in on_grid if task in some), default=0)),
        ]
        for task in TASKS
        if any(task in by_task for by_task in found.values())
    ]
    yield from table(heading, rows)
    yield prose("""
        Means over tasks, whose metrics differ in kind (STS-B's correlation moves by far the most);
        the last column leaves out the task with the largest difference:""")
    yield ""
    heading = ["rate", "v - q", "interval", "tasks with v ahead", "runs with v ahead", "without"]
    yield from table(heading, body)


def _leads(found: dict[At, dict[str, Difference]], sign: int) -> str:
    """Tasks where one of them leads beyond noise, and at which rates."""
    told = []
    for task in TASKS:
        known = {at: one for at, some in found.items() if (one := some.get(task)) and one.beyond}
        at = [rate_name(at) for at, one in known.items() if one.value * sign > 0]
        if at:
            told.append(TITLES[task] + (f" ({', '.join(at)})" if len(found) > 1 else ""))
    return ", ".join(told) or "none"


def disagreements(runs: Runs) -> Iterator[str]:
    """What the paper says, and whether these runs do."""
    yield "### Where we agree and disagree with the paper"
    yield ""
    said = []
    for at in (None, "own"):
        for task in TASKS:
            one = difference(runs, task, "v", "q", at)
            if one is None:
                continue
            theirs = (PAPER[task][0] - PAPER[task][1]) / 100
            kind = "agree" if one.value > 0 else "disagree"
            kind = f"{kind}, beyond noise" if one.beyond else f"{kind}, within noise"
            row = [TITLES[task], rate_name(at), f"{theirs:+.3f}", str(one), kind]
            said.append(row)
    if not said:
        yield NOT_YET
        return
    yield prose("""
        v - q, theirs (BERT-base, low regime) beside ours (another, smaller model: the sign is the
        claim that is tested, not the size):""")
    yield ""
    yield from table(["task", "ours at", "paper", "ours", "v before q"], said)
    yield from _claims(runs)
    yield ""


def _mostly_q(runs: Runs, at: At) -> bool:
    known = [one.value for task in TASKS if (one := difference(runs, task, "v", "q", at))]
    return sum(value < 0 for value in known) > len(known) / 2


def _claims(runs: Runs) -> Iterator[str]:
    common = {(at, task): difference(runs, task, "v", "q", at) for at in RATES for task in TASKS}
    lost = [
        f"{TITLES[task]} {at:g} ({one.value:+.3f})"
        for (at, task), one in common.items()
        if one and one.beyond and one.value < 0
    ]
    if lost:
        yield "- Disagree: b_v before b_q at any common rate. q leads beyond noise: "
        yield f"  {', '.join(lost)}."
    behind = [at for at in RATES if _mostly_q(runs, at)]
    if behind:
        yield prose(f"""
            - Disagree, within noise: q has the higher mean in most tasks at
            {", ".join(f"{at:g}" for at in behind)}; the lead of v is one of small rates and of
            single tasks.""")
    picks = [
        pick
        for task, rate, seed in runs.probes
        if (pick := runs.pick(task, rate, seed, "projection", ("q", "v")))
    ]
    if picks:
        count = sum(pick == "v" for pick in picks)
        kind = "Agree" if count == len(picks) else "Disagree"
        yield f"- {kind}: the projection ratio picks b_v, in {count} of {len(picks)} probes."
    found = regrets(runs, CANDIDATES["q, v"], "own")
    always, mine = found.get("always-v"), found.get("projection")
    if always and mine and mine.value >= always.value - 1e-12:
        yield prose(f"""
            - Disagree that a selection is needed: the projection's picks cost {mine.value:.4f},
            always v {always.value:.4f} without a probe (as the paper's final version says
            itself).""")
    pairs = [
        (runs.best(task, "k", None, seed), runs.best(task, "none", None, seed))
        for task in TASKS
        for seed in (0, 1, 2)
    ]
    known = [(k, none) for k, none in pairs if k is not None and none is not None]
    if known:
        k, none = (fmean(some) for some in zip(*known, strict=True))
        yield prose(f"""
            - Disagree that b_k's figures are b_k's: published protocol, k {k:.3f}, `none`
            {none:.3f} (mean of {len(known)} runs each). They are the head's.""")
