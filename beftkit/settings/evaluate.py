"""Settings of an evaluation: one definition behind flags and Python."""

from __future__ import annotations

from typing import Literal

from beftkit.settings.parts import (
    EVALUATION,
    MODEL,
    ColumnsPart,
    DevicePart,
    LengthPart,
    MetricPart,
    ModelPart,
    Part,
    TaskPart,
    ValidationFilePart,
    described,
)


class AdapterPart(Part):
    """What is put onto the model, and how much of the data at once."""

    adapter: str | None = described(
        None, MODEL, "An adapter's folder, or owner/name[@revision] on the hub."
    )
    batch_size: int = described(64, EVALUATION, "Examples a batch.", gt=0)


class EvaluateSettings(
    DevicePart,
    MetricPart,
    LengthPart,
    ColumnsPart,
    ValidationFilePart,
    TaskPart,
    AdapterPart,
    ModelPart,
):
    """Everything that decides an evaluation; an adapter of ours knows its base and its task."""

    @property
    def train_file(self) -> None:
        """An evaluation reads no training examples."""

    @property
    def regression(self) -> bool:
        """The model's head knows."""
        return False

    @property
    def head(self) -> Literal["kept", "any"]:
        """A head that an adapter brings replaces the base's."""
        return "kept" if self.adapter is None else "any"
