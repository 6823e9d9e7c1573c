"""Generation: a causal model writes the answer behind a prompt, of which several may be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from beftkit.errors import BeftError
from beftkit.objectives.answers import Answer
from beftkit.objectives.causal import CausalObjective, answer_log_likelihoods
from beftkit.objectives.prompts import encode_prompts, prompt_tokens
from beftkit.objectives.writing import MOST, encode_alone, read_once, written
from beftkit.registry import Prompt
from beftkit.tasks import Split, measure_written
from beftkit.tasks.answer_metrics import written_errors
from beftkit.tasks.prompts import Prompted, render

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.registry import Task
    from beftkit.tasks import Batch, Encoded


@dataclass(frozen=True)
class Generation(CausalObjective):
    """Targets are the examples' numbers, int64 [N]; outputs and predictions are texts, [B].

    An example's loss is the negative log-likelihood of its first right answer, summed over the
    answer's tokens with the line feed that ends it; an update's loss is the mean over the tokens of
    all its answers. Metrics look at all right answers (`Encoded.asked`).
    """

    labels: tuple[str, ...] = ()
    own_ids: tuple[int, ...] = ()
    answer_fields = ("answer",)
    gives = "texts"

    def posed(self, texts: Sequence[list[str]], task: Task | None) -> Split:
        rows = [*zip(*texts, strict=True)]
        if task is not None and task.prompt is not None:
            names = task.columns_as(task.prompt.kind)
            posed = ({**dict(zip(names, row, strict=True)), "answers": ()} for row in rows)
            asked = tuple(render(task.prompt, row) for row in posed)
        elif len(texts) == 1:  # files of the user's own hold whole prompts
            asked = tuple(Prompted(prompt.rstrip(" "), (), ()) for (prompt,) in rows)
        else:
            raise BeftError(
                f"{len(texts)} texts an example, and nothing says how they make a prompt; expected "
                "one, the whole prompt"
            )
        return Split((), np.arange(len(asked)), asked)

    def encode(
        self, split: Split, tokenizer: Any, max_length: int, *, allow_empty: bool = False
    ) -> Encoded:
        targets = torch.from_numpy(split.targets)
        prompts = [one.prompt for one in split.asked]
        alone = encode_alone(prompts, targets, tokenizer, max_length)
        if any(one.answers for one in split.asked):
            rows = encode_prompts(split.asked, split.targets, tokenizer, max_length)
        else:
            rows = replace(alone, answers=torch.zeros(len(alone), dtype=torch.int64))
        # Whose row is cut has a prompt that is cut as well, unless its answer is a long one.
        truncated = max(rows.truncated, alone.truncated)
        return replace(
            rows, truncated=truncated, asked=split.asked, prompts=alone, tokenizer=tokenizer
        )

    def lengths(self, asked: Sequence[Prompted], tokenizer: Any) -> list[int]:
        """Room for the right answer, and for the longest that may be written."""
        alone = (len(ids) + MOST for ids, _ in prompt_tokens([p.prompt for p in asked], tokenizer))
        return [max(pair) for pair in zip(super().lengths(asked, tokenizer), alone, strict=True)]

    def outputs(self, model: nn.Module, batch: Batch) -> list[str]:
        """What the model writes, [B]; of a batch of `Encoded`, as they have a tokenizer."""
        return written(model, batch.inputs, batch.tokenizer)

    def answers(self, outputs: Any) -> list[Answer]:
        return [Answer(answer=text) for text in outputs]

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """Losses, float32 [B]; nothing is written, which takes its time: `outputs` does."""
        return -answer_log_likelihoods(model, batch.inputs).sum(1), None

    def evaluated(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        if (found := read_once(model, batch.inputs, batch.tokenizer)) is not None:
            return found
        return self.losses(model, batch)[0], self.predictions(self.outputs(model, batch))

    def units(self, encoded: Encoded, examples: Tensor) -> int:
        assert encoded.answers is not None
        return int(encoded.answers[examples].sum())

    def predictions(self, outputs: Any) -> list[str]:
        """Texts, [B]."""
        texts: list[str] = outputs
        return texts

    def right(self, split: Split) -> list[str]:
        return [one.gold[0] for one in split.asked]

    def measure(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        return measure_written(metrics, predictions, asked)

    def standard_errors(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        return written_errors(metrics, predictions, asked)

    def settings(self, task: Task | None) -> Mapping[str, Any]:
        """Those published for SQuAD and DROP; for files of the user's own as well."""
        known = None if task is None else task.prompt
        prompt = known or Prompt(text="", answers=(), kind="generation")
        return {
            "lr": prompt.lr,
            "epochs": prompt.epochs,
            "batch_size": prompt.batch_size,
            "schedule": "linear",
            "max_length": prompt.max_length,
            "regime": "low" if known else "all",
            "validation_size": prompt.examples,
        }

    def described(self) -> str:
        return (
            f"A text behind a prompt: the likeliest token after token, to the line's end, at most"
            f" {MOST}"
        )


#: what `beftkit.objectives.make_objective` calls
make = Generation
