"""What `bench/gpu.py` is to show, and how far its rows are from it."""

from __future__ import annotations

from bench.gpu_rows import Figures

#: the row of Trainer in bf16 whose attention is mended
STEADY = "trainer-bf16-steady"
#: what is to be reached: words, figure, row that has it, row it is compared with, goal
GOALS = [
    ("16 epochs over Trainer, fp32", "all epochs s", "ours-fp32", "trainer-fp32", 3.0),
    ("16 epochs over Trainer, bf16", "all epochs s", "ours-bf16", "trainer-bf16", 8.0),
    ("first epoch over Trainer, fp32", "first epoch s", "ours-fp32", "trainer-fp32", 1.5),
    ("first epoch over Trainer, bf16", "first epoch s", "ours-bf16", "trainer-bf16", 6.0),
    ("evaluation over Trainer, fp32", "evaluation s", "ours-fp32", "trainer-fp32", 3.0),
    ("evaluation over Trainer, bf16", "evaluation s", "ours-bf16", "trainer-bf16", 3.0),
    ("a run of one epoch over Trainer, fp32", "first epoch s", "once-fp32", "trainer-fp32", 1.5),
    ("a run of one epoch over Trainer, bf16", "first epoch s", "once-bf16", "trainer-bf16", 6.0),
    *(  # what is left where Trainer's bf16 is mended; no goal
        (f"{words} over Trainer without cuDNN's attention, bf16", figure, "ours-bf16", STEADY, None)
        for words, figure in (("16 epochs", "all epochs s"), ("first epoch", "first epoch s"))
    ),
]
#: a step may take so many times the captured floor's
GOAL_STEP = 1.15
GOAL_FISHER, GOAL_FISHER_LOOP = 1.10, 8.0


def goals(found: dict[str, Figures]) -> list[tuple[str, str, str]]:
    """What was reached, of that for which there are figures."""
    lines = []

    def value(row: str, figure: str) -> float | None:
        one = found.get(row, {}).get(figure)
        return one if isinstance(one, int | float) else None

    for words, figure, mine, other, goal in GOALS:
        a, b = value(mine, figure), value(other, figure)
        if a and b:
            lines.append((words, f"{goal:g}x" if goal else "-", f"{b / a:.2f}x"))
    for precision in ("fp32", "tf32", "bf16"):
        a, b = value(f"ours-{precision}", "step ms"), value("floor", f"{precision} step ms")
        if a and b:
            words = f"a step of the captured floor's, {precision}"
            lines.append((words, f"{GOAL_STEP:g}x", f"{a / b:.2f}x"))
    for figure, goal in (
        ("of captured forward and backward", GOAL_FISHER),
        ("over the loop", GOAL_FISHER_LOOP),
        ("pass over the loop", GOAL_FISHER_LOOP),
    ):
        if a := value("fisher", figure):
            lines.append((f"Fisher {figure}", f"{goal:g}x", f"{a:.2f}x"))
    return lines
