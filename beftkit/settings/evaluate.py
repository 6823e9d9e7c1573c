"""Settings of an evaluation: one definition behind flags and Python."""

from __future__ import annotations

from typing import ClassVar, Literal

from beftkit.settings import parts
from beftkit.settings.asking import TemplatePart
from beftkit.settings.graphs import GraphsPart
from beftkit.settings.topics import Part, of_data, of_evaluation, of_model


class AdapterPart(Part):
    """What is put onto the model, and how much of the data at once."""

    adapter: str | None = of_model(
        None, "An adapter's folder, a run's, or owner/name[@revision] on the hub."
    )
    batch_size: int = of_evaluation(64, "Examples a batch.", gt=0, former=("eval_batch_size",))


class EvaluateSettings(
    GraphsPart,
    parts.DevicePart,
    parts.MetricPart,
    parts.LengthPart,
    parts.ShotsPart,
    parts.ValidationSizePart,
    TemplatePart,
    parts.ColumnsPart,
    parts.ValidationFilePart,
    parts.TaskPart,
    AdapterPart,
    parts.ModelPart,
):
    """Everything that decides an evaluation; what is not given is as in the adapter's own run."""

    train_file: str | None = of_data(
        None, "Your own training examples beside --validation-file, to draw --shots from."
    )

    #: whose defaults are for what no run of ours made, which ``--help`` says
    AS_RUN: ClassVar[tuple[str, ...]] = ("dtype", "precision", "batch_size", "quotes")

    @property
    def regression(self) -> bool:
        """The model's head knows."""
        return False

    @property
    def head(self) -> Literal["kept", "any"]:
        """A head that an adapter brings replaces the base's."""
        return "kept" if self.adapter is None else "any"
