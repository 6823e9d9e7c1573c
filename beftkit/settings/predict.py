"""Settings of predicting and of exporting: one definition behind flags and Python."""

from __future__ import annotations

from typing import ClassVar, Literal

from beftkit.settings import parts
from beftkit.settings.asking import TemplatePart
from beftkit.settings.evaluate import AdapterPart
from beftkit.settings.graphs import GraphsPart
from beftkit.settings.parts import Dtype
from beftkit.settings.topics import of_model, of_output


class PredictSettings(
    GraphsPart,
    parts.DevicePart,
    parts.LengthPart,
    TemplatePart,
    parts.TextsPart,
    parts.TaskNamePart,
    AdapterPart,
    parts.ModelPart,
):
    """Everything that decides what a model answers; an adapter of ours knows its base and task."""

    AS_RUN: ClassVar[tuple[str, ...]] = ("dtype", "precision")

    threshold: float | None = of_output(
        None,
        "Give no answer where the best label's probability is below this; of two labels it is "
        "never below 0.5.",
        ge=0,
        le=1,
    )

    @property
    def head(self) -> Literal["kept", "any"]:
        """A head that an adapter brings replaces the base's."""
        return "kept" if self.adapter is None else "any"


class ExportSettings(parts.ModelPart):
    """What is merged into what."""

    adapter: str | None = of_model(None, "An adapter's folder, a run's, or owner/name on the hub.")
    dtype: Dtype = of_model("auto", "What the weights are written in; auto: as the base's.")

    @property
    def head(self) -> Literal["any"]:
        """As for predicting."""
        return "any"

    @property
    def device_map(self) -> None:
        """It is merged in memory, on the CPU."""
