"""A survey to a document: roles, tasks, outcomes, who stands out, who lies near whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.words import marks, noted, number, sparkline
from beftkit.scores import FIGURES
from beftkit.surveys.neighbours import Neighbour
from beftkit.surveys.results import Survey
from beftkit.surveys.rows import OUTCOMES, PASSING
from beftkit.surveys.summary import Summary, TaskSummary, role_scores, scored

#: rows of a table on a terminal; the files have them all
TASKS, FAR, NEAR, GROUPS = 8, 8, 10, 5
_MEANING = {str(outcome): words for outcome, words in OUTCOMES.items()}
_OF_MODEL = (
    "task",
    "downloads",
    "last_modified",
    "licence",
    "commit",
    "listed",
    "target",
    "other_base",
)


def document(survey: Survey) -> Document:
    """What a terminal shows of a survey, its JSON, and a CSV row a model and role."""
    found = survey.summary
    blocks: list[Block] = [Lines(headline(survey), bullets=True)]
    if scored(survey.rows):
        blocks.append(roles_table(found))
        blocks += [Lines([f"Targets by task:{of(found.tasks, TASKS)}"]), tasks_table(found, TASKS)]
    blocks += [Lines(["What came of the models:"]), outcomes_table(found)]
    if found.outliers:
        blocks.append(Lines([f"Models that stand out:{of(found.outliers, FAR)}"]))
        blocks.append(outliers_table(found, FAR))
    if pairs := survey.neighbours.pairs():
        blocks.append(Lines([f"Nearest by bias change:{of(pairs, NEAR)}"]))
        blocks.append(neighbours_table(survey, NEAR))
    said = notes(survey)
    blocks += [Lines(noted(said), bullets=True)] if said else []
    return Document(survey.to_dict(), role_rows(survey), blocks, said)


def of(items: Sequence[Any], most: int) -> str:
    """How many of so many a table shows, where those are not all."""
    return f" the first {most} of {len(items)}" if len(items) > most else ""


def headline(survey: Survey) -> list[str]:
    """The base, how many models were asked and scored, what they say of the target."""
    head, found = survey.head, survey.summary
    commit = f" (commit {head.commit[:8]})" if head.commit else ""
    asked = ", ".join(f"{count} {outcome}" for outcome, count in found.outcomes.items())
    layers = len({(site.tower, site.layer) for site in head.sites})
    what = f"{head.family}, {head.tower} tower, {layers} layers, {len(head.sites)} biases"
    lines = [f"BASE    {head.base}{commit}", f"MODELS  {len(survey.rows)}: {asked or 'none'}"]
    if len(found.listed) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in found.listed.items())
        lines.append(f"listed as fine-tunes of: {listed}")
    lines.append(f"{what}; score: {FIGURES[found.figure]}, mean over a role's sites")
    return [*lines, targets_line(survey)]


def targets_line(survey: Survey) -> str:
    """How many models have which role as target, most first."""
    held = len(scored(survey.rows))
    counts = [(one.role, one.targets) for one in survey.summary.roles if one.targets]
    none = held - sum(count for _, count in counts)
    counts = sorted(counts, key=lambda one: -one[1]) + ([("none", none)] if none else [])
    shares = ", ".join(f"{role} in {count} ({100 * count / held:.0f} %)" for role, count in counts)
    return f"target: {shares}" if shares else "target: no model was scored"


def roles_table(found: Summary) -> Table:
    """Each role's quantiles over the models, mean over the layers, and how often it is target."""
    columns = [*texts("role"), *numbers("median"), *numbers("25 %", "75 %", spare=2)]
    columns += [*numbers("5 %", "95 %", spare=5), *texts("per layer", spare=4)]
    columns += [*numbers("target of", spare=1), *numbers("models", spare=3)]
    columns += texts("", folds=True, name="inert")
    body: list[list[str | None]] = []
    for one in found.roles:
        low, lower, middle, upper, high = one.quantiles or (None,) * 5
        layers = [layer.mean for layer in found.layers if layer.role == one.role]
        row = [one.role, number(middle), number(lower), number(upper), number(low), number(high)]
        row += [
            sparkline(layers, max(filter(None, layers), default=0.0)),
            str(one.targets),
            str(one.models),
        ]
        body.append([*row, marks(one.inert, "zero in the base" if one.role in found.empty else "")])
    most = max((one.targets for one in found.roles), default=0)
    strong = [one.targets == most > 0 for one in found.roles]
    return Table(columns, body, strong, title=f"{FIGURES[found.figure]} of each role over models")


