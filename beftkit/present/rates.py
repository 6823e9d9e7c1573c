"""Each bias at its own best learning rate, and what the rates come to, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from beftkit.present.document import Block, Lines, Table, numbers, texts
from beftkit.present.verdicts import listed
from beftkit.present.words import fixed

if TYPE_CHECKING:
    from beftkit.selection import GroupResult, Selection
    from beftkit.selection.rates import AcrossRates


def rates_blocks(found: Selection) -> list[Block]:
    """A table for each place that was verified at several rates, and who wins where."""
    blocks: list[Block] = []
    for one in found.rates:
        where = f"{_place(found, one)}: " if len(found.rates) > 1 else ""
        tried = listed(f"{lr:g}" for lr in one.lrs)
        blocks.append(Lines([f"{where}each bias at its own best rate of {tried}:"]))
        blocks += [rates_table(found, one), Lines(rate_words(found, one))]
    return blocks


def rates_table(found: Selection, one: AcrossRates, title: str = "") -> Table:
    """One row a bias: its own best rate, the metric there, and where that rate lies."""
    edges = {"inside": "", "lowest": "lowest tried", "highest": "highest tried"}
    body = [
        [bias, f"{own.lr:g}", fixed(own.value), str(own.seeds), edges[own.edge]]
        for bias, own in one.own.items()
    ]
    columns = [*texts("bias"), *numbers("own rate", str(found.metric)), *numbers("seeds", spare=1)]
    strong = [bias in one.verdict.best for bias in one.own]
    return Table([*columns, *texts("")], body, strong, title)


def rate_words(found: Selection, one: AcrossRates) -> list[str]:
    """Whether the winner hangs on the rate, and which rates lie at the grid's edge."""
    at: dict[tuple[str, ...], list[str]] = {}
    for winner in one.winners:
        at.setdefault(winner.best, []).append(f"{winner.lr:g}")
    wins = [f"{listed(best) if best else 'none'} at {listed(lrs)}" for best, lrs in at.items()]
    if one.depends:
        lines = [f"The winner depends on the rate: {'; '.join(wins)}."]
    else:
        always = set.intersection(*({*winner.best} for winner in one.winners))
        won = "wins" if len(always) == 1 else "tie"
        lines = [f"{listed(sorted(always))} {won} at every one of these rates."]
    for edge, beyond in (("highest", "higher"), ("lowest", "lower")):
        some = [bias for bias in found.candidates if bias in one.own]
        some = [bias for bias in some if bias in one.verdict.candidates]
        some = [bias for bias in some if one.own[bias].edge == edge]
        if some:
            did = f"{listed(some)} did best at the {edge} rate tried"
            lines.append(f"{did}: a {beyond} one may be better still.")
    return lines


def at_own_rates(found: Selection, one: AcrossRates) -> GroupResult:
    """A group whose biases are each at their own rate, with the verdict of that; for words alone.

    Its own rate, for a command, is that of what is recommended.
    """
    here = {
        group.lr: group
        for group in found.groups
        if (group.regime, group.train_size, group.epochs)
        == (one.regime, one.train_size, one.epochs)
    }
    bias = one.verdict.recommended
    base = here[one.own[bias].lr if bias else one.lrs[0]]
    verified = {name: here[own.lr].verified[name] for name, own in one.own.items()}
    return replace(base, verified=verified, verdict=one.verdict)


def unlooked_words(found: Selection) -> list[str]:
    """Of a verification at a single rate: that no other was tried."""
    lrs = {group.lr for group in found.groups if group.verdict}
    if found.rates or len(lrs) != 1 or None in lrs:
        return []
    return [
        f"All at one learning rate, {next(iter(lrs)):g}: whether another would change the order "
        "was not looked at (--lrs with several)."
    ]


def _place(found: Selection, one: AcrossRates) -> str:
    return replace(at_own_rates(found, one), lr=None).label
