"""`beftkit.evaluate`: metrics of a model, or of an adapter over its base, on a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from beftkit.accelerator import out_of_memory
from beftkit.files import headed
from beftkit.progress import displayed
from beftkit.runs.adapted import named, put_on
from beftkit.runs.inputs import validation_digest
from beftkit.runs.loading import class_notes, load_data
from beftkit.runs.prepare import Prepared, prepare, shots_of, wants_train
from beftkit.runs.repeating import repeated
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.signatures import documented
from beftkit.shown import Shown
from beftkit.training.evaluation import Evaluation, evaluate_model, load_metrics, stayed_note
from beftkit.training.forwards import Replays
from beftkit.watching import Watcher

#: where nothing that was given tells why
OTHERS = (
    "these are not the examples of the run's own evaluation: texts, labels, their order or the "
    "tokens differ"
)


@dataclass(frozen=True)
class InContext:
    """The demonstrations that stood before each example.

    Attributes:
        shots, common, seed: as asked for: how many, one draw for all, of which seed.
        left_out: how many found no room, by split.
        shortened: how many examples have fewer therefore, by split.
        pool: how many examples they were drawn from, by split.
        evaluated: how many of those there are could not be drawn, as they are evaluated, by split.
        trained: whether they are training examples; else those that are not evaluated.
    """

    shots: int
    common: bool
    seed: int
    left_out: Mapping[str, int]
    shortened: Mapping[str, int]
    pool: Mapping[str, int]
    evaluated: Mapping[str, int]
    trained: bool

    def said(self, length: int) -> list[str]:
        """In words; ``length``: tokens a row may have."""
        what = "demonstration" if self.shots == 1 else "demonstrations"
        drawn = "one draw for all" if self.common else "a draw for each example"
        lines = [f"{self.shots} {what} before each prompt: {drawn}, seed {self.seed}"]
        if not self.trained:
            lines += [
                f"{split}: there are no training examples, so demonstrations are drawn from the "
                f"{count} examples that are not evaluated"
                for split, count in self.pool.items()
            ]
        else:
            lines += [
                f"{split}: {count} training examples are evaluated as well, and never demonstrated"
                for split, count in self.evaluated.items()
                if count
            ]
        lines += [
            f"{split}: {count} demonstrations were left out, of {self.shortened[split]} examples, "
            f"to fit {length} tokens (--max-length)"
            for split, count in self.left_out.items()
            if count
        ]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        by_split = ("left_out", "shortened", "pool", "evaluated")
        return {**vars(self), **{name: dict(getattr(self, name)) for name in by_split}}


@dataclass(frozen=True, repr=False)
class EvaluationResult(Shown):
    """What `evaluate` found.

    Attributes:
        model: the base or whole model.
        adapter: put on it, or None.
        task: name of the task or file.
        evaluation: metrics, loss, examples, seconds.
        truncated: rows cut to the maximal length, by split.
        notes: what a reader should know.
        classes: split -> label -> rows; empty for values.
        in_context: demonstrations before the examples; None: there were none.
    """

    model: str
    adapter: str | None
    task: str
    evaluation: Evaluation
    truncated: Mapping[str, int]
    notes: tuple[str, ...]
    classes: Mapping[str, Mapping[str, int]]
    in_context: InContext | None = None

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        what = {"model": self.model, "adapter": self.adapter, "task": self.task}
        one = self.evaluation
        return what | dict(one.metrics) | {"loss": one.loss, "examples": one.examples}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        which = {"model": self.model, "adapter": self.adapter, "task": self.task}
        said = {"truncated": dict(self.truncated), "notes": list(self.notes)}
        classes = {split: dict(found) for split, found in self.classes.items()}
        shown = {"in_context": None if self.in_context is None else self.in_context.to_dict()}
        return headed(which | self.evaluation.to_dict() | {"classes": classes} | shown | said)


@documented(EvaluateSettings)
def evaluate(
    model: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    watcher: Watcher | None = None,
    progress: bool = False,
    **settings: Any,
) -> EvaluationResult:
    """Evaluate a fine-tuned model, or an adapter over its base, on a validation split.

    Args:
        model: a model folder, ``owner/name``, an adapter, whose base is then taken, or the folder
            of a run.
        adapter: folder or ``owner/name``; names its base where ``model`` is left out.
        watcher: told how it goes, batch by batch (`beftkit.Watcher`).
        progress: show that on stderr instead.
        settings: fields of `beftkit.settings.EvaluateSettings`: ``task`` or ``validation_file``,
            ``metric``, ``batch_size``, ``max_length``, ``precision``, ``device``, ... What is left
            out is as in the run's own evaluation, where an adapter of ours or the ``run.yaml`` of
            the folder that it lies in says so; notes say what differs from that.

    Raises:
        BeftError: no trained head, labels that do not fit, and whatever loading can meet.
    """
    given = {**settings, "model": model, "adapter": adapter}
    wanted = resolve(EvaluateSettings, None, given)
    with displayed(progress, watcher) as looking:
        return evaluate_with(wanted, looking)


def evaluate_with(settings: EvaluateSettings, watcher: Watcher | None = None) -> EvaluationResult:
    """`evaluate` (see there) under settings that are resolved."""
    s = settings
    what = named(s)
    again = repeated(what.settings, what.info, given=s.model_fields_set)
    s, said = again.settings, again.said
    what = replace(what, settings=s)
    labels = what.labels if said.labels is None else said.labels
    data = load_data(s, train=wants_train(s), labels=labels)
    metrics = load_metrics(s.metric or data.metrics, s.trust_remote_code)
    ready = prepare(s, 0, data=data)
    notes = (*what.notes, *again.notes, *data.notes, *class_notes(data))
    in_context = _in_context(ready)
    if in_context is not None:
        notes = (*notes, *in_context.said(ready.length))
    own = said.examples and not again.other_examples and in_context is None
    if own and said.examples != validation_digest(ready):
        notes = (*notes, OTHERS)
    notes = (*notes, *put_on(ready.loaded, what))
    splits = ready.validation
    notes = (*notes, *dict.fromkeys(note for split in splits.values() for note in split.notes))
    eager: list[str] = []
    with out_of_memory(
        f"with batch_size {s.batch_size}, max_length {ready.length}; lower --batch-size or "
        "--max-length, or use --precision=bf16 or --dtype=bfloat16"
    ):
        ready.place()
        how = ready.objective, metrics, ready.accelerator, s.batch_size, watcher
        replays = Replays(s.graphs, 1, eager.append)
        found = evaluate_model(ready.model, splits, *how, replays=replays)
    notes += (*eager,)
    if found.at_baseline:
        notes += (stayed_note(found),)
    cut = {name: split.truncated for name, split in splits.items()}
    what_was = s.model, s.adapter, data.name, found, cut, notes, data.counts
    return EvaluationResult(*what_was, in_context)


def _in_context(ready: Prepared) -> InContext | None:
    if (how := shots_of(ready.settings)) is None:
        return None
    counts = {
        name: {split: getattr(one, name) for split, one in ready.demonstrated.items()}
        for name in ("left_out", "shortened", "pool", "evaluated")
    }
    trained = ready.data.train is not None
    return InContext(how.count, how.common, how.seed, **counts, trained=trained)
