"""Targets and predictions that are numbers: their metrics, baselines and standard errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beftkit.errors import BeftError
from beftkit.objectives.answers import Answer
from beftkit.objectives.objective import Objective
from beftkit.tasks import Prompted, compute_metrics, standard_errors


class Measured(Objective):
    """Targets [N] are class ids or values, and so are predictions.

    ``own_ids``, where not empty: the number of each class in the task's own list, for metrics.
    """

    own_ids: tuple[int, ...] = ()

    def measure(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        return compute_metrics(metrics, self._own(predictions), self._own(targets))

    def standard_errors(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        return standard_errors(metrics, self._own(predictions), self._own(targets))

    @abstractmethod
    def guess(self, targets: Any) -> float | int:
        """The target that suits all of these [N] best."""

    def baseline(
        self, metrics: Sequence[Any], targets: Any, asked: Sequence[Prompted] = ()
    ) -> Mapping[str, float]:
        found: dict[str, float] = {}
        same = np.full(len(targets), self.guess(targets))
        for metric in metrics:
            try:
                found |= self.measure([metric], same, targets, asked)
            except BeftError:  # code of others that cannot bear constants
                continue
        return found

    def _own(self, ids: Any) -> Any:
        """The numbers of the task's own list instead of ours, where it has one."""
        return np.array(self.own_ids)[np.asarray(ids)] if self.own_ids else ids


def commonest(targets: Any) -> int:
    """The commonest of ids [N], of several the first."""
    return int(np.bincount(np.asarray(targets)).argmax())


def labelled(outputs: Any, labels: Sequence[str]) -> list[Answer]:
    """Answers [B] of scores [B, labels], whose softmax is their probabilities."""
    scores = outputs.cpu()  # Apple's devices have no float64
    rows = scores.double().softmax(-1).tolist()
    best = scores.argmax(-1).tolist()
    return [
        Answer(labels[at], row[at], None, dict(zip(labels, row, strict=True)))
        for at, row in zip(best, rows, strict=True)
    ]
