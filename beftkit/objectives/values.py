"""Values: squared error of a head's one output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn import functional

from beftkit.objectives.answers import Answer
from beftkit.objectives.heads import HeadObjective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.tasks import Batch


@dataclass(frozen=True)
class Values(HeadObjective):
    """Targets are values, float32 [N]; outputs y_hat, [B].

    The loss (y - y_hat)^2 is the one whose mean transformers takes; the likelihood is the normal
    of variance 1: -log p = (y - y_hat)^2 / 2.
    """

    labels: tuple[str, ...] = ()
    own_ids: tuple[int, ...] = ()
    nll_factor = 0.5
    constant = "always the mean"
    answer_fields = ("value",)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Values, float32 [B]."""
        return self.logits(model, batch).squeeze(-1)

    def answers(self, outputs: Any) -> list[Answer]:
        return [Answer(value=value) for value in outputs.tolist()]

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        values = self.outputs(model, batch)
        return functional.mse_loss(values, batch.targets.float(), reduction="none"), values

    def predictions(self, outputs: Any) -> Tensor:
        """Values, float32 [B]."""
        values: Tensor = outputs
        return values

    def guess(self, targets: Any) -> float:
        """The mean."""
        return float(np.asarray(targets, dtype="float64").mean())

    def described(self) -> str:
        return "One output: a value, not a class"


#: what `beftkit.objectives.make_objective` calls
make = Values
