"""What a report says, in order: selections in, blocks of text, tables and figures out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import beftkit.present.pages.figures as draw
from beftkit.present.document import Block, Command, Lines, Section, Table, numbers, texts
from beftkit.present.pages.comparing import carried
from beftkit.present.pages.detail import detail, origin
from beftkit.present.pages.rows import percent
from beftkit.present.pages.selections import Folder
from beftkit.present.rates import rate_words, rates_table
from beftkit.present.regrets import regret_table, regret_words
from beftkit.present.selection import TITLES, advice
from beftkit.present.verdicts import best_words, verdict_word
from beftkit.present.words import fixed, number
from beftkit.selection.results import GroupResult, Selection

_CHOICES = (
    "The bias each method would train; runner-up, margin, gap between v and q and the update from "
    "which the ranking stayed are the projection ratio's. The verdict is that of the metrics where "
    "each candidate was trained alone, else of the score"
)
_PROOFS = (
    "Each bias trained alone: its best metric; one standard error of the best candidate's at this "
    "many validation examples; what a constant prediction gets; which candidate did best; the "
    "target's share of the scalars; Kendall's tau between each method's ranks and the metrics"
)
_RANKINGS = (
    "As the paper's figure 4: does the bias that a method ranks higher reach the better metric "
    "when it alone is trained? The points of a method that foretells it fall from left to right. "
    "Ringed: the method's target among the candidates. Hollow: inert, the softmax ignores it. "
    "Dashed: the controls, none (the head alone) and all (every bias). Bars: the standard "
    "deviation over seeds; of a single one, one standard error at this many validation examples."
)
_UNVERIFIED = (
    "was not verified: no bias was trained alone, so there are no metrics to hold its rankings to. "
    "With --verify, beftkit select trains them."
)
_SCATTER = (
    "The paper leaves open how a score relates to what training that bias brings. These are all "
    "the pairs there are here: a method whose score foretold the metric would put its points on a "
    "rising line."
)
_GAPS = (
    "The paper (3.4) finds the gap between the scores of v and q wider where training moves biases "
    "further, and with it the gap between their metrics."
)


def report_sections(folders: Sequence[Folder]) -> list[Section]:
    """Everything a report holds below its title, but for the files beside it."""
    several = len(folders) > 1
    sections = [
        Section("In short", *_below([_short(one) for one in folders], several)),
        Section("At a glance", [_choices(folders), *_proofs(folders)]),
    ]
    if several or any(len(one.found.groups) > 1 for one in folders):
        sections.append(Section("Does the target carry over?", carried(folders)))
    sections.append(Section("Ranking against metric", list(_rankings(folders))))
    if any(_verified(one.found) for one in folders):
        pictures = draw.scatter(folders, "score-metric")
        sections.append(Section("Score against metric", [Lines([_SCATTER]), *pictures]))
    gaps: list[Block] = []
    for n, one in enumerate(folders, 1):
        gaps += draw.gaps(one, _name("gap", n, several))
    if gaps:
        sections.append(Section("Gap between v and q", [Lines([_GAPS]), *gaps]))
    details = [detail(one, n, several) for n, one in enumerate(folders, 1)]
    sections.append(Section("Scores in full", *_below(details, several)))
    origins = [origin(one) for one in folders]
    sections.append(Section("Configuration and commands", *_below(origins, several)))
    return sections


def _below(sections: Sequence[Section], several: bool) -> tuple[Sequence[Block], Sequence[Section]]:
    """A section for each folder, or the only folder's without a heading."""
    return ([], sections) if several else (sections[0].blocks, sections[0].below)


def _name(stem: str, number: int, several: bool) -> str:
    return f"{stem}-{number}" if several else stem


def _short(one: Folder) -> Section:
    words, command = advice(one.found)
    blocks: list[Block] = [Lines([" ".join(words)])]
    blocks += [Command([command])] if command else []
    blocks += [Lines(notes, bullets=True)] if (notes := _notes(one.found)) else []
    return Section(one.label, blocks)


def _notes(found: Selection) -> list[str]:
    notes = list(found.notes)
    if (precision := found.settings.get("precision")) not in (None, "fp32"):
        notes.insert(0, f"arithmetic in {precision}")
    if found.settings.get("probe_steps"):
        notes.insert(0, f"probes were stopped after {found.settings['probe_steps']} updates")
    return notes


def _choices(folders: Sequence[Folder]) -> Table:
    """Targets and margins of every place of every grid."""
    methods = _methods(folders)
    columns = texts("model and task", "place", *(TITLES[m] for m in methods), "runner-up")
    columns += [*numbers("margin"), *texts("95 % interval", "verdict")]
    columns += [*numbers("v - q"), *texts("settled at")]
    body = []
    for one in folders:
        for group in one.found.groups:
            lead, settled = group.leading.margin, group.settled
            row = [one.label, group.label, *(group.target(m) for m in methods)]
            row += [lead.runner_up, number(lead.value)] if lead else [None, "-"]
            low, high = (lead.low, lead.high) if lead else (None, None)
            alone = " (layers alone)" if lead and lead.over == "layers" else ""
            row.append(None if low is None else f"{number(low)} to {number(high)}{alone}")
            stayed = f"{settled.ranking} of {settled.steps}" if settled else None
            body.append([*row, verdict_word(group), number(group.gap), stayed])
    return Table(columns, body, title=_CHOICES)


def _proofs(folders: Sequence[Folder]) -> Iterator[Block]:
    """Metrics of every verified place, and how each method's ranking agrees with them."""
    verified = [(one, group) for one in folders for group in one.found.groups if group.verified]
    if not verified:
        return
    methods = _methods(folders)
    biases = list(dict.fromkeys(bias for _, group in verified for bias in group.verified))
    columns = [*texts("model and task", "place", "metric"), *numbers(*biases)]
    columns += [*numbers("standard error", "baseline"), *texts("best")]
    columns += numbers("% scalars", *(f"tau {TITLES[m]}" for m in methods))
    body = []
    for one, group in verified:
        metrics = [number(group.reached(bias)) for bias in biases]
        taus = [number(group.tau_of(m)) for m in methods]
        row = [one.label, group.label, str(one.found.metric), *metrics]
        error = group.verified[bias].standard_error if (bias := _best(group)) else None
        row += [number(error), number(group.baseline)]
        row += [best_words(group), fixed(percent(group)), *taus]
        body.append(row)
    yield Table(columns, body, title=_PROOFS)
    for one in folders:
        for rates in one.found.rates:
            title = f"{one.label}: each bias at its own best learning rate"
            yield rates_table(one.found, rates, title)
            yield Lines(rate_words(one.found, rates), bullets=True)
        if one.found.regret:
            title = f"{one.label}: {regret_words(one.found.metric)}"
            yield regret_table(one.found.regret, one.found.cells, title)


def _best(group: GroupResult) -> str | None:
    return next(iter(group.verdict.best), None) if group.verdict else None


def _rankings(folders: Sequence[Folder]) -> Iterator[Block]:
    if any(_verified(one.found) for one in folders):
        yield Lines([_RANKINGS])
    for n, one in enumerate(folders, 1):
        yield from draw.rankings(one, _name("ranking", n, len(folders) > 1))
    for one in folders:
        if not _verified(one.found):
            yield Lines([f"{one.label} {_UNVERIFIED}"])


def _methods(folders: Sequence[Folder]) -> list[str]:
    held = {name for one in folders for group in one.found.groups for name in group.methods}
    return [name for name in TITLES if name in held]


def _verified(found: Selection) -> bool:
    return any(group.verified for group in found.groups)
