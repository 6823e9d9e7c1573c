"""The answer of docs/results.md about biases added at zero to a decoder that has none."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from results_data import NOT_YET, TITLES, prose, table

#: development examples of each task
EXAMPLES = {"sst2": 400, "cb": 56}
MAJORITY = {"sst2": 0.52, "cb": 0.50}
#: with 8 demonstrations, on 100 examples of SST-2 and all of CB (docs/causal.md)
DEMONSTRATIONS = {"sst2": 0.62, "cb": 0.48}
RATES = ("0.001", "0.005", "0.01", "0.02")
ROLES = ("v", "q", "m1", "k", "lora")


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
        SmolLM2-135M-Instruct has no biases; a zero one was added to a projection and trained alone,
        the task asked as a prompt: SST-2 with 400 training examples and the first 400 development
        rows, CB with all 250 and 56; batch 8, 2 epochs, linear decay, bf16, on a CPU. The
        projection ratio of such a bias is 1 by definition and cannot choose (nor can ‖pre‖, which
        is 0). m1 is the output projection's bias; lora is LoRA on q and v. The metric is accuracy
        after the second epoch.""")
    yield ""
    for task in EXAMPLES:
        some = [row for row in rows if row["task"] == task]
        if some:
            yield from _answer(task, some)
    yield ""
    yield from table(
        ["task", "bias", "rate", "seed", "run by", "after one epoch", "after two", "macro F1"],
        [[TITLES[row["task"]], *(row[name] or "-" for name in list(row)[1:])] for row in rows],
    )
    yield prose("""
        "plain loop" are runs of a loop of transformers' own, without this project's code, of the
        same settings; the others are `beftkit train`:""")
    yield ""
    yield "```sh"
    yield "beftkit train SMOLLM2 --task sst2 --data-dir DATA --add-bias v --train-size 400 \\"
    yield "    --lr 5e-3 --batch-size 8 --epochs 2 --schedule linear --dtype bfloat16 --seed 0 \\"
    yield "    -o runs/smol-v"
    yield "```"
    yield ""


def _answer(task: str, rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Each role at the best of its rates, beside zero-shot and each other."""
    zero = next(float(row["accuracy_2"]) for row in rows if row["bias"] == "zero-shot")
    # Other seeds would be more tries of one role than of the others; of two runs of a cell this
    # project's own counts.
    at: dict[tuple[str, str], float] = {}
    for row in sorted(rows, key=lambda row: row["source"] == "beftkit"):
        if row["bias"] in ROLES and row["seed"] == "0":
            at[row["bias"], row["rate"]] = float(row["accuracy_2"])
    best = {
        role: max((value, rate) for (one, rate), value in at.items() if one == role)
        for role in dict.fromkeys(role for role, _ in at)
    }
    tried = {role: sum(one == role for one, _ in at) for role in best}
    told = ", ".join(
        f"{role} {best[role][0]:.3f} (at {best[role][1]}, of {tried[role]})"
        for role in ROLES
        if role in best
    )
    yield prose(f"""
        - {TITLES[task]}, each at the best of the rates that were tried, seed 0: {told}; zero-shot
        {zero:.3f}, 8-shot {DEMONSTRATIONS[task]:.2f} ([how](causal.md#a-real-model)), majority
        {MAJORITY[task]:.2f}.
        {_told("v", "q", best, task)} {_told("k", "zero-shot", best, task, zero)}""")
    both = [
        f"{rate} {at['v', rate] - at['q', rate]:+.3f}"
        for rate in sorted({rate for _, rate in at}, key=float)
        if ("v", rate) in at and ("q", rate) in at
    ]
    if both:
        yield f"  v - q at one common rate: {', '.join(both)}."
    yield from _again(rows, best)


def _again(rows: Sequence[dict[str, str]], best: dict[str, tuple[float, str]]) -> Iterator[str]:
    """What other seeds got at the rate that seed 0 chose: no best of several tries."""
    told = []
    for role in (role for role in ROLES if role in best):
        others = [
            (int(row["seed"]), float(row["accuracy_2"]))
            for row in rows
            if (row["bias"], row["rate"]) == (role, best[role][1]) and row["seed"] not in ("", "0")
        ]
        if others:
            told.append(f"{role} " + ", ".join(f"{value:.3f}" for _, value in sorted(others)))
    if told:
        yield f"  Other seeds (1, 2) at these rates, which seed 0 chose: {'; '.join(told)}."


def missing_added(folder: Path) -> str:
    """Cells of SST-2 and CB that are not there, by name."""
    path = folder / "added.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["task"], row["bias"], row["rate"]) for row in csv.DictReader(file)]
    lacking = [
        f"{TITLES[task]} {bias} {', '.join(some)}"
        for task in EXAMPLES
        for bias in ROLES[:-1]
        if (some := [rate for rate in RATES if (task, bias, rate) not in rows])
    ]
    lacking += [
        f"{TITLES[task]} lora"
        for task in EXAMPLES
        if not any(one[:2] == (task, "lora") for one in rows)
    ]
    return "; ".join(lacking)


def _told(
    one: str, other: str, best: dict[str, tuple[float, str]], task: str, zero: float | None = None
) -> str:
    """A difference in words, by the development examples' standard error."""
    if one not in best or (zero is None and other not in best):
        return ""
    a = best[one][0]
    b = best[other][0] if zero is None else zero
    error = math.sqrt((a * (1 - a) + b * (1 - b)) / EXAMPLES[task])
    kind = "told apart" if abs(a - b) > 2 * error else "not told apart"
    return f"{one} - {other} is {a - b:+.3f} ± {error:.3f}: {kind}."
