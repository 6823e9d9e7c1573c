"""A survey as one HTML file, with the numbers and the figures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import beftkit.present.pages.survey_figures as draw
import beftkit.present.survey as show
from beftkit.errors import BeftError
from beftkit.files import check_writable, write_whole
from beftkit.present.data import csv_text
from beftkit.present.document import Block, Files, Lines, Picture, Section, Table, numbers, texts
from beftkit.present.html import html_page
from beftkit.present.pages.drawing import files
from beftkit.present.words import number
from beftkit.surveys.results import PARQUET, Survey, write_parquet
from beftkit.surveys.summary import RoleSummary, Summary, role_scores, scored

PAGE = "survey.html"
#: rows that the page's tables have; the files beside it have them all
MODELS, TASKS, FAR, NEAR, GROUPS, MEMBERS = 50, 30, 30, 50, 30, 8
_SCORES = (
    "Each model has one score a role: the mean over that role's bias vectors. Scores differ by "
    "orders of magnitude between models, so scales are logarithmic."
)
_FAR = (
    "How far a model's score of a role is from the other models', on a logarithmic scale and by "
    "the median and the median absolute deviation (modified z, Iglewicz and Hoaglin 1993); from "
    "3.5 on it stands out. Roles that it left unmoved do not count, nor do inert ones."
)
_NEAR = (
    "Two models are near where their biases moved the same way from the base: the cosine between "
    "their changes. Near ones were trained from one another, or on the same thing; of unrelated "
    "ones it is about 0."
)
_NUMBERS = {
    "models.csv": "a row a model and role: what came of it, task, downloads, score",
    "roles.csv": "a row a role: quantiles and mean over the models, how often it is the target",
    "distribution.csv": "a row a role and bin: models with such a score",
    "layers.csv": "a row a role and layer: mean and median over the models",
    "targets.csv": "a row a task and target: models, share",
    "outcomes.csv": "a row an outcome: models",
    "outliers.csv": "a row a model that stands out, by its furthest role",
    "neighbours.csv": "a row a model and neighbour: rank, cosine in float64",
    "groups.csv": "a row a model of a group that a chain of near ones links",
}


def write_page(survey: Survey) -> list[str]:
    """Write all that a survey is looked at by into its folder.

    ``survey.html`` loads nothing; figures and numbers (CSV) lie in ``survey.html_files``, every
    model, role and layer in ``survey.parquet``. What a former page left there is replaced.

    Returns:
        What was written, or why not, a sentence each: without matplotlib there is no page, without
        pyarrow no table.

    Raises:
        BeftError: the folder cannot be written to.
    """
    folder, said = Path(survey.folder), list[str]()
    page = folder / PAGE
    beside = page.with_name(f"{page.name}_files")
    made = {name: csv_text(rows).encode() for name, rows in numbers_of(survey).items()}
    check_writable(page)
    if beside.is_symlink() or (beside.exists() and not beside.is_dir()):
        raise BeftError(f"{beside}: is no folder; the survey's figures go there: move it away")
    if _has("pyarrow"):
        said.append(f"wrote {write_parquet(survey)}: every model, role and layer")
    else:
        said.append(f"no {PARQUET}, which needs pyarrow: pip install pyarrow")
    if not _has("matplotlib"):
        _write(beside, made)
        no_page = f"no {PAGE}, whose figures need matplotlib: pip install 'beftkit[plot]'"
        return [*said, no_page, f"wrote numbers to {beside}"]
    sections = survey_sections(survey)
    drawn = [one for section in sections for one in section.blocks if isinstance(one, Picture)]
    made |= {name: data for picture in drawn for name, data in files(picture).items()}
    listed = [([name], _NUMBERS[name]) for name in made if name in _NUMBERS]
    listed += [([f"{one.name}.{form}" for form in ("svg", "png")], one.alt) for one in drawn]
    sections.append(Section("Files", [Files(listed)]))
    title = f"What fine-tuning did to the biases of {survey.head.base}"
    text = html_page(title, sections, beside.name, _footer(survey))
    _write(beside, made)
    write_whole(page, text.encode(errors="backslashreplace"))
    return [*said, f"wrote {page}, and numbers and figures to {beside}"]


def _write(folder: Path, made: Mapping[str, bytes]) -> None:
    """These files; what a former page left under a name of ours goes."""
    try:
        folder.mkdir(exist_ok=True)
        former = [*_NUMBERS, *(f"{name}.{form}" for name in draw.NAMES for form in ("svg", "png"))]
        for name in former:
            if name not in made:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
    for name, data in made.items():
        write_whole(folder / name, data)


def survey_sections(survey: Survey) -> list[Section]:
    """Everything the page holds below its title, but for the files beside it."""
    found = survey.summary
    first: list[Block] = [Lines(show.headline(survey), bullets=True)]
    if said := show.notes(survey):
        first.append(Lines(said, bullets=True))
    first += [*draw.outcomes(found), show.outcomes_table(found)]
    sections = [Section("In short", first)]
    if scored(survey.rows):
        scores: list[Block] = [Lines([_SCORES]), *draw.distribution(found)]
        sections.append(Section("Scores by role", [*scores, show.roles_table(found)]))
        sections.append(Section("Roles and layers", draw.layers(found)))
        table = show.tasks_table(found, TASKS)
        sections.append(Section("Targets by task", [*draw.targets(found), table]))
        sections.append(Section("Models that stand out", _outliers(survey)))
        sections.append(Section("Nearest neighbours", _neighbours(survey)))
        sections.append(Section("Models", [_models(survey)]))
    return sections


def _outliers(survey: Survey) -> list[Block]:
    found = survey.summary
    if not found.outliers:
        return [Lines([_FAR, "None does here."])]
    table = show.outliers_table(found, FAR)
    count = show.of(found.outliers, FAR)
    return [
        Lines([_FAR]),
        *draw.outliers(found),
        replace(table, title=f"{table.title}{count and ':'}{count}"),
    ]


def _neighbours(survey: Survey) -> list[Block]:
    found, blocks = survey.neighbours, list[Block]([Lines([_NEAR])])
    pairs = found.pairs()
    if not pairs:
        return [*blocks, Lines(["Fewer than two models have a change to compare."])]
    table = show.neighbours_table(survey, NEAR)
    count = show.of(pairs, NEAR)
    blocks += [*draw.cosines(found), replace(table, title=f"{table.title}{count and ':'}{count}")]
    if found.groups:
        body = [
            [str(place), str(len(group)), _names(group)]
            for place, group in enumerate(found.groups[:GROUPS], 1)
        ]
        title = f"Groups that a chain of cosines of at least {found.alike:g} links"
        count = show.of(found.groups, GROUPS)
        columns = [*texts("group"), *numbers("models"), *texts("which")]
        blocks.append(Table(columns, body, title=f"{title}{count and ':'}{count}"))
    return blocks


def _names(group: Sequence[str]) -> str:
    more = len(group) - MEMBERS
    return ", ".join(group[:MEMBERS]) + (f" and {more} more" if more > 0 else "")


def _models(survey: Survey) -> Table:
    """The models that are loaded most, with the score of each role."""
    held = scored(survey.rows)
    scores = role_scores(survey.head, held)
    roles = [one.role for one in survey.summary.roles]
    order = sorted(range(len(held)), key=lambda place: -(held[place].downloads or 0))
    columns = [*texts("model", "task"), *numbers("downloads"), *texts("target"), *numbers(*roles)]
    body: list[list[str | None]] = []
    for place in order[:MODELS]:
        row = held[place]
        downloads = None if row.downloads is None else f"{row.downloads:,}"
        values = [float(scores[role][place]) for role in roles]
        told = [number(None if value != value else value) for value in values]  # NaN: none
        body.append([row.model, row.task, downloads, row.target, *told])
    title = f"Scored models, most downloads first{':' * (len(held) > MODELS)}"
    return Table(columns, body, title=f"{title}{show.of(held, MODELS)}")


def _footer(survey: Survey) -> str:
    from beftkit import __version__

    return f"Made by beftkit survey, version {__version__}, begun {survey.head.begun}."


def _has(library: str) -> bool:
    try:
        import_module(library)
    except ImportError:
        return False
    return True


def numbers_of(survey: Survey) -> dict[str, list[dict[str, Any]]]:
    """The numbers of each figure and table, by the name of their file; empty ones have none."""
    found, held = survey.summary, len(scored(survey.rows))
    total = sum(found.outcomes.values())
    tables: dict[str, Iterable[dict[str, Any]]] = {
        "models.csv": show.role_rows(survey),
        "roles.csv": map(_role_row, found.roles) if held else (),
        "distribution.csv": _bins(found),
        "layers.csv": map(asdict, found.layers) if held else (),
        "targets.csv": (
            {"task": one.task, "target": role, "models": count, "share": count / one.models}
            for one in found.tasks
            for role, count in one.targets.items()
        ),
        "outcomes.csv": (
            {"outcome": name, "models": count, "share": count / total}
            for name, count in found.outcomes.items()
        ),
        "outliers.csv": map(asdict, found.outliers),
        "neighbours.csv": map(asdict, survey.neighbours.nearest),
        "groups.csv": (
            {"group": place, "model": model}
            for place, group in enumerate(survey.neighbours.groups, 1)
            for model in group
        ),
    }
    return {name: rows for name, given in tables.items() if (rows := list(given))}


def _role_row(one: RoleSummary) -> dict[str, Any]:
    low, lower, middle, upper, high = one.quantiles or (None,) * 5
    row = {"role": one.role, "inert": one.inert, "models": one.models, "zero": one.zero}
    row |= {"q05": low, "q25": lower, "median": middle, "q75": upper, "q95": high}
    return row | {"mean": one.mean, "targets": one.targets}


def _bins(found: Summary) -> Iterator[dict[str, Any]]:
    for one in found.roles:
        for low, high, count in zip(found.edges, found.edges[1:], one.bins, strict=False):
            yield {"role": one.role, "low": low, "high": high, "models": count}
