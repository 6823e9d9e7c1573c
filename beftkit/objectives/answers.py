"""What a model answers about one example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, repr=False)
class Answer:
    """An answer; which of its fields have something to say, the objective knows.

    Attributes:
        label: the most probable label; None where there is no answer.
        probability: its own, in 0 to 1.
        value: what a model of values gives.
        probabilities: each label's, in the order of their numbers.
        answer: the text that a model wrote, without blanks around it; perhaps empty.
    """

    label: str | None = None
    probability: float | None = None
    value: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None

    def __repr__(self) -> str:
        given = (self.label, self.probability, self.value, self.answer)
        shown = [
            f"{one:.4g}" if isinstance(one, float) else repr(one)
            for one in given
            if one is not None
        ]
        return f"Answer({', '.join(shown) or None})"

    @property
    def finite(self) -> bool:
        """Whether all its numbers are."""
        numbers = (self.probability, self.value, *self.probabilities.values())
        return all(one is None or math.isfinite(one) for one in numbers)

    def above(self, threshold: float | None) -> Answer:
        """This, or with no label where its probability is below the threshold."""
        if threshold is None or self.probability is None or self.probability >= threshold:
            return self
        return replace(self, label=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**vars(self), "probabilities": dict(self.probabilities)}
