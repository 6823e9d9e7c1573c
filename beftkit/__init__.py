"""beftkit: fine-tune, score and inspect the bias terms of language models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from beftkit.diff import score as score
    from beftkit.diff import score_all as score_all
    from beftkit.errors import BeftError as BeftError
    from beftkit.inspection import Inspection as Inspection
    from beftkit.inspection import inspect as inspect
    from beftkit.runs import evaluate as evaluate
    from beftkit.runs import fisher as fisher
    from beftkit.runs import fisher_all as fisher_all
    from beftkit.runs.results import TrainResult as TrainResult
    from beftkit.scores import Scores as Scores
    from beftkit.selection import Selection as Selection
    from beftkit.selection import select as select
    from beftkit.settings.train import TrainSettings
    from beftkit.watching import Watcher

_HOMES = {
    "BeftError": "errors",
    "Inspection": "inspection",
    "Scores": "scores",
    "Selection": "selection",
    "TrainResult": "runs.results",
    "evaluate": "runs",
    "fisher": "runs",
    "fisher_all": "runs",
    "inspect": "inspection",
    "score": "diff",
    "score_all": "diff",
    "select": "selection",
}
__all__ = [
    "BeftError",
    "Inspection",
    "Scores",
    "Selection",
    "TrainResult",
    "__version__",
    "evaluate",
    "fisher",
    "fisher_all",
    "inspect",
    "score",
    "score_all",
    "select",
    "train",
]


def train(
    model: str | Path | TrainSettings | None = None,
    *,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    asked_to_stop: Callable[[], int] = lambda: 0,
    **settings: Any,
) -> TrainResult:
    """Fine-tune one kind of bias of a model, and say what came of it.

    With ``bias="auto"`` a probe on the same data and settings chooses it first (`beftkit.select`;
    its folder is ``select`` in the run's own), then the target alone is trained.

    Args:
        model: folder, or ``owner/name`` on the hub; or settings that are resolved already.
        config: a ``run.yaml`` to start from; what is given here wins.
        resume: take up a run that was stopped in ``output``, to the same result bit by bit.
        overwrite: replace a former run in ``output``.
        watcher: told how it goes.
        asked_to_stop: the number of a signal once one came; the state is saved, then
            `beftkit.training.trainer.Interrupted` raised.
        settings: fields of `beftkit.settings.TrainSettings`: ``task``, ``bias``, ``lr``,
            ``seeds``, ``output``, ...

    Returns:
        Metrics (best and last), scores, times, and where the adapter lies.

    Raises:
        BeftError: anything that is wrong with what was given.

    Example:
        >>> result = beftkit.train("bert-base-cased", task="sst2", regime="low", bias="v",
        ...                        output="runs/sst2-v")  # doctest: +SKIP
        >>> result.runs[0].best["metrics"]["accuracy"]  # doctest: +SKIP
    """
    from beftkit.runs import train_with
    from beftkit.runs.folders import resolve_run
    from beftkit.settings.train import TrainSettings
    from beftkit.watching import Unwatched

    given: dict[str, Any] = {**settings, "model": model}
    s = model if isinstance(model, TrainSettings) else resolve_run(config, given, resume=resume)
    how: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "watcher": watcher or Unwatched(),
        "asked_to_stop": asked_to_stop,
    }
    if s.bias != "auto":
        return train_with(s, **how)
    from beftkit.selection import choose_bias

    chosen = choose_bias(s, **how)
    return train_with(s.model_copy(update={"bias": chosen.bias}), chosen=chosen, **how)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``import beftkit`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
