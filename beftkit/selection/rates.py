"""Each bias at its own best learning rate: who wins there, and whether that hangs on the rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from beftkit.selection.verdicts import Verdict

#: where a rate lies among those tried; ``inside``: with lower and higher ones
Edge = Literal["lowest", "inside", "highest"]


@dataclass(frozen=True)
class OwnRate:
    """The learning rate at which a bias reached its best mean metric.

    Attributes:
        lr: the lowest of those that tie.
        edge: where it lies in the grid; beyond an edge there may be a better one. ``inside`` where
            others did as well.
        value: the mean metric there, over ``seeds`` seeds; picked as the best of several rates on
            the same examples, so that it is rather too good, in the same way for every bias.
    """

    lr: float
    edge: Edge
    value: float
    seeds: int


@dataclass(frozen=True)
class RateWinner:
    """The candidates with the best mean metric at one rate."""

    lr: float
    best: tuple[str, ...]


@dataclass(frozen=True)
class AcrossRates:
    """What the learning rates of one place of the grid come to together.

    Attributes:
        regime, train_size, epochs: what its groups have in common.
        lrs: the rates, from low to high.
        own: bias -> its own best rate, controls included.
        winners: the best candidates at each rate.
        verdict: as of one place, but with each bias at its own rate.
    """

    regime: str
    train_size: int | None
    epochs: int | None
    lrs: tuple[float, ...]
    own: Mapping[str, OwnRate]
    winners: tuple[RateWinner, ...]
    verdict: Verdict

    @property
    def depends(self) -> bool:
        """Whether another candidate wins at another rate."""
        return not set.intersection(*({*one.best} for one in self.winners))


def edge_of(lr: float, lrs: tuple[float, ...]) -> Edge:
    """Where a rate lies among at least two, from low to high."""
    return "lowest" if lr == lrs[0] else "highest" if lr == lrs[-1] else "inside"
