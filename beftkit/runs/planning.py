"""What a run or a measurement would do, and what it would refuse: told without any weights.

Data that are there are read, and headers and configuration of the model; texts are not tokenised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from beftkit.accelerator import make_accelerator
from beftkit.errors import BeftError
from beftkit.files import headed, plain_of
from beftkit.models import Loaded, load_tokenizer
from beftkit.objectives import held_labels, objective_of
from beftkit.objectives.fits import most_tokens
from beftkit.registry import REGIMES, TASKS
from beftkit.runs.examples import example_notes
from beftkit.runs.folders import SETTINGS, former_files
from beftkit.runs.loading import class_notes, planned_data
from beftkit.runs.locks import check_free
from beftkit.runs.prepare import (
    check_metrics,
    choose_parts,
    fill_settings,
    most_wanted,
    training_examples,
    validation_examples,
)
from beftkit.runs.publishing import check_wanted
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.resolve import Loading
from beftkit.settings.topics import Part
from beftkit.settings.train import TrainSettings
from beftkit.shown import Shown
from beftkit.tasks import Data
from beftkit.training.course import Course, course_of
from beftkit.tuning import Choice, add


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What is known of any of them beforehand.

    Attributes:
        device: where it would run, by torch's name.
        processes: how many share it out.
        task: name of the task or of the user's files.
        labels: of the classes; empty where there are none.
        rows: split -> examples there are; empty where the data were not to be had.
        classes: split -> label -> rows, of whole splits; empty for values.
        unread: why the data were not to be had; nothing where they were read.
        validation: split -> examples that evaluations take.
        max_length: tokens that a row is cut to.
        differs: names of the settings that are not their default.
        notes: what is to be said of data and choice.
    """

    device: str
    processes: int
    task: str
    labels: tuple[str, ...]
    rows: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    unread: str
    validation: Mapping[str, int]
    max_length: int
    differs: tuple[str, ...]
    notes: tuple[str, ...]

    def common(self) -> dict[str, Any]:
        """Plain values of what every plan tells, for JSON."""
        return {one.name: getattr(self, one.name) for one in fields(Plan)}


@dataclass(frozen=True, repr=False)
class RunPlan(Plan):
    """What `beftkit train --dry-run` shows.

    Attributes:
        settings: with everything filled in.
        choice: parameters that train, and the sites among them.
        examples: that train; without the data as many as the settings ask for, None: unknown.
        course: updates and evaluations of each seed's run, None: unknown. An estimate where the
            data were not to be had.
        folder: what becomes of ``output``: ``new``, ``replaced``, ``taken up``; None: none given.
    """

    settings: TrainSettings
    choice: Choice
    examples: int | None
    course: Course | None
    folder: str | None

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        what = plain_of(self.settings, "model task bias") | {"device": self.device}
        return what | {"examples": self.examples, "scalars": self.choice.scalars}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        choice, course = self.choice, self.course
        parts = [
            {
                "parameter": part.parameter,
                "kind": part.kind,
                "scalars": part.size,
                "roles": [site.role for site in part.sites],
                "slices": [str(site.cut) for site in part.sites if site.cut],
            }
            for part in choice.parts
        ]
        values = {
            **self.common(),
            "settings": self.settings.model_dump(mode="json"),
            "examples": self.examples,
            "course": course and dict(vars(course)),
            "folder": self.folder,
            "scalars": choice.scalars,
            "head_scalars": choice.head_scalars,
            "total": choice.total,
            "percent": choice.percent,
            "parts": parts,
        }
        return headed(values)


@dataclass(frozen=True, repr=False)
class FisherPlan(Plan):
    """What `beftkit fisher --dry-run` shows.

    Attributes:
        settings: as given.
        examples: that are measured, None: unknown.
        batches: backward passes over them, None: unknown.
        passes: how often over all of them: a head or a snapshot each.
        roles: role -> bias vectors that are measured.
        scalars: in all of these.
    """

    settings: FisherSettings
    examples: int | None
    batches: int | None
    passes: int
    roles: Mapping[str, int]
    scalars: int

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        what = plain_of(self.settings, "model task") | {"device": self.device}
        return what | plain_of(self, "examples batches passes")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        own = {one: getattr(self, one) for one in ("examples", "batches", "passes", "scalars")}
        settings = self.settings.model_dump(mode="json")
        values = {**self.common(), "settings": settings, **own, "roles": dict(self.roles)}
        return headed(values)


@dataclass(frozen=True, eq=False)
class Outline:
    """What planning works on: data, and the model without its weights."""

    data: Data
    unread: str
    model: Any
    plan: Plan


