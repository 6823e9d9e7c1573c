"""An evaluation as the run's own was, but for what is given; and what differs then.

Two places tell of the run. The adapter's header says words, and travels with it; ``run.yaml`` of
the run's folder, where the adapter still lies in it, says paths as well. The header counts: a
``run.yaml`` that disagrees with it is another run's, and is left out. A path is never taken from a
header, nor is leave to run code from either.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError, UsageError, option
from beftkit.files import same_file
from beftkit.objectives import for_files, for_prompts, has_head, kind_said
from beftkit.registry import OFFERED, TASKS
from beftkit.runs.folders import ADAPTER, MODEL, SETTINGS
from beftkit.runs.provenance import kept
from beftkit.runs.said import Said, hub_id, words_of_run
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.resolve import resolve_train
from beftkit.settings.train import TrainSettings
from beftkit.weights import AdapterInfo

#: taken from the run whatever the examples are
_WORDS = ("text_columns", "label_column", "quotes", "max_length", "precision", "dtype", "metric")
#: taken from the run where no task is given
_ASKED = ("template", "choices")
#: what does not decide which examples there are, and what the model reads of them
_ARITHMETIC = ("precision", "dtype", "metric")


@dataclass(frozen=True)
class OwnRun:
    """The run whose folder an adapter, or a whole model, lies in."""

    folder: Path
    settings: TrainSettings

    @property
    def file(self) -> Path:
        """Its ``run.yaml``."""
        return self.folder / SETTINGS

    def found(self, name: str) -> str | None:
        """Where a path of its settings leads today; None: nowhere."""
        given = Path(getattr(self.settings, name))
        for start in [Path()] if given.is_absolute() else self._starts():
            try:
                if (start / given).exists():
                    return str(given if start == Path.cwd() else start / given)
            except (OSError, ValueError):  # no usable path
                continue
        return None

    def needed(self, name: str, advice: str) -> str:
        """As `found`.

        Raises:
            BeftError: it is gone; with what to do.
        """
        if (path := self.found(name)) is not None:
            return path
        given = getattr(self.settings, name)
        what = f"its evaluation read {given!r} ({name.replace('_', '-')}), which is not there now"
        raise BeftError(f"{self.file}: {what}; {advice}")

    def _starts(self) -> Iterator[Path]:
        """Where relative paths of its settings may begin: the directory it was started in.

        First the one that the folder's own place tells, so that a project may move as a whole.
        """
        output = self.settings.output
        parts = Path(os.path.normpath(output or "/")).parts
        own = self.folder.parts[len(self.folder.parts) - len(parts) :]
        if output and not Path(output).is_absolute() and own == parts:
            yield Path(*self.folder.parts[: len(self.folder.parts) - len(parts)])
        if (whence := kept(self.folder)) is not None:
            yield Path(whence.directory)


def own_run(reference: str) -> OwnRun | None:
    """The run in whose folder an adapter or model lies, under the name that runs give it.

    Raises:
        BeftError: the ``run.yaml`` there is no run's.
    """
    place = Path(reference).absolute()
    if place.name not in (ADAPTER, MODEL) or not place.is_dir():
        return None
    folder = place.parent.resolve()
    if not (folder / SETTINGS).is_file() and folder.name.startswith("seed-"):
        folder = folder.parent
    file = folder / SETTINGS
    return OwnRun(folder, resolve_train(file, {})) if file.is_file() else None


@dataclass(frozen=True)
class Repeated:
    """What to evaluate, and how.

    Attributes:
        settings: what was given, filled up with what the run had.
        said: what the adapter says of the run.
        notes: what differs from the run's own evaluation, and where its data was found.
        other_examples: they are known to be others than the run's, and that is said.
    """

    settings: EvaluateSettings
    said: Said
    notes: tuple[str, ...]
    other_examples: bool


def repeated(
    settings: EvaluateSettings, info: AdapterInfo | None, given: Collection[str] | None = None
) -> Repeated:
    """The settings, with what they leave out as the run had it.

    Args:
        settings: which adapter or model, and whatever else is known.
        info: what the adapter says of itself; None: a whole model is evaluated.
        given: names of what the user said; None: all that are in ``model_fields_set``.

    Raises:
        UsageError: nobody says what to evaluate on, or two do.
        BeftError: what the run was evaluated on is no longer there.
    """
    return _Repetition(settings, info, given).done()


class _Repetition:
    """One call's; notes are collected on the way."""

    def __init__(
        self, settings: EvaluateSettings, info: AdapterInfo | None, given: Collection[str] | None
    ) -> None:
        self.given, self.info, self.notes = settings, info, list[str]()
        names = settings.model_fields_set if given is None else given
        self.own = {name for name in names if getattr(settings, name) not in (None, ())}
        words = {} if info is None else {**info.metadata}
        try:
            self.run = own_run(settings.adapter or settings.model)
        except BeftError as error:
            self.run = None
            self.notes.append(f"left out: {error}")
        if self.run is not None:
            words = self.agreed(self.run, words)
        if info is not None and (kind := kind_said(words.get("beftkit.as"), info.task_type)):
            words["beftkit.as"] = kind  # of an adapter of others PEFT's type tells
        self.said = Said.of(words)
        self.had = self.said.evaluation
        self.other = self.said_so = False

    def agreed(self, run: OwnRun, words: dict[str, str]) -> dict[str, str]:
        """What header and ``run.yaml`` say together; the header alone where they disagree."""
        there = words_of_run(run.settings)
        if self.info is None:
            return there
        ours = Said.of(words).bias is not None
        # Which tokenizers are the hub's depends on what lies where one stands.
        names = (name for name in there if name != "beftkit.tokenizer")
        other = next((n for n in names if words.get(n, there[n]) != there[n]), None)
        if ours and other is None:
            return {**there, **words}
        self.run = None
        if other is not None:
            what = other.partition(".")[2]
            self.notes.append(
                f"{run.file}: is not of the run that made this adapter ({what} {there[other]!r} "
                f"there, {words[other]!r} in the adapter), and left out"
            )
        return words

    def done(self) -> Repeated:
        s, had, own = self.given, self.had, self.own
        if {"task", "validation_file"} <= own:
            raise UsageError("--task and --validation-file were both given; expected one of them")
        filled = {n: getattr(had, n) for n in _WORDS if n in had.model_fields_set - own}
        filled |= self.source() | self.tokenizer()
        if "task" not in own:
            asked = had.model_fields_set - own
            filled |= {n: getattr(had, n) for n in _ASKED if n in asked}
        filled |= self.met(filled.get("task", s.task), filled.get("template", s.template))
        if had.label_map and "label_map" not in own and not (self.other and "task" in own):
            filled["label_map"] = had.label_map
        if had.answer_column and not {"answer_column", "label_column", "task"} & own:
            filled["answer_column"] = had.answer_column
        if had.validation_size and "validation_size" not in own:
            if self.other:
                drew = f"the run's own evaluation drew {had.validation_size} (--validation-size)"
                self.notes.append(f"on all examples; {drew}")
                self.said_so = True
            else:
                filled["validation_size"] = had.validation_size
        if self.run is not None and "batch_size" not in own:
            filled["batch_size"] = self.run.settings.eval_batch_size
        if "metric" not in own:
            self.notes += [
                f"the adapter names the metric {name!r}, which is code and not run for that; "
                "--metric takes it"
                for name in self.said.foreign
            ]
        differing = self.differing()
        notes = (*self.notes, *self.said.notes, *differing.values())
        others = self.said_so or bool({*differing} - {*_ARITHMETIC})
        return Repeated(s.model_copy(update=filled), self.said, notes, others)

    def source(self) -> dict[str, Any]:
        """Which data: what is given, else the run's."""
        s, run, own = self.given, self.run, self.own
        if "validation_file" in own:
            file = run and run.settings.validation_file and run.found("validation_file")
            self.other = not (file and same_file(Path(str(s.validation_file)), file))
            return {}
        task = s.task or self.had.task
        if task is not None:
            self.other = task != self.had.task
            return {"task": task, **({} if self.other else self.task_data(TASKS.get(task)))}
        if run is None:
            ours = self.said.bias is not None
            why = "; the run was on files of its own, and what lies here does not say where"
            raise UsageError(
                "neither --task nor --validation-file was given; expected one of them"
                + (why if ours else "")
                + (f"; {s.model}: no such folder here" if s.model and not _exists(s.model) else "")
            )
        if run.settings.validation_file is None:
            raise BeftError(f"{run.file}: the run had no validation file; give --validation-file")
        found = run.needed("validation_file", "give --validation-file")
        self.notes.append(f"evaluated on {found}, as {run.file} says")
        return {"validation_file": found}

    def task_data(self, task: Any) -> dict[str, Any]:
        """Where the run's own task is read, unless that is given."""
        run, own = self.run, self.own
        if {"data_dir", "data_revision"} & own:
            return {}
        if run is None or run.settings.data_dir is None:
            return {"data_revision": self.had.data_revision}
        revision = task.hub.revision if task else "main"
        advice = f"give --data-dir, or --data-revision {revision} for the hub's"
        found = run.needed("data_dir", advice)
        self.notes.append(f"evaluated on {found}, as {run.file} says")
        return {"data_dir": found}

    def met(self, task: str | None, template: str | None) -> dict[str, Any]:
        """How the task meets the model: as it did in the run.

        Raises:
            UsageError: otherwise is asked for, which the adapter was not trained for.
        """
        s, was = self.given, self.had.as_
        if s.as_ is not None:
            if was not in (None, s.as_) and (has_head(was) or has_head(s.as_)):
                raise UsageError(f"{option('as', s.as_)}: it was trained as {was}; leave it out")
            return {}
        known = TASKS.get(task or "")
        both = known is not None and known.prompt is not None and bool(known.fields)
        if was is not None and (for_files(was) if task is None else both and for_prompts(was)):
            return {"as_": was}
        asked = (known is not None and known.prompt is not None) or template is not None
        if not has_head(was) and not asked and not (s.answer_column or for_files(was or "")):
            able = ", ".join(name for name in OFFERED if TASKS[name].prompt)
            raise UsageError(
                f"the adapter answers a task's prompt ({was}), and {task or 'this file'} has none; "
                f"expected --task, one of {able}"
            )
        return {}

    def tokenizer(self) -> dict[str, Any]:
        """The run's, where it was not the model's own."""
        if self.given.tokenizer is not None:
            return {}
        if self.run is None or self.run.settings.tokenizer is None:
            return {"tokenizer": self.had.tokenizer}
        name = self.run.found("tokenizer") or hub_id(self.run.settings.tokenizer)
        return {"tokenizer": name or self.run.needed("tokenizer", "give --tokenizer")}

    def differing(self) -> dict[str, str]:
        """Setting -> what is to be said, of each that is given and was another in the run."""
        s, run, found = self.given, self.run, dict[str, tuple[Any, Any]]()
        for name in EvaluateSettings.model_fields:
            if name in self.own & self.had.model_fields_set:
                found[name] = getattr(s, name), getattr(self.had, name)
        for name in ("validation_file", "data_dir", "tokenizer"):
            before = run and getattr(run.settings, name)
            if name in self.own and run is not None:
                place = before and run.found(name)
                same = place and same_file(Path(getattr(s, name)), place)
                found[name] = getattr(s, name), getattr(s, name) if same else before
        if self.info is not None:
            base = Path(s.model).resolve() if Path(s.model).exists() else Path(s.model)
            # By their last names: one base lies elsewhere on every machine.
            if s.model and self.info.base and base.name != Path(self.info.base).name:
                found["model"] = s.model, self.info.base
            if "revision" in self.own and self.info.revision:
                found["revision"] = s.revision, self.info.revision
        return {
            name: f"{name.replace('_', '-')} {_shown(given)}, the run's was {_shown(before)}"
            for name, (given, before) in found.items()
            if given != before
        }


def _exists(reference: str) -> bool:
    try:
        return Path(reference).exists()
    except (OSError, ValueError):  # no usable path
        return False


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(value) if isinstance(value, tuple) else str(value or "none")
