"""A run's folder where what it made is meant: its adapter, or its whole model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from beftkit.adapters.reading import BIASES_NAME, CONFIG_NAME
from beftkit.errors import BeftError

#: in a run's folder: its settings; what it hands over; a selection's settings
SETTINGS, ADAPTER, MODEL, SELECTION = "run.yaml", "adapter", "model", "select.yaml"
#: written last, also where nothing trained (a causal model under ``bias: none``)
RESULTS = "all_results.json"
Reference = TypeVar("Reference")


def is_adapter(reference: object) -> bool:
    """Whether this is the folder of an adapter on disk."""
    return _holds(reference, CONFIG_NAME) or _holds(reference, BIASES_NAME)


def meant(reference: Reference) -> Reference | str:
    """What is meant by a reference: of a run's folder its adapter, or its whole model.

    Args:
        reference: whatever stands for a checkpoint. What is no run's folder is given back: a
            folder that holds a model, an adapter or checkpoints itself, a name on the hub, a live
            model.

    Raises:
        BeftError: a run of several seeds, one that has not come to its end, or a selection.
    """
    if not isinstance(reference, (str, Path)):
        return reference
    folder = Path(reference)
    if is_adapter(folder) or _holds(folder, "config.json"):
        return reference
    for name in _handed_over(folder):
        return str(folder / name)
    if _holds(folder, SELECTION):
        raise BeftError(
            f"{reference}: holds a selection, which is many runs; give the folder of one, below "
            f"{folder / 'cells'}"
        )
    seed = folder.name.startswith("seed-") and _holds(folder, RESULTS)
    if not _holds(folder, SETTINGS) and not (seed and _holds(folder.parent, SETTINGS)):
        return reference
    seeds = [one for one in folder.glob("seed-*") if any(_handed_over(one))]
    if seeds:
        names = ", ".join(str(one) for one in sorted(seeds, key=_number))
        raise BeftError(
            f"{reference}: a run of several seeds, each with its own; give one: {names}"
        )
    if any(folder.glob("checkpoint-*")):
        return reference
    if _holds(folder, RESULTS):
        raise BeftError(
            f"{reference}: a run in which nothing trained, so that there is no adapter; give the "
            f"model that its {SETTINGS} names, which is what was evaluated"
        )
    raise BeftError(
        f"{reference}: a run that holds no adapter yet; take it up with `beftkit train -o "
        f"{reference} --resume`"
    )


def _handed_over(folder: Path) -> Iterator[str]:
    """The folders in a run's own that hold what it made."""
    if is_adapter(folder / ADAPTER):
        yield ADAPTER
    # Other tools' folders have a model in them as well; a run's has a list of what it made.
    elif _holds(folder / MODEL, "config.json") and _holds(folder, "manifest.json"):
        yield MODEL


def _number(seed: Path) -> tuple[int, str]:
    digits = seed.name.removeprefix("seed-")
    return int(digits) if digits.isdecimal() else 0, seed.name


def _holds(folder: object, name: str) -> bool:
    try:
        return isinstance(folder, (str, Path)) and (Path(folder) / name).is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False
