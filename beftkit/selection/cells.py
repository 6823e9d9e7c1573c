"""The cells of a grid: one probe each, and the runs that verify it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from beftkit.errors import BeftError, UsageError
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings, resolve_settings

#: what verification trains beside the candidates
CONTROLS = ("none", "all")
PROBE = "probe"


@dataclass(frozen=True)
class Cell:
    """One place of the grid.

    Attributes:
        regime: of the paper, or ``all``.
        train_size: examples instead of a regime.
        lr: learning rate, None: the task's.
        epochs: passes over the data, None: the task's.
        seed: of head, data, batches and dropout.
    """

    regime: str
    train_size: int | None
    lr: float | None
    epochs: int | None
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        words = [f"n{self.train_size}" if self.train_size else self.regime]
        words += [f"lr{self.lr:g}"] if self.lr is not None else []
        words += [f"e{self.epochs}"] if self.epochs is not None else []
        return "-".join([*words, f"seed{self.seed}"])

    @property
    def group(self) -> tuple[str, int | None, float | None, int | None]:
        """What cells that differ in their seed alone have in common."""
        return self.regime, self.train_size, self.lr, self.epochs


def grid(settings: SelectSettings) -> list[Cell]:
    """Every cell, seeds side by side."""
    regimes: tuple[str, ...] = settings.regimes or ("all",)
    return [
        Cell(regime, settings.train_size, lr, epochs, seed)
        for regime, lr, epochs, seed in product(
            regimes, settings.lrs or (None,), settings.epochs or (None,), settings.seeds
        )
    ]


def split_settings(
    model: str | None, config: Any, given: Mapping[str, Any]
) -> tuple[SelectSettings, dict[str, Any]]:
    """Sort what was given into a selection's settings and a training run's.

    Raises:
        UsageError: a setting that a selection decides itself, or one that makes no sense.
    """
    from beftkit.settings.select import OWN
    from beftkit.settings.train import checked, read_yaml

    values = {**(read_yaml(config) if config else {})}
    values |= {key: value for key, value in given.items() if value is not None}
    if model is not None:
        values["model"] = model
    mine = {key: value for key, value in values.items() if key in SelectSettings.model_fields}
    rest = {key: value for key, value in values.items() if key not in mine}
    refused = sorted(key for key in rest if key in OWN)
    if refused:
        raise UsageError(f"{refused[0]} is set by the selection itself, cell by cell; leave it out")
    settings = checked(SelectSettings, mine)
    own = rest.get("train_file") is not None
    if settings.train_size is not None and settings.regimes:
        raise UsageError("regimes and train_size were both given; expected one of them")
    if own and settings.regimes:
        raise UsageError("regimes are for tasks; use train_size with files of your own")
    if not own and settings.train_size is None and not settings.regimes:
        settings = settings.model_copy(update={"regimes": ("low",)})
    return settings, rest


def cell_settings(
    rest: Mapping[str, Any], settings: SelectSettings, cell: Cell, bias: str, output: str | None
) -> TrainSettings:
    """The settings of one run of a cell; ``probe`` is all biases, at most ``probe_steps``."""
    values: dict[str, Any] = {
        **rest, "bias": "all" if bias == PROBE else bias, "regime": cell.regime,
        "train_size": cell.train_size, "seeds": (cell.seed,), "output": output,
    }  # fmt: skip
    if cell.train_size is not None or rest.get("train_file"):
        values["regime"] = "all"
    for key in ("lr", "epochs"):
        if getattr(cell, key) is not None:
            values[key] = getattr(cell, key)
    values["track_steps"] = 1  # in every run, so that their times compare
    if bias == PROBE:
        values["max_steps"] = settings.probe_steps
    return resolve_settings(None, values)


def biases_to_verify(settings: SelectSettings) -> list[str]:
    """What verification trains, the cheapest controls first.

    Raises:
        BeftError: a candidate that is no role.
    """
    from beftkit.biases import ROLES

    unknown = [role for role in settings.candidates if role not in ROLES]
    if unknown:
        raise BeftError(
            f"candidates: {', '.join(unknown)} given; expected some of {', '.join(ROLES)}"
        )
    return ["none", *settings.candidates, "all"] if settings.verify else []
