"""A model that answers texts: loaded once, called as often as wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from beftkit.accelerator import arithmetic, check_weights, make_accelerator, out_of_memory
from beftkit.errors import BeftError, UsageError
from beftkit.models import Loaded
from beftkit.objectives import (
    Answer,
    Objective,
    objective_told,
)
from beftkit.registry import MAX_LENGTH
from beftkit.runs.adapted import named, put_on
from beftkit.runs.posing import task_told
from beftkit.runs.standing import Standing
from beftkit.settings.predict import PredictSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.signatures import documented

if TYPE_CHECKING:
    from accelerate import Accelerator

    from beftkit.tasks import Encoded, Split

#: one text, or the two of an example; None: there is none
Text = str | tuple[str, str]


@dataclass(frozen=True)
class Answered:
    """Answers to some examples.

    Attributes:
        answers: one each; empty ones where there was nothing to answer.
        truncated: how many texts were cut.
        empty: how many had no letter in them.
        unanswered: how many were no text, or gave no token.
        below: how many answers were withheld, their probability below the threshold.
        counts: how often each label was answered, by its name in `Predictor.labels`.
    """

    answers: list[Answer]
    truncated: int = 0
    empty: int = 0
    unanswered: int = 0
    below: int = 0
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """A model with a trained head, in evaluation mode on its device; made by `beftkit.load`.

    Called with a text it gives an `Answer`, with a list of texts a list of them, in order. An
    example of two texts is a tuple.

    Attributes:
        settings: with base and tokenizer filled in.
        objective: what makes answers of the model's outputs.
        loaded: model and tokenizer.
        accelerator: device and precision.
        max_length: tokens a text is cut to.
        standing: what the adapter says of the texts it was trained on.
        notes: what a reader of the answers should know.
        eager: why passes went on eagerly that were to be replayed; filled as it is met.
    """

    settings: PredictSettings
    objective: Objective
    loaded: Loaded
    accelerator: Accelerator
    max_length: int
    standing: Standing
    notes: tuple[str, ...]
    eager: list[str] = field(default_factory=list)

    @property
    def model(self) -> Any:
        """Transformers' model; its configuration names the labels."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        """Transformers' tokenizer."""
        return self.loaded.tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        """Names in the order of their numbers; empty where the model gives values.

        A choice from columns (``{c1}``) is named by its template; its rows have their own texts.
        """
        return self.objective.labels

    def __repr__(self) -> str:
        s, labels = self.settings, ", ".join(self.labels[:6])
        more = ", ..." if len(self.labels) > 6 else ""
        what = f"{labels}{more}" if labels else self.objective.gives
        return f"Predictor({s.adapter or s.model!r}, {what})"

    @overload
    def __call__(self, texts: Text) -> Answer: ...
    @overload
    def __call__(self, texts: list[str] | list[tuple[str, str]]) -> list[Answer]: ...

    def __call__(self, texts: Any) -> Answer | list[Answer]:
        """Answer a text, a pair of texts (a tuple), or a list of them.

        Raises:
            BeftError: something else than texts, or not as many an example as the model was
                trained on.
        """
        one = isinstance(texts, (str, tuple))
        keyed = isinstance(texts, Mapping)  # iterated it would be its keys
        if keyed or (not one and not isinstance(texts, Iterable)):
            raise BeftError(f"expected a text, a tuple of two, or a list of them; given {texts!r}")
        examples: Any = [texts] if one else list(texts)
        rows = [(example,) if isinstance(example, str) else example for example in examples]
        for number, row in enumerate(rows, 1):
            fits = isinstance(row, tuple) and all(isinstance(text, str) for text in row)
            known = {self.standing.texts} if self.standing.texts else {1, 2}
            if not fits or len(row) not in {1, 2, *known} or len(row) != len(rows[0]):
                raise BeftError(
                    f"example {number}: expected a text as all others, or a tuple of two; given "
                    f"{str(examples[number - 1])[:40]!r}"
                )
        if not rows:
            return []
        self.check_texts(len(rows[0]), "what was given")
        found = self.answered([list(column) for column in zip(*rows, strict=True)], "the texts")
        return found.answers[0] if one else found.answers

    def check_texts(self, count: int, where: str) -> None:
        """Refuse one text an example for a model of pairs, and the other way round.

        Raises:
            BeftError: what is wrong, and where.
        """
        wanted = self.standing.texts
        if wanted is not None and count != wanted:
            words = {1: "one text", 2: "two texts"}
            adapter, task = self.settings.adapter, self.settings.task
            what = f"{task} has" if adapter is None else f"{adapter} was trained on"
            raise BeftError(
                f"{where}: {words.get(count, f'{count} texts')} an example, and {what} "
                f"{words.get(wanted, f'{wanted} texts')}"
            )

    def answered(self, texts: Sequence[Sequence[str | None]], where: str) -> Answered:
        """Answer N examples.

        Args:
            texts: for each of one or two fields its N texts; None where there is no text.
            where: they are from, for messages.

        Raises:
            BeftError: an example that the model cannot read, or answers that are no numbers.
        """
        count = len(texts[0])
        there = [n for n in range(count) if all(field[n] is not None for field in texts)]
        answers = [Answer()] * count
        if not there:
            return Answered(answers, unanswered=count)
        fields = tuple([str(field[n]) for n in there] for field in texts)
        split = self.objective.posed(fields, self.standing.task)
        encoded = self._encoded(split, allow_empty=True)
        lengths = encoded.lengths.tolist()
        if 0 in lengths:
            kept = [n for n, length in enumerate(lengths) if length]
            there = [there[n] for n in kept]
            split = split.take(kept)
            if not there:
                return Answered(answers, unanswered=count)
            encoded = self._encoded(split)
        for n, answer in zip(there, self._answers(encoded, where), strict=True):
            answers[n] = answer
        empty = sum(not any(str(field[n]).strip() for field in texts) for n in there)
        shown = [one.above(self.settings.threshold) for one in answers]
        below = sum(a is not b for a, b in zip(answers, shown, strict=True))
        counts = Counter(one.label for one in shown if one.label is not None)
        given = [shown[n] for n in there]
        for n, one in zip(
            there, self.objective.in_words(given, split, self.standing.task), strict=True
        ):
            shown[n] = one
        return Answered(shown, encoded.truncated, empty, count - len(there), below, counts)

    def pipeline(self) -> Any:
        """Transformers' own pipeline over this model and tokenizer, which gives the same answers.

        Raises:
            BeftError: settings that no pipeline has, or a task without one.
        """
        s = self.settings
        if s.precision != "fp32":
            raise UsageError(
                f"precision {s.precision}: is autocast, which no pipeline does; give dtype instead"
            )
        if s.threshold is not None:
            raise UsageError("threshold: no pipeline withholds an answer; leave it out")
        return self.objective.pipeline(self.model, self.tokenizer, self.max_length)

    def _encoded(self, split: Split, **options: Any) -> Encoded:
        return self.objective.encode(split, self.tokenizer, self.max_length, **options)

    def _answers(self, encoded: Encoded, where: str) -> list[Answer]:
        """Answers to N examples, in order; batches are of like length."""
        import torch

        from beftkit.objectives.fits import fitted
        from beftkit.tasks import plan_evaluation
        from beftkit.training.forwards import Replays

        s, device = self.settings, self.accelerator.device
        encoded = fitted(self.loaded, encoded, where)
        found: list[Answer] = [Answer()] * len(encoded)
        advice = (
            f"with batch_size {s.batch_size}, max_length {self.max_length}; lower --batch-size or "
            "--max-length, or use --precision bf16 or --dtype bfloat16"
        )
        batches = plan_evaluation(encoded.lengths, s.batch_size, by_length=encoded.by_length)

        def note(text: str) -> None:
            if text not in self.eager:
                self.eager.append(text)

        replays = Replays(s.graphs, 1, note, "prediction")
        how = self.model, encoded, batches, self.objective, self.accelerator
        forwards = replays.of(where, *how, self.objective.outputs)
        cast = self.accelerator.autocast() if forwards is None else nullcontext()
        with out_of_memory(advice), arithmetic(self.accelerator), torch.inference_mode(), cast:
            for number, examples in enumerate(batches):
                if forwards is not None:
                    outputs = forwards(number)
                else:
                    batch = encoded.batch(examples, device=device)
                    outputs = self.objective.outputs(self.model, batch)
                for at, one in zip(examples.tolist(), self.objective.answers(outputs), strict=True):
                    found[at] = one
        for at, one in enumerate(found):
            if not one.finite:
                raise BeftError(
                    f"{where}, example {at + 1}: the model's answer is no number (NaN or infinity);"
                    " use --precision=fp32 and --dtype=float32"
                )
        return found


@documented(PredictSettings)
def load(
    model: str | Path | None = None, *, adapter: str | Path | None = None, **settings: Any
) -> Predictor:
    """Load a fine-tuned model, or an adapter over its base, to be called on texts.

    Args:
        model: a model's folder, ``owner/name``, an adapter, or the folder of a run, whose adapter
            is then taken. With ``adapter``: the base, where it is not the one that that names.
        adapter: a folder, or ``owner/name[@revision]`` on the hub.
        settings: fields of `beftkit.settings.PredictSettings`: ``batch_size``, ``max_length``,
            ``threshold``, ``precision``, ``dtype``, ``device``, ... What is left out an adapter of
            ours says itself.

    Raises:
        BeftError: no trained head, and whatever loading can meet.

    Example:
        >>> predictor = beftkit.load("runs/sst2-v")  # doctest: +SKIP
        >>> predictor("a fine film")  # doctest: +SKIP
        Answer('positive', 0.9876)
    """
    return load_with(
        resolve(PredictSettings, None, {**settings, "model": model, "adapter": adapter})
    )


def load_with(settings: PredictSettings) -> Predictor:
    """`load` (see there) under settings that are resolved."""
    from beftkit.objectives.fits import most_tokens

    found = named(settings)
    found.refuse_several()
    standing, labels, told = task_told(found)
    # As in the training, but for what was given here.
    left = {"precision", "dtype"} & found.had.model_fields_set - settings.model_fields_set
    own = {name: getattr(found.had, name) for name in left}
    s = found.settings.model_copy(update=own)
    accelerator = make_accelerator(s.device, s.precision)
    objective = objective_told(s, standing.kind, labels)
    if s.threshold is not None and "probability" not in objective.answer_fields:
        raise UsageError(
            f"--threshold: this model gives {objective.gives}, which have no probability"
        )
    loaded = objective.load(s, 0)
    check_weights(accelerator, loaded.model)
    notes = (*found.notes, *told, *put_on(loaded, found))
    wanted = s.max_length or found.had.max_length
    wanted = wanted or objective.settings(standing.task).get("max_length") or MAX_LENGTH
    if s.device_map is None:
        loaded.model.to(accelerator.device)
    length = most_tokens(loaded, wanted)
    return Predictor(s, objective, loaded, accelerator, length, standing, notes)
