"""What a merge wrote, in plain fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from beftkit.files import headed, plain_of
from beftkit.shown import Shown
from beftkit.weights.values import Rounding


@dataclass(frozen=True, repr=False)
class MergeResult(Shown):
    """What `merge` wrote.

    Attributes:
        output: the folder.
        base: what was merged into.
        adapter: what was merged.
        model_type: of the result's configuration.
        dtype: of most of its weights.
        parameters: how many.
        labels: of its classifier, in the order of their numbers; empty where it has none.
        changed: biases of the base that are others now.
        added: biases that the base has not, as the adapter has them.
        zeros: further ones, which a switch gives: zeros.
        folded: biases that took in what added ones do, for the model can have none.
        switches: of the configuration, that were turned on.
        copied: files of weights that are copies, some of them with patches.
        linked: files of weights that are second names of the base's.
        bytes_written: in all, holes not counted.
        roundings: what storing changes in a coarse dtype lost.
        files: names in the folder.
        notes: what a reader should know.
    """

    output: str
    base: str
    adapter: str
    model_type: str
    dtype: str
    parameters: int
    labels: tuple[str, ...]
    changed: int
    added: int
    zeros: int
    folded: int
    switches: tuple[str, ...]
    copied: tuple[str, ...]
    linked: tuple[str, ...]
    bytes_written: int
    roundings: tuple[Rounding, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "output base adapter changed added folded bytes_written")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {
            name: list(one) if isinstance(one, tuple) else one for name, one in vars(self).items()
        }
        return headed({**values, "roundings": [asdict(one) for one in self.roundings]})