def tasks_table(found: Summary, most: int) -> Table:
    """Each task's models and their targets."""
    columns = [*texts("task", folds=True), *numbers("models"), *texts("targets", folds=True)]
    body = [[one.task, str(one.models), shares(one)] for one in found.tasks[:most]]
    return Table(columns, body, title="Targets by the task that the hub lists")


def shares(task: TaskSummary) -> str:
    """``v 80 %, q 20 %``."""
    counts = sorted(task.targets.items(), key=lambda one: (one[0] == "none", -one[1]))
    return ", ".join(f"{role} {100 * count / task.models:.0f} %" for role, count in counts)


def outcomes_table(found: Summary) -> Table:
    """How many models came to what, and what that means."""
    total = sum(found.outcomes.values())
    columns = [*texts("outcome"), *numbers("models"), *numbers("%", spare=2)]
    columns += texts("which means", folds=True, spare=1)
    body = [
        [outcome, str(count), f"{100 * count / total:.1f}", _MEANING.get(outcome)]
        for outcome, count in found.outcomes.items()
    ]
    return Table(columns, body, title="What came of the models")


def outliers_table(found: Summary, most: int) -> Table:
    """Models whose score of a role is far from the others', furthest first."""
    columns = [*texts("model", folds=True), *texts("role"), *numbers("score")]
    columns += [*numbers("median", spare=1), *numbers("z")]
    body = [
        [one.model, one.role, number(one.score), number(one.median), f"{one.z:+.1f}"]
        for one in found.outliers[:most]
    ]
    return Table(columns, body, title="Models that stand out, each by its furthest role")


def neighbours_table(survey: Survey, most: int) -> Table:
    """Each model's nearest one, highest cosines first; two that are each other's stand once."""
    columns = [*texts("model", "nearest", folds=True), *numbers("cosine")]
    columns += texts("", folds=True, name="each other's, equal biases", spare=1)
    digests = {row.model: row.bias_sha256 for row in survey.rows}
    body = []
    for one, mutual in survey.neighbours.pairs()[:most]:
        said = [equal(one, digests), "each other's" if mutual else ""]
        row = [one.model, one.neighbour, f"{one.cosine:.4f}", ", ".join(filter(None, said))]
        body.append(row)
    return Table(columns, body, title="Each model's nearest neighbour by bias change")


def equal(one: Neighbour, digests: dict[str, str | None]) -> str:
    """Whether both have the same biases to the last bit."""
    mine, theirs = digests.get(one.model), digests.get(one.neighbour)
    return "equal biases" if mine is not None and mine == theirs else ""


def notes(survey: Survey) -> list[str]:
    """What a reader of the numbers needs to know."""
    found, said = survey.summary, list(survey.notes)
    if found.empty:
        said.append(
            f"{', '.join(found.empty)}: zero in the base, so the projection ratio is 1 whatever "
            "changed"
        )
    if inert := [one.role for one in found.roles if one.inert == "yes"]:
        said.append(f"{', '.join(inert)}: inert, so what moved it is the optimiser's noise")
    if found.copies:
        said.append(f"scored models whose biases equal another's: {found.copies}; each counts")
    if found.partial:
        said.append(
            f"scored models that lack some of the base's biases: {found.partial}; a role's score "
            "is the mean over what they have"
        )
    if others := [row.model for row in survey.rows if row.other_base]:
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        said.append(
            f"adapters that were trained on another base than this one: {len(others)} ({names}); "
            "their figures may mean nothing, and each counts"
        )
    if left := survey.neighbours.left_out:
        counts = ", ".join(f"{why} {count}" for why, count in Counter(left.values()).items())
        said.append(f"scored models without neighbours: {counts}")
    if again := sum(found.outcomes.get(outcome, 0) for outcome in PASSING):
        said.append(f"models not to be had this time: {again}; --resume asks again")
    return said


def role_rows(survey: Survey) -> list[dict[str, Any]]:
    """A row a model and role: what the hub says of it, and the role's score; one for the others."""
    held = scored(survey.rows)
    scores = {role: one.tolist() for role, one in role_scores(survey.head, held).items()}
    places = {row.model: place for place, row in enumerate(held)}
    inert = {one.role: one.inert for one in survey.summary.roles}
    found = []
    for row in survey.rows:
        said = {"model": row.model, "outcome": row.outcome, "reason": row.reason}
        said |= {name: getattr(row, name) for name in _OF_MODEL}
        place = places.get(row.model)
        if place is None:
            found.append({**said, "role": None, "inert": None, survey.summary.figure: None})
            continue
        for role, values in scores.items():
            value = values[place] if values[place] == values[place] else None  # NaN: none
            found.append({**said, "role": role, "inert": inert[role], survey.summary.figure: value})
    return found
