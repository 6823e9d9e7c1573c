"""Settings of a Fisher measurement: one definition behind flags and Python."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from beftkit.settings import parts
from beftkit.settings.added import AddedPart
from beftkit.settings.asking import TemplatePart
from beftkit.settings.graphs import GraphsPart
from beftkit.settings.topics import (
    Part,
    described,
    of_data,
    of_device,
    of_model,
    seeds_checked,
    words_of,
)

WHAT = "What is measured"
#: examples a backward pass by default, and as the published code has it
BATCH, BATCH_PUBLISHED = 16, 8


class MeasurePart(Part):
    """What is measured, and of which heads."""

    head_seeds: tuple[int, ...] = of_model(
        (0,),
        "Seeds of a fresh classifier, such as 0,1,2: the mean over them.",
        min_length=1,
        aliases=("--seed",),
    )
    variant: Literal["exact", "batch-mean"] = described(
        "exact",
        WHAT,
        "exact: squares of each example's gradient. batch-mean: of a batch's mean gradient after "
        "clipping, as the published code has it.",
    )
    reduce: Literal["mean", "sum"] = described(
        "mean", WHAT, "A bias vector's score: mean or sum over its coordinates."
    )
    candidates: str | None = described(
        None, WHAT, "Roles to choose the target from.  [default: q,k,v]"
    )
    tower: str | None = described(None, WHAT, "Which tower of several: text, text.decoder, ...")
    allow_inert: bool = described(False, WHAT, "Let a bias that softmax ignores be the target.")
    snapshots: tuple[str, ...] = described(
        (), WHAT, "Measure at these states of a run as well: OUT/snapshots, or files in it."
    )
    train_size: int | None = of_data(
        None, "The first so many training examples.  [all]", gt=0, former=("examples",)
    )
    batch_size: int | None = of_device(
        None, f"Examples a backward pass.  [{BATCH}; batch-mean: {BATCH_PUBLISHED}]", gt=0
    )
    buffer_mib: int = of_device(
        64, "MiB of gradients that may wait to be summed in one launch.", ge=0
    )

    _seed_words = field_validator("head_seeds", mode="before")(words_of)
    _seeds_fit = field_validator("head_seeds")(seeds_checked)

    @field_validator("snapshots", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        return list(map(str, value)) if isinstance(value, (list, tuple)) else [value]


class FisherSettings(
    GraphsPart,
    parts.CheckpointingPart,
    parts.DevicePart,
    parts.LengthPart,
    parts.ValuesPart,
    TemplatePart,
    parts.ColumnsPart,
    parts.TrainFilePart,
    parts.TaskPart,
    MeasurePart,
    AddedPart,
    parts.HeadPart,
    parts.ModelPart,
):
    """Everything that decides a measurement by `beftkit.fisher_all`."""

    @property
    def validation_file(self) -> None:
        """A measurement reads training examples alone."""

    @property
    def examples_a_pass(self) -> int:
        """The batch size that is used."""
        return self.batch_size or (BATCH if self.variant == "exact" else BATCH_PUBLISHED)

    @property
    def candidate_roles(self) -> list[str] | None:
        """The roles to choose the target from, as they were given."""
        given = self.candidates
        return None if given is None else given.replace(" ", "").split(",")

    @model_validator(mode="after")
    def _consistent(self) -> FisherSettings:
        if (self.task is None) == (self.train_file is None):
            both = "--task and --train-file were both given"
            neither = "neither --task nor --train-file was given"
            raise ValueError(f"{both if self.task else neither}; expected one of them")
        if self.regression and self.train_file is None:
            raise ValueError("--regression: is for files of your own; a task knows its kind")
        if self.variant == "batch-mean" and self.graphs == "on":
            raise ValueError("--graphs=on: is for --variant=exact; batch-mean captures nothing")
        if self.snapshots and len(self.head_seeds) > 1:
            raise ValueError(
                "--snapshots: they hold the classifier of their run; give --head-seeds=N, one"
            )
        return self
