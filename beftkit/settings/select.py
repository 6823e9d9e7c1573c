"""Settings of a selection: the grid, what is done in each cell, and what all its runs share."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import field_validator, model_validator

from beftkit.settings.added import AddedPart
from beftkit.settings.names import check_regime
from beftkit.settings.parts import DataPart, HeadPart, ModelPart, Regimes, RunPart
from beftkit.settings.topics import Part, described, of_course, of_data
from beftkit.settings.train import TrainSettings

CHOICE = "Selection"


class GridPart(Part):
    """The grid of a selection, and what is done in each of its cells."""

    regimes: tuple[Regimes, ...] = of_data(
        (),
        "How many training examples, as the paper has it; several make a grid.  [low, or all of "
        "your own file]",
        aliases=("--regime",),
    )
    lrs: tuple[float, ...] = of_course(
        (), "Learning rates, such as 1e-3,1e-4.  [by task]", aliases=("--lr",)
    )
    epochs: tuple[int, ...] = of_course((), "Passes over the data; several make a grid.  [by task]")
    candidates: tuple[str, ...] = described(
        ("q", "k", "v"), CHOICE, "Roles to choose from; of --add-bias those.", min_length=1
    )
    allow_inert: bool = described(False, CHOICE, "Let a bias that softmax ignores be the target.")
    probe_steps: int | None = described(None, CHOICE, "Stop the probe after so many updates.", gt=0)
    verify: bool = described(
        False,
        CHOICE,
        "Train each candidate alone too, and the controls none and all, and hold the rankings to "
        "their metrics.",
    )
    fisher: bool = described(
        True, CHOICE, "Measure the empirical Fisher as well (--no-fisher: not)."
    )

    @field_validator("regimes", "lrs", "epochs", "candidates", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        given = [value] if isinstance(value, (str, int, float)) else value
        words: list[Any] = []
        for one in given:
            words += one.replace(" ", "").split(",") if isinstance(one, str) else [one]
        return [word for word in words if word != ""]

    @field_validator("regimes", "lrs", "epochs", "candidates")
    @classmethod
    def _different(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected different values")
        return value

    @field_validator("lrs", "epochs")
    @classmethod
    def _positive(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if value and min(value) <= 0:
            raise ValueError("expected values above 0")
        return value


class SelectSettings(GridPart, RunPart, DataPart, AddedPart, HeadPart, ModelPart):
    """A selection: its grid, and the settings that all of its runs share."""

    #: a run's settings that the selection decides itself, cell by cell
    CELLWISE: ClassVar[tuple[str, ...]] = (
        *("bias", "regime", "lr", "max_steps", "output", "save_snapshots", "track_steps"),
        *("push_to_hub", "adapter_format", "freeze_head", "layers", "allow_partial", "keep"),
    )
    #: what its own document always holds, given or not
    GRID: ClassVar[tuple[str, ...]] = (
        *("regimes", "train_size", "lrs", "epochs", "seeds", "candidates", "allow_inert"),
        *("probe_steps", "verify", "fisher"),
    )
    #: a run's settings that all runs of a selection have in common
    SHARED: ClassVar[tuple[str, ...]]

    @model_validator(mode="before")
    @classmethod
    def _added_ones(cls, values: Any) -> Any:
        """With nothing said of candidates, those that are added are the candidates."""
        added = values.get("add_bias") if isinstance(values, dict) else None
        if not isinstance(added, str) or values.get("candidates") is not None:
            return values
        words = [word for word in added.replace(" ", "").split(",") if word]
        roles = dict.fromkeys("m1" if word == "o" else word for word in words)
        return {**values, "candidates": tuple(roles)} if roles else values

    @model_validator(mode="after")
    def _fisher_chooses(self) -> SelectSettings:
        if self.add_bias is not None and not self.fisher:
            raise ValueError(
                "--no-fisher: with --add-bias Fisher chooses, for the projection ratio of a bias "
                "that was zero is 1 whatever changed; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_size(self) -> SelectSettings:
        if self.train_size is not None and self.regimes:
            raise ValueError("--regimes and --train-size were both given; expected one of them")
        if self.train_file is not None and self.regimes:
            raise ValueError("--regimes: are for tasks; use --train-size with files of your own")
        for regime in self.regimes:
            check_regime(self.task, regime)
        return self

    def document(self) -> dict[str, Any]:
        """Plain values for ``select.yaml``: the grid, and of the rest what was given."""
        values = self.model_dump(mode="json")
        grid = {name: values[name] for name in self.GRID}
        given = self.model_fields_set - {*self.GRID}
        rest = {k: v for k, v in values.items() if k in given and v is not None}
        model = {"model": rest.pop("model")} if "model" in rest else {}
        return grid | rest | model


SelectSettings.SHARED = tuple(
    name
    for name in TrainSettings.model_fields
    if name in SelectSettings.model_fields
    and name not in (*SelectSettings.CELLWISE, *SelectSettings.GRID)
)
