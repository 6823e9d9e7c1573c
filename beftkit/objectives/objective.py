"""What every kind of task says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from beftkit.adapters import SAVED_BY_TASK
from beftkit.errors import BeftError, UsageError, option
from beftkit.objectives.answers import Answer
from beftkit.tasks import Split

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.models import Loaded
    from beftkit.registry import Prompt, Task
    from beftkit.settings.resolve import Opening
    from beftkit.tasks import Batch, Encoded, Prompted


@dataclass(frozen=True)
class Use:
    """How a card's code loads what a run made, and in what arithmetic it answers.

    Attributes:
        base, tokenizer: the arguments that name them, as source.
        adapter: its place, as source.
        by_peft: whether PEFT reads it.
        dtype: what the weights are kept in, as source.
        half: what autocast computes in, as source; None: nothing.
        max_length: tokens a row is cut to.
    """

    base: str
    tokenizer: str
    adapter: str
    by_peft: bool
    dtype: str
    half: str | None
    max_length: int


class Objective(ABC):
    """A task's kind: its model, its examples, its loss, its predictions and their evaluation.

    Attributes:
        task_type: PEFT's word for it.
        pipeline_tag: the hub's word for it; with a capital and blanks it is read by people.
        nll_factor: times a loss is the negative log-likelihood of the target, up to a constant, as
            the Fisher score needs it.
        answer_fields: fields of `Answer` that its answers have, in the order they are shown.
        labels: names of the answers in the order of their ids; empty where there are none.
        gives: what its answers are, in a word, where there are no labels.
        steady: whether `evaluated` and `outputs` do the same operations for all batches of one
            shape, and give tensors alone, so that a pass can be captured.
    """

    task_type: ClassVar[str]
    pipeline_tag: ClassVar[str]
    nll_factor: ClassVar[float] = 1.0
    answer_fields: ClassVar[tuple[str, ...]] = ("label", "probability")
    labels: tuple[str, ...] = ()
    gives: ClassVar[str] = "values"
    steady: ClassVar[bool] = False

    @property
    def constant(self) -> str:
        """What `baseline` predicts, in words (``majority class``); empty where there is none."""
        return ""

    def asking(self, prompt: Prompt | None) -> Self:
        """This, of a prompt's examples; the same for kinds that no prompt changes."""
        return self

    @property
    def heads(self) -> tuple[str, ...]:
        """Ends of the names of modules that PEFT saves whole for such a task."""
        return SAVED_BY_TASK.get(self.task_type, ())

    def settings(self, task: Task | None) -> Mapping[str, Any]:
        """A run's settings where nobody gave them and they are not the encoder's."""
        return {}

    @abstractmethod
    def load(self, settings: Opening, seed: int) -> Loaded:
        """The model and its tokenizer; whatever the checkpoint lacks is drawn by the seed.

        Raises:
            BeftError: not there, damaged, or no model of this kind.
        """

    @abstractmethod
    def skeleton(self, settings: Opening) -> Any:
        """The model without its weights, on the meta device: names and shapes, at once.

        Raises:
            BeftError: not there, no model of this kind, or a head of another size, as `load` does.
        """

    def taught(self, split: Split) -> Split:
        """The examples without what their loss does not depend on; for training and for Fisher."""
        return split

    def compact(self, encoded: Encoded) -> Encoded:
        """The same examples in fewer rows, for training and Fisher; losses are equal."""
        return encoded

    def posed(self, texts: Sequence[list[str]], task: Task | None) -> Split:
        """N examples that there are no targets for; what stands for these means nothing.

        Args:
            texts: for each text of an example its N strings, in the order of `Task.texts_as`.
            task: whose texts they are; None: not known.

        Raises:
            BeftError: without the task it is not known what to ask.
        """
        return Split(tuple(texts), np.zeros(len(texts[0]), np.int64))

    def check_shots(self, count: int) -> None:
        """Refuse demonstrations where nothing is asked that they could stand before.

        Raises:
            UsageError: so it is.
        """
        raise UsageError(
            f"{option('shots', count)}: demonstrations stand before a prompt, and this is a model "
            f"of {self.pipeline_tag}; expected a causal language model with its own head"
        )

    def lengths(self, asked: Sequence[Prompted], tokenizer: Any) -> list[int]:
        """Tokens that each of some prompts takes, with all that comes behind it, were none cut.

        For kinds before whose prompts demonstrations stand (`check_shots`).
        """
        raise NotImplementedError

    @abstractmethod
    def encode(
        self, split: Split, tokenizer: Any, max_length: int, *, allow_empty: bool = False
    ) -> Encoded:
        """Tokenise examples, once.

        Args:
            split: whose targets may be zeros, where nothing is compared with them.
            tokenizer: the model's.
            max_length: tokens a row may have.
            allow_empty: keep a row without a token, which no model takes.

        Raises:
            BeftError: a text gives no token, or ``max_length`` leaves no room.
        """

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """What the model gives, for `predictions` and `answers`; targets are not looked at."""

    @abstractmethod
    def answers(self, outputs: Any) -> list[Answer]:
        """[B]."""

    def in_words(
        self, answers: Sequence[Answer], split: Split, task: Task | None
    ) -> Sequence[Answer]:
        """The answers [N] to what `posed` made, each label as its own example has it."""
        return answers

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """Losses, float32 [B], differentiable; and `outputs`.

        Safe under autocast: the model's outputs are made float32 first.
        """

    def evaluated(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """Losses as `losses` has them, and `predictions`."""
        losses, outputs = self.losses(model, batch)
        return losses, self.predictions(outputs)

    def units(self, encoded: Encoded, examples: Tensor) -> int:
        """What the summed losses of these examples, int64 [n], are divided by: how many there are.

        Of answers whose every token counts alike, how many tokens.
        """
        return len(examples)

    def negative_log_likelihoods(self, model: nn.Module, batch: Batch) -> Tensor:
        """-log p of each example's target up to a constant, [B], as the Fisher score needs it."""
        return self.losses(model, batch)[0] * self.nll_factor

    def total_loss(
        self, losses: float, predictions: Sequence[Any], encoded: Encoded
    ) -> tuple[float, float]:
        """What to divide by what for the mean loss of an evaluation.

        Args:
            losses: sum over the examples.
            predictions: [N].
            encoded: the N examples.
        """
        return losses, self.units(encoded, torch.arange(len(encoded)))

    @abstractmethod
    def predictions(self, outputs: Any) -> Any:
        """[B], what `measure` takes: a tensor where the outputs are, or a sequence."""

    def right(self, split: Split) -> Any:
        """[N], predictions with which there is nothing wrong."""
        return split.targets

    @abstractmethod
    def measure(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        """Metrics by name, NaN where one is not defined.

        Args:
            metrics: from `beftkit.training.evaluation.load_metrics`.
            predictions: [N].
            targets: [N], as in `Split` or `Encoded`.
            asked: [N], likewise; empty where a head reads texts.

        Raises:
            BeftError: nothing to compare, or a metric that does not fit the targets.
        """

    def check(self, metrics: Sequence[Any], split: Split) -> None:
        """Try metrics on predictions with which there is nothing wrong.

        Raises:
            BeftError: a metric that does not fit the targets.
        """
        self.measure(metrics, self.right(split), split.targets, split.asked)

    def baseline(
        self, metrics: Sequence[Any], targets: Any, asked: Sequence[Prompted] = ()
    ) -> Mapping[str, float]:
        """What the same prediction for every example gets: metrics by name as `measure` has them.

        NaN where a metric is not defined for it; empty for a kind that has no such prediction.
        """
        return {}

    def standard_errors(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        """One standard error of each metric at this many examples, always the same.

        Names and arguments as in `measure`; a metric of which none is known is left out.
        """
        return {}

    def alike(self, predictions: Sequence[Any]) -> bool:
        """Whether several examples got one and the same answer."""
        first, *others = predictions
        return bool(others) and all(bool(one == first) for one in others)

    def pipeline(self, model: Any, tokenizer: Any, max_length: int) -> Any:
        """Transformers' own pipeline over a model that is on its device, with the same answers.

        Raises:
            BeftError: transformers has none for such a task.
        """
        raise BeftError(f"transformers has no pipeline that answers as {self.pipeline_tag} does")

    @abstractmethod
    def alone(self, length: int) -> list[str]:
        """Lines of Python that use a whole model's folder, FOLDER, with transformers alone.

        Args:
            length: tokens a text is cut to.
        """

    @abstractmethod
    def described(self) -> str:
        """What the model gives, for its card."""

    @abstractmethod
    def snippet(self, use: Use) -> list[str]:
        """Lines of Python that load the adapter over its base, and answer as the run's model does.

        They define ``predict``, which takes the texts of one example.
        """
