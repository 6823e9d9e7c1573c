"""What every kind of task says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from beftkit.adapters import SAVED_BY_TASK

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.models import Loaded
    from beftkit.registry import Task
    from beftkit.settings.resolve import Loading
    from beftkit.tasks import Batch, Encoded, Split


class Objective(ABC):
    """A task's kind: its model, its examples, its loss, its predictions and their evaluation.

    Attributes:
        task_type: PEFT's word for it.
        pipeline_tag: the hub's word for it; with a capital and blanks it is read by people.
        nll_factor: times a loss is the negative log-likelihood of the target, up to a constant, as
            the Fisher score needs it.
        labels: names of the answers in the order of their ids; empty where there are none.
    """

    task_type: ClassVar[str]
    pipeline_tag: ClassVar[str]
    nll_factor: ClassVar[float] = 1.0
    labels: tuple[str, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """Ends of the names of modules that PEFT saves whole for such a task."""
        return SAVED_BY_TASK.get(self.task_type, ())

    def settings(self, task: Task | None) -> Mapping[str, Any]:
        """A run's settings where nobody gave them and they are not the encoder's."""
        return {}

    @abstractmethod
    def load(self, settings: Loading, seed: int) -> Loaded:
        """The model and its tokenizer; whatever the checkpoint lacks is drawn by the seed.

        Raises:
            BeftError: not there, damaged, or no model of this kind.
        """

    @abstractmethod
    def skeleton(self, settings: Loading) -> Any:
        """The model without its weights, on the meta device: names and shapes, at once."""

    @abstractmethod
    def encode(self, split: Split, tokenizer: Any, max_length: int) -> Encoded:
        """Tokenise examples, once.

        Raises:
            BeftError: a text gives no token, or ``max_length`` leaves no room.
        """

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """Losses, float32 [B], differentiable; and outputs for `predictions`.

        Safe under autocast: the model's outputs are made float32 first.
        """

    @abstractmethod
    def predictions(self, outputs: Any) -> Any:
        """[B], what `measure` takes: a tensor where the outputs are, or a sequence."""

    @abstractmethod
    def measure(
        self, metrics: Sequence[Any], predictions: Any, targets: Any
    ) -> Mapping[str, float]:
        """Metrics by name, NaN where one is not defined.

        Args:
            metrics: from `beftkit.training.evaluation.load_metrics`.
            predictions: [N].
            targets: [N], as in `Split` or `Encoded`.

        Raises:
            BeftError: nothing to compare, or a metric that does not fit the targets.
        """

    @abstractmethod
    def described(self) -> str:
        """What the model gives, for its card."""

    @abstractmethod
    def snippet(self, base: str, adapter: str, by_peft: bool) -> list[str]:
        """Lines of Python that load the adapter over its base.

        Args:
            base: the arguments that name it, as source.
            adapter: its place, as source.
            by_peft: whether PEFT reads the adapter.
        """