def outline(settings: Loading, given: Part | None = None) -> Outline:
    """What any plan begins with.

    Args:
        settings: of a run or a measurement.
        given: settings whose differences from the defaults are told, where it is not these.

    Raises:
        BeftError: as loading would, but for what weights and tokens alone tell.
    """
    s = settings
    trackers = (s.report_to, s.output or ".") if isinstance(s, TrainSettings) else ()
    accelerator = make_accelerator(s.device, s.precision, *trackers)
    data, unread = planned_data(s)
    objective = objective_of(data)
    model = objective.skeleton(s)
    wanted = most_wanted(s, objective)
    drawn = fill_settings(s, model.config, data) if isinstance(s, TrainSettings) else s
    own = None if s.tokenizer else s.revision
    trusted = s.trust_remote_code
    tokenizer = load_tokenizer(s.tokenizer or s.model, revision=own, trust_remote_code=trusted)
    length = most_tokens(Loaded(model, tokenizer, (), s.model), wanted)
    notes = [*data.notes]
    if unread and data.labels:
        notes.append(f"classes: {', '.join(data.labels)}")
    if length < wanted:
        notes.append(f"the model holds {length} tokens, so --max-length is lowered to it")
    splits = {"train": data.train, **data.validation}
    plan = Plan(
        device=str(accelerator.device),
        processes=accelerator.num_processes,
        task=data.name,
        labels=data.labels,
        rows={name: len(split) for name, split in splits.items() if split is not None},
        classes=data.counts,
        unread=unread,
        validation={name: len(one) for name, one in validation_examples(drawn, data).items()},
        max_length=length,
        differs=differing(given or s),
        notes=(*notes, *class_notes(data), *_doubts(drawn, data)),
    )
    return Outline(data, unread, model, plan)


def _doubts(settings: Loading, data: Data) -> tuple[str, ...]:
    """What the examples of a run's first seed make doubtful, where they could be read."""
    if data.train is None or not isinstance(settings, TrainSettings):
        return ()
    drawn = training_examples(settings, data, settings.seeds[0])
    return example_notes(drawn, validation_examples(settings, data), data.labels)


def plan_run(settings: TrainSettings, *, resume: bool = False, overwrite: bool = False) -> RunPlan:
    """Resolve settings, match sites and count updates, without weights.

    Args:
        settings: as `beftkit.runs.train_with` takes them.
        resume, overwrite: what would become of a former run in their ``output``.

    Raises:
        BeftError: as training would, but for what weights and tokens alone tell.
    """
    s = settings
    check_wanted(s)
    found = outline(s)
    data, plan = found.data, found.plan
    filled = fill_settings(s, found.model.config, data)
    metrics = tuple(s.metric) or data.metrics
    check_metrics(metrics, objective_of(data), data, s.trust_remote_code)
    filled = filled.model_copy(update={"metric": metrics})
    choice = choose_parts(filled, found.model, filled.seeds[0])
    examples = count_examples(filled, data, found.unread)
    return RunPlan(
        **{**plan.common(), "notes": (*choice.notes, *plan.notes)},
        settings=filled,
        choice=choice,
        examples=examples,
        course=planned_course(filled, examples, data, found.unread, trains=bool(choice.parts)),
        folder=_fate(s, resume, overwrite),
    )


def plan_fisher(settings: FisherSettings) -> FisherPlan:
    """What a measurement would come to, without weights.

    Raises:
        BeftError: as measuring would, but for what weights and tokens alone tell.
    """
    from beftkit.diff.compare import settle_candidates
    from beftkit.diff.sides import expand_runs
    from beftkit.gradients.tables import listed_sites

    s = settings
    found = outline(s)
    if len(s.head_seeds) > 1 and held_labels(s) is not None:
        raise BeftError(
            f"{s.model}: holds a trained classifier, so no seed draws one; leave out --head-seeds"
        )
    add(found.model, s.add_bias)
    sites = listed_sites(found.model, s.tower, s.model)
    roles: dict[str, int] = {}
    for site in sites:
        roles[site.role] = roles.get(site.role, 0) + 1
    settle_candidates(s.candidate_roles, roles)
    examples = count_examples(s, found.data, found.unread)
    return FisherPlan(
        **found.plan.common(),
        settings=s,
        examples=examples,
        batches=None if examples is None else math.ceil(examples / s.examples_a_pass),
        passes=len(s.head_seeds) + len(expand_runs(s.snapshots)),
        roles=roles,
        scalars=sum(site.width for site in sites),
    )


def count_examples(settings: Loading, data: Data, unread: str) -> int | None:
    """How many examples train or are measured; without the data what the settings ask for.

    Raises:
        BeftError: there are none, or not as many as asked for.
    """
    if not unread:
        return len(training_examples(settings, data, 0))
    if isinstance(settings, TrainSettings):
        if settings.regime in REGIMES:
            return TASKS[data.name].sizes_as(data.kind)[settings.regime]
        return settings.train_size
    return settings.train_size if isinstance(settings, FisherSettings) else None


def planned_course(
    settings: TrainSettings, examples: int | None, data: Data, unread: str, *, trains: bool
) -> Course | None:
    """The course of a run on so many examples; no evaluations where nothing can be evaluated."""
    if examples is None:
        return None
    course = course_of(settings, examples, trains=trains)
    if data.validation or unread:
        return course
    return Course(course.per_epoch, course.updates, 0)


def differing(settings: Part) -> tuple[str, ...]:
    """Names of the settings that were given and are not their default."""
    return tuple(
        name
        for name, field in type(settings).model_fields.items()
        if getattr(settings, name) != field.default
    )


def _fate(settings: TrainSettings, resume: bool, overwrite: bool) -> str | None:
    """What becomes of the output folder, which is refused as training would refuse it."""
    if settings.output is None:
        return None
    folder = Path(settings.output)
    check_free(folder)
    if resume and (folder / SETTINGS).is_file():
        return "taken up"
    return (
        "replaced" if former_files(folder, settings, overwrite=overwrite, resume=False) else "new"
    )
