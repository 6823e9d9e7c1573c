"""What is minimised: losses per example, from a model and a batch.

The loop averages `Objective.losses` and knows nothing else of the task. An objective decides which
rows of a batch make up an example (`Batch.index`), so one that compares candidates, or scores the
tokens of an answer, fits the same loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from beftkit.errors import BeftError
from beftkit.tasks.encoding import Batch


class Objective(Protocol):
    """A loss and a prediction.

    Attributes:
        name: for logs.
        nll_factor: times a loss is the negative log-likelihood of the target, up to a constant, as
            the Fisher score needs it.
    """

    @property
    def name(self) -> str: ...

    @property
    def nll_factor(self) -> float: ...

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses, float32 [B], differentiable; and outputs [B, ...] for `predictions`.

        Safe under autocast: the model's outputs are made float32 first.
        """
        ...

    def predictions(self, outputs: Tensor) -> Tensor:
        """[B], class ids as int64, or values as float32."""
        ...


@dataclass(frozen=True)
class Classification:
    """Cross entropy over ``num_labels`` classes; outputs are the logits, float32 [B, labels]."""

    num_labels: int
    name: str = "classification"
    nll_factor: float = 1.0

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = _logits(model, batch, self.num_labels)
        return functional.cross_entropy(logits, batch.targets, reduction="none"), logits

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)


@dataclass(frozen=True)
class Regression:
    """Squared error (y - y_hat)^2, whose mean is transformers' loss; outputs are y_hat, [B].

    The likelihood is the normal of variance 1: -log p = (y - y_hat)^2 / 2.
    """

    name: str = "regression"
    nll_factor: float = 0.5

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        values = _logits(model, batch, 1).squeeze(-1)
        return functional.mse_loss(values, batch.targets.float(), reduction="none"), values

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs


def objective_for(labels: Sequence[str]) -> Objective:
    """The objective of a task with these labels; none: regression."""
    return Classification(len(labels)) if labels else Regression()


def _logits(model: nn.Module, batch: Batch, width: int) -> Tensor:
    # Labels stay here: given any, a model would choose and average a loss of its own.
    logits: Tensor = model(**batch.inputs).logits
    if logits.shape != (batch.examples, width):
        raise BeftError(
            f"the model's outputs have shape {list(logits.shape)}, expected"
            f" {[batch.examples, width]}: a classification head of {width} outputs"
        )
    # Half-precision logits round the loss; float64 ones stay for those who check gradients.
    return logits if logits.dtype == torch.float64 else logits.float()
