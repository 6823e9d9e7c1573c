"""Classes: cross entropy over a head's outputs, one for each label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn import functional

from beftkit.objectives.answers import Answer
from beftkit.objectives.heads import HeadObjective
from beftkit.objectives.measured import commonest, labelled

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.tasks import Batch


@dataclass(frozen=True)
class Classes(HeadObjective):
    """Targets are class ids, int64 [N]; outputs the logits, float32 [B, labels].

    ``own_ids``, where not empty: the number of each class in the task's own list, for metrics.
    """

    labels: tuple[str, ...]
    own_ids: tuple[int, ...] = ()
    constant = "majority class"

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """The logits, float32 [B, labels]."""
        return self.logits(model, batch)

    def answers(self, outputs: Any) -> list[Answer]:
        return labelled(outputs, self.labels)

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        logits = self.outputs(model, batch)
        return functional.cross_entropy(logits, batch.targets, reduction="none"), logits

    def predictions(self, outputs: Any) -> Tensor:
        """Class ids, int64 [B]."""
        ids: Tensor = outputs.argmax(-1)
        return ids

    def guess(self, targets: Any) -> int:
        return commonest(targets)

    def described(self) -> str:
        named = ", ".join(f"{number} {label}" for number, label in enumerate(self.labels))
        return f"Labels: {named}"


#: what `beftkit.objectives.make_objective` calls
make = Classes
