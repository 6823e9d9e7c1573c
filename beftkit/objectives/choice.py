"""Choice: a prompt and its answers, of which a causal model finds one the likeliest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from beftkit.errors import BeftError, option
from beftkit.objectives.answers import Answer
from beftkit.objectives.causal import CausalObjective, following_log_likelihoods
from beftkit.objectives.measured import Measured, commonest, labelled
from beftkit.objectives.prefixes import log_likelihoods
from beftkit.objectives.prompts import encode_prompts, without_answers
from beftkit.tasks import Split, measure_chosen
from beftkit.tasks.answer_deviations import chosen_errors
from beftkit.tasks.prompts import render

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.registry import Prompt, Task
    from beftkit.tasks import Batch, Encoded, Prompted


@dataclass(frozen=True)
class Choice(Measured, CausalObjective):
    """Targets are numbers of answers, int64 [N]; outputs the answers' scores, float32 [B, most].

    An answer's score is the mean log-likelihood of its tokens. The loss is the cross entropy over
    an example's scores, or, where the prompt says so, the right answer's negative log-likelihood
    (of several right ones the first's), summed over its tokens; then the loss of an update, as that
    of an evaluation, is the mean over all its examples' tokens, as published.

    ``most`` is the number of labels; without labels, where each example has answers of its own, at
    least the largest number of them: behind an example's own stands -inf.

    Attributes:
        prompt: what the examples are asked; None: not known, and the loss is the cross entropy.
    """

    labels: tuple[str, ...]
    own_ids: tuple[int, ...] = ()
    prompt: Prompt | None = None

    @property
    def constant(self) -> str:
        return "majority class" if self.labels else ""

    @property
    def by_right(self) -> bool:
        """Whether the loss is that of the right answer by itself."""
        return self.prompt is not None and self.prompt.loss == "right"

    def asking(self, prompt: Prompt | None) -> Choice:
        return replace(self, prompt=prompt)

    def taught(self, split: Split) -> Split:
        if not self.by_right:
            return split
        right = tuple(
            replace(one, answers=(one.answers[one.right[0]],), right=(0,)) for one in split.asked
        )
        return Split((), np.zeros(len(right), np.int64), right)

    def compact(self, encoded: Encoded) -> Encoded:
        return encoded if self.by_right else without_answers(encoded)

    def posed(self, texts: Sequence[list[str]], task: Task | None) -> Split:
        if task is None or task.prompt is None:
            raise BeftError(
                "a causal language model chooses among the answers of a task's prompt, and nothing "
                "says of which task; give an adapter of beftkit, whose header names it"
            )
        names = task.columns_as(task.prompt.kind)
        if not task.labels:
            raise BeftError(
                f"{task.name}: each example has answers of its own, which texts alone do not tell; "
                "`beftkit evaluate` measures it"
            )
        rows = (dict(zip(names, row, strict=True)) for row in zip(*texts, strict=True))
        asked = tuple(render(task.prompt, row) for row in rows)
        return Split((), np.zeros(len(asked), np.int64), asked)

    def encode(
        self, split: Split, tokenizer: Any, max_length: int, *, allow_empty: bool = False
    ) -> Encoded:
        # Whatever its texts, a prompt has words of its own.
        return encode_prompts(split.asked, split.targets, tokenizer, max_length)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """The answers' scores, float32 [B, most]."""
        if "among" in batch.inputs:
            return following_log_likelihoods(model, batch.inputs)
        return self._scored(log_likelihoods(model, batch).sum(1), batch)

    def _scored(self, sums: Tensor, batch: Batch) -> Tensor:
        """Scores [B, most] from the rows' log-likelihoods [R]."""
        counts = (batch.inputs["answer_at"] >= 0).sum(1)
        return _side_by_side(sums / counts, batch, len(self.labels))

    def answers(self, outputs: Any) -> list[Answer]:
        """Each with the softmax of the scores, which the loss takes for probabilities."""
        return labelled(outputs, self.labels)

    def in_words(
        self, answers: Sequence[Answer], split: Split, task: Task | None
    ) -> Sequence[Answer]:
        """A label that is no more than its answer's template is the text that was asked."""
        if task is None or task.prompt is None:
            return answers
        templates = [one.strip() for one in task.prompt.answers]
        free = {
            label: number
            for number, (label, template) in enumerate(zip(self.labels, templates, strict=True))
            if label == template
        }
        return [
            replace(one, label=asked.answers[free[one.label]].strip()) if one.label in free else one
            for one, asked in zip(answers, split.asked, strict=True)
        ]

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        targets = batch.targets
        if self.by_right:
            sums = log_likelihoods(model, batch).sum(1)
            beside = _side_by_side(sums, batch, len(self.labels))
            return -beside.gather(1, targets.unsqueeze(1)).squeeze(1), self._scored(sums, batch)
        outputs = self.outputs(model, batch)
        return functional.cross_entropy(outputs, targets, reduction="none"), outputs

    def units(self, encoded: Encoded, examples: Tensor) -> int:
        if not self.by_right:
            return super().units(encoded, examples)
        assert encoded.answers is not None
        rows = encoded.first_row[examples] + encoded.targets[examples]
        return int(encoded.answers[rows].sum())

    def measure(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        if not asked:
            return super().measure(metrics, predictions, targets)
        for metric in () if self.labels else metrics:
            if metric != "accuracy":
                name = metric if isinstance(metric, str) else metric.name
                raise BeftError(
                    f"{option('metric', name)}: here each example has answers of its own, whose "
                    "numbers are no classes; expected accuracy"
                )
        return measure_chosen(metrics, predictions, asked)

    def standard_errors(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        if not asked:
            return super().standard_errors(metrics, predictions, targets)
        return chosen_errors(metrics, predictions, asked)

    def baseline(
        self, metrics: Sequence[Any], targets: Any, asked: Sequence[Prompted] = ()
    ) -> Mapping[str, float]:
        return super().baseline(metrics, targets, asked) if self.labels else {}

    def alike(self, predictions: Sequence[Any]) -> bool:
        """Never where each example has answers of its own: one number is not one answer."""
        return bool(self.labels) and super().alike(predictions)

    def predictions(self, outputs: Any) -> Tensor:
        """Numbers of answers, int64 [B]."""
        numbers: Tensor = outputs.argmax(-1)
        return numbers

    def guess(self, targets: Any) -> int:
        return commonest(targets)

    def settings(self, task: Task | None) -> Mapping[str, Any]:
        prompt = self.prompt if task is None else task.prompt
        if prompt is None:
            return {}
        usual = {
            "lr": prompt.lr,
            "epochs": prompt.epochs,
            "batch_size": prompt.batch_size,
            "schedule": "linear",
            "max_length": prompt.max_length,
        }
        # Of files of the user's own all is taken.
        if task is None:
            return usual
        return usual | {
            "regime": "low",
            "validation_size": prompt.examples,
        }

    def described(self) -> str:
        if not self.labels:
            return "A prompt's likeliest answer, by the mean of its tokens, among an example's own"
        named = ", ".join(f"{number} {label}" for number, label in enumerate(self.labels))
        return f"A prompt's likeliest answer, by the mean of its tokens: {named}"


def _side_by_side(scores: Tensor, batch: Batch, most: int) -> Tensor:
    """The scores [R] of a batch's rows as [B, most], an example's beside each other."""
    if batch.index is None:
        return scores.unsqueeze(1)
    rows, examples = len(scores), batch.examples
    index = batch.index.to(scores.device)
    counts = index.new_zeros(examples).index_add(0, index, torch.ones_like(index))
    place = torch.arange(rows, device=index.device) - (counts.cumsum(0) - counts)[index]
    # Each example has a row at least, so none has more than the rest; the device is not asked.
    made = scores.new_full((examples, most or rows - examples + 1), float("-inf"))
    return made.index_put((index, place), scores)


#: what `beftkit.objectives.make_objective` calls
make = Choice
