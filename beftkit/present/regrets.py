"""Methods side by side: what each picked, and what its picks cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from beftkit.present.document import Table, numbers, texts
from beftkit.present.words import number

if TYPE_CHECKING:
    from beftkit.selection import CellResult, GroupResult
    from beftkit.selection.regret import Regret

#: every method that picks, in the order of its costs' table
NAMES = {
    "projection": "projection",
    "magnitude": "magnitude",
    "fisher": "Fisher",
    "adam": "Adam's second moment",
    "norm": "largest ‖pre‖",
    "always-v": "always v",
}


def free_words(group: GroupResult) -> list[str]:
    """What methods pick that cost nothing more; no line where there are none."""
    picks = [f"{NAMES[name]}: {table.target or 'none'}" for name, table in group.free.items()]
    return [f"at no further cost, {'; '.join(picks)}"] if picks else []


def regret_words(metric: str | None) -> str:
    """What the columns of `regret_table` are."""
    return (
        f"what each method's picks cost in {metric} (regret: best candidate of a cell minus the "
        "pick; interval: 95 % over cells)"
    )


def regret_table(
    regrets: Mapping[str, Regret], cells: Iterable[CellResult], title: str = ""
) -> Table:
    """One row a method: its picks, how often it picked the best, and its regret."""
    picks: dict[str, Counter[str]] = {}
    for cell in cells:
        for name, table in {**cell.methods, **cell.free}.items():
            picks.setdefault(name, Counter())[table.target or "none"] += 1
    body: list[list[str | None]] = []
    for name, one in regrets.items():
        low, high = (None, None) if one.low is None else (number(one.low), number(one.high))
        told = ", ".join(f"{role} {n}" for role, n in picks.get(name, Counter()).most_common())
        body.append([NAMES[name], told, f"{one.best} of {one.cells}", number(one.mean), low, high])
    columns = [*texts("method"), *texts("picks", folds=True), *numbers("picked the best", spare=2)]
    columns += [*numbers("regret"), *numbers("low", "high", spare=1)]
    return Table(columns, body, title=title)
