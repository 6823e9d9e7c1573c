"""The cells of a grid: one probe each, and the runs that verify it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from beftkit.errors import UsageError, option
from beftkit.settings.resolve import cell_settings
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings
from beftkit.spelling import OF_ROLES, meant
from beftkit.tuning import parse_added

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
    s = settings
    places = product(s.regimes or ("all",), s.lrs or (None,), s.epochs or (None,), s.seeds)
    return [Cell(regime, s.train_size, lr, epochs, seed) for regime, lr, epochs, seed in places]


def run_settings(
    select: SelectSettings, cell: Cell, bias: str, output: str | None
) -> TrainSettings:
    """The settings of one run of a cell; ``probe`` is all biases, at most ``probe_steps``.

    A role that is added trains as such, and no bias that there is beside it.
    """
    sized = cell.train_size is not None or select.train_file is not None
    is_probe = bias == PROBE
    changes: dict[str, Any] = {"bias": "all" if is_probe else bias, "add_bias": None}
    if select.add_bias is not None:
        if bias in (PROBE, "all"):
            changes["add_bias"] = select.add_bias
        elif bias in parse_added(select.add_bias):
            changes |= {"bias": "none", "add_bias": bias}
    changes |= {"regime": "all" if sized else cell.regime, "train_size": cell.train_size}
    changes |= {"lr": cell.lr, "epochs": cell.epochs, "seeds": (cell.seed,), "output": output}
    changes["track_steps"] = 1  # in every run, so that their times compare
    changes["max_steps"] = select.probe_steps if is_probe else None
    return cell_settings(select, changes)


def biases_to_verify(settings: SelectSettings) -> list[str]:
    """What verification trains, the cheapest controls first.

    Raises:
        UsageError: a candidate that is no role, or one to be added that is none.
    """
    from beftkit.biases import ROLES

    if settings.add_bias is not None:
        parse_added(settings.add_bias)
    unknown = [role for role in settings.candidates if role not in ROLES]
    if unknown:
        expected = f"expected some of {', '.join(ROLES)}{meant(unknown[0], ROLES, OF_ROLES)}"
        raise UsageError(f"{option('candidates', ','.join(unknown))}: {expected}")
    return ["none", *settings.candidates, "all"] if settings.verify else []
