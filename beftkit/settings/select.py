"""What a selection does beyond a training run: grids, candidates, verification."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from beftkit.settings.train import DATA, OPTIMISATION, described

CHOICE = "Selection"
#: settings of a training run that a selection sets itself, cell by cell
OWN = ("bias", "regime", "lr", "epochs", "seeds", "max_steps", "output", "save_snapshots",
       "track_steps", "push_to_hub", "adapter_format", "freeze_head", "layers", "allow_partial",
       "keep", "train_size")  # fmt: skip


class SelectSettings(BaseModel):
    """The grid of a selection, and what is done in each of its cells."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    regimes: tuple[Literal["low", "medium", "high", "all"], ...] = described(
        (), DATA, "How many training examples, as the paper has it; several make a grid.  "
        "[low, or all of your own file]", aliases=("--regime",),
    )  # fmt: skip
    train_size: int | None = described(
        None, DATA, "So many training examples instead, drawn by the seed.", gt=0
    )
    lrs: tuple[float, ...] = described(
        (), OPTIMISATION, "Learning rates, such as 1e-3,1e-4.  [by task]", aliases=("--lr",)
    )
    epochs: tuple[int, ...] = described(
        (), OPTIMISATION, "Passes over the data; several make a grid.  [by task]"
    )
    seeds: tuple[int, ...] = described(
        (0,), OPTIMISATION, "Seeds, such as 0,1,2: their mean counts.", min_length=1,
        aliases=("--seed",),
    )  # fmt: skip
    candidates: tuple[str, ...] = described(
        ("q", "k", "v"), CHOICE, "Roles to choose from.", min_length=1
    )
    allow_inert: bool = described(False, CHOICE, "Let a bias that softmax ignores be the target.")
    probe_steps: int | None = described(None, CHOICE, "Stop the probe after so many updates.", gt=0)
    verify: bool = described(
        False, CHOICE, "Train each candidate alone too, and the controls none and all, and hold "
        "the rankings to their metrics.",
    )  # fmt: skip
    fisher: bool = described(
        True, CHOICE, "Measure the empirical Fisher as well (--no-fisher: not)."
    )

    @field_validator("regimes", "lrs", "epochs", "seeds", "candidates", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        given = [value] if isinstance(value, (str, int, float)) else value
        words: list[Any] = []
        for one in given:
            words += one.replace(" ", "").split(",") if isinstance(one, str) else [one]
        return [word for word in words if word != ""]

    @field_validator("regimes", "lrs", "epochs", "seeds", "candidates")
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

    @field_validator("seeds")
    @classmethod
    def _from_nought(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0:
            raise ValueError("expected whole numbers from 0 on")
        return value
