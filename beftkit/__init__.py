"""beftkit: fine-tune, score and inspect the bias terms of language models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit import shown

__version__ = "0.1.0"

if TYPE_CHECKING:
    from beftkit.diff import score as score
    from beftkit.diff import score_all as score_all
    from beftkit.errors import BeftError as BeftError
    from beftkit.inspection import Inspection as Inspection
    from beftkit.inspection import inspect as inspect
    from beftkit.runs import AverageResult as AverageResult
    from beftkit.runs import EvaluationResult as EvaluationResult
    from beftkit.runs import ExportResult as ExportResult
    from beftkit.runs import ExtractResult as ExtractResult
    from beftkit.runs import MergeResult as MergeResult
    from beftkit.runs import PredictionResult as PredictionResult
    from beftkit.runs import Predictor as Predictor
    from beftkit.runs import average as average
    from beftkit.runs import evaluate as evaluate
    from beftkit.runs import export as export
    from beftkit.runs import extract as extract
    from beftkit.runs import fisher as fisher
    from beftkit.runs import fisher_all as fisher_all
    from beftkit.runs import load as load
    from beftkit.runs import merge as merge
    from beftkit.runs import predict as predict
    from beftkit.runs.results import TrainResult as TrainResult
    from beftkit.scores import Scores as Scores
    from beftkit.selection import Selection as Selection
    from beftkit.selection import select as select
    from beftkit.settings.train import TrainSettings
    from beftkit.surveys.results import Survey as Survey
    from beftkit.surveys.survey import survey as survey
    from beftkit.watching import Unwatched as Unwatched
    from beftkit.watching import Watcher as Watcher
    from beftkit.weights import BiasBank as BiasBank
    from beftkit.weights import CosineResult as CosineResult
    from beftkit.weights import compare as compare

_HOMES = {
    "AverageResult": "runs",
    "BeftError": "errors",
    "BiasBank": "weights",
    "CosineResult": "weights",
    "EvaluationResult": "runs",
    "ExportResult": "runs",
    "ExtractResult": "runs",
    "Inspection": "inspection",
    "MergeResult": "runs",
    "PredictionResult": "runs",
    "Predictor": "runs",
    "Scores": "scores",
    "Selection": "selection",
    "TrainResult": "runs.results",
    "Unwatched": "watching",
    "Watcher": "watching",
    "average": "runs",
    "compare": "weights",
    "evaluate": "runs",
    "export": "runs",
    "extract": "runs",
    "fisher": "runs",
    "fisher_all": "runs",
    "inspect": "inspection",
    "load": "runs",
    "merge": "runs",
    "predict": "runs",
    "score": "diff",
    "score_all": "diff",
    "select": "selection",
    "Survey": "surveys.results",
    "survey": "surveys.survey",
}
__all__ = [
    "AverageResult",
    "BeftError",
    "BiasBank",
    "CosineResult",
    "EvaluationResult",
    "ExportResult",
    "ExtractResult",
    "Inspection",
    "MergeResult",
    "PredictionResult",
    "Predictor",
    "Scores",
    "Selection",
    "Survey",
    "TrainResult",
    "Unwatched",
    "Watcher",
    "__version__",
    "average",
    "compare",
    "evaluate",
    "export",
    "extract",
    "fisher",
    "fisher_all",
    "inspect",
    "load",
    "merge",
    "predict",
    "score",
    "score_all",
    "select",
    "survey",
    "train",
]


def _train(
    model: str | Path | TrainSettings | None = None,
    *,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    progress: bool = False,
    asked_to_stop: Callable[[], int] | None = None,
    **settings: Any,
) -> TrainResult:
    """Fine-tune one kind of bias of a model, and say what came of it.

    With ``bias="auto"`` a probe on the same data and settings chooses it first (`beftkit.select`;
    its folder is ``select`` in the run's own), then the target alone is trained. With ``lr="find"``
    a short sweep on part of the training examples finds the rate first; its curve is in
    ``provenance.rates``.

    Args:
        model: folder, or ``owner/name`` on the hub; or settings that are resolved already.
        config: a ``run.yaml`` to start from; what is given here wins.
        resume: take up a run that was stopped in ``output``, to the same result bit by bit.
        overwrite: replace a former run in ``output``.
        watcher: told how it goes, update by update (`beftkit.Watcher`).
        progress: show that on stderr instead: a bar on a terminal and in a notebook, else lines.
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
        >>> result.runs[0].best.metrics["accuracy"]  # doctest: +SKIP
    """
    from beftkit.progress import displayed
    from beftkit.runs.folders import resolve_run
    from beftkit.settings.resolve import asked_to_find
    from beftkit.settings.train import TrainSettings
    from beftkit.watching import Unwatched, never

    given: dict[str, Any] = {**settings, "model": model}
    find = asked_to_find(config, settings)
    s = model if isinstance(model, TrainSettings) else resolve_run(config, given, resume=resume)
    from beftkit.runs import train_with  # imports torch: what was mistyped is told before

    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    how["asked_to_stop"] = asked_to_stop or never
    with displayed(progress, watcher) as looking:
        how["watcher"] = looking
        chosen = rates = None
        if find:
            from beftkit.runs.rate_search import find_rate, found_before

            if known := found_before(s, resume=resume):
                s, find = s.model_copy(update={"lr": known}), False
        if s.bias == "auto":
            from beftkit.selection import choose_bias

            chosen = choose_bias(s, **how)
            s = s.model_copy(update={"bias": chosen.bias})
        if find:
            stop = how["asked_to_stop"]
            rates = find_rate(s, looking or Unwatched(), stop, overwrite=overwrite)
            s = s.model_copy(update={"lr": rates.lr})
        return train_with(s, chosen=chosen, rates=rates, **how)


if TYPE_CHECKING:
    train = _train


def _table(result: Any) -> str | None:
    from beftkit.present.notebook import html_of

    return html_of(result)


def _plot(scores: Any, path: Any) -> Any:
    from beftkit.present.notebook import plotted

    return plotted(scores, path)


shown.hand_in(html=_table, plot=_plot)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``import beftkit`` costs nothing."""
    if name == "train":  # its settings say what it takes, and theirs is a library to import
        from beftkit.settings.signatures import documented
        from beftkit.settings.train import TrainSettings

        _train.__name__ = _train.__qualname__ = "train"
        globals()["train"] = documented(TrainSettings)(_train)
        return _train
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
