"""Trackers of other makers (TensorBoard, W&B, ...) through Accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.errors import BeftError, option
from beftkit.settings.train import TrainSettings
from beftkit.training.journal import named

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "beftkit"
#: where trackers that write files write them, in a run's folder
FOLDER = "trackers"


@contextmanager
def tracked(
    accelerator: Accelerator, settings: TrainSettings, seed: int, folder: Path | None
) -> Iterator[None]:
    """Tell the trackers of ``report_to`` of one seed's run while it lasts.

    Raises:
        BeftError: one of them cannot start: not logged in, no network, a disk that is full.
    """
    if not accelerator.log_with:
        yield
        return
    if folder is not None:
        accelerator.project_configuration.logging_dir = str(folder / FOLDER)
    try:
        accelerator.init_trackers(PROJECT, config={**_plain(settings), "seed": seed})
    except Exception as error:  # code of others may raise anything
        _finish(accelerator)
        place = option("report_to", settings.report_to)
        raise BeftError(f"{place}: cannot start ({named(error)})") from error
    try:
        yield
    finally:
        _finish(accelerator)


def _finish(accelerator: Accelerator) -> None:
    # Not end_training: that ends the processes' exchange, and another seed may follow.
    for tracker in accelerator.trackers if accelerator.is_main_process else ():
        with suppress(Exception):  # what was trained is worth more; one may not have started
            tracker.finish()
    accelerator.trackers = []


def _plain(settings: TrainSettings) -> dict[str, Any]:
    """The settings as trackers take them: numbers, words and truth values."""
    found = settings.model_dump(mode="json", exclude_none=True)
    return {
        key: ",".join(map(str, value)) if isinstance(value, list) else value
        for key, value in found.items()
    }
