"""Metrics by name: those shipped here, and any other of the ``evaluate`` library.

``evaluate`` is slow to import (it brings most of transformers), so it waits until a metric is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from beftkit.errors import BeftError, UsageError, option
from beftkit.spelling import meant

if TYPE_CHECKING:
    import evaluate

METRIC_NAMES = ("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "mse", "mae")
#: of the answers to prompts: `beftkit.tasks.answer_metrics`
ANSWER_METRICS = ("multirc_f1a", "multirc_em", "token_f1", "exact_match", "drop_f1", "drop_em")
#: of texts that a model learns: `beftkit.tasks.language_metrics`
LANGUAGE_METRICS = ("perplexity", "token_accuracy")
#: all that are ours, and no code of others
OUR_METRICS = (*METRIC_NAMES, *ANSWER_METRICS, *LANGUAGE_METRICS)
_ERRORS = ("mse", "mae", "perplexity")
_OF_CLASSES = ("accuracy", "f1", "macro_f1", "matthews")


def higher_is_better(name: str) -> bool:
    """Whether more is better: yes but for errors and perplexity; yes for metrics of others."""
    return name not in _ERRORS


def compute_metrics(
    metrics: Sequence[str | evaluate.EvaluationModule],
    predictions: npt.ArrayLike,
    references: npt.ArrayLike,
) -> dict[str, float]:
    """Compute several metrics.

    Args:
        metrics: names of `METRIC_NAMES`, or what `load_metric` returned.
        predictions, references: [N], class ids or values; arrays or CPU tensors.

    Returns:
        Name -> value, in the order of ``metrics``; NaN where a metric is not defined (a correlation
        with a constant). The number of a metric of others stands under its name, several under
        ``name_key``.

    Raises:
        BeftError: nothing to compare, or a metric that does not fit the labels.
    """
    predicted, expected = np.asarray(predictions), np.asarray(references)
    if len(predicted) != len(expected) or not len(expected):
        raise BeftError(f"{len(predicted)} predictions for {len(expected)} examples: no metric")
    result: dict[str, float] = {}
    for given in metrics:
        name = given if isinstance(given, str) else given.name
        if given in (*ANSWER_METRICS, *LANGUAGE_METRICS):
            what = (
                "answers to other prompts" if given in ANSWER_METRICS else "texts that are learnt"
            )
            raise BeftError(
                f"{option('metric', name)}: is for {what}; expected one of "
                f"{', '.join(METRIC_NAMES)}"
            )
        if given in _OF_CLASSES and "f" in (predicted.dtype.kind, expected.dtype.kind):
            raise BeftError(  # evaluate would cut the fractions off
                f"{option('metric', name)}: is for classes, and these are values; use pearson,"
                " spearman, mse or mae"
            )
        try:
            if isinstance(given, str) and given in METRIC_NAMES:
                found = _own(given, predicted, expected)
            else:
                metric = load_metric(given) if isinstance(given, str) else given
                found = metric.compute(predictions=predicted, references=expected)
        except Exception as error:  # code of others may raise anything
            raise BeftError(f"{option('metric', name)}: {_line(error)}") from error
        result |= _numbers(name, found)
    return result


def _own(name: str, predicted: npt.NDArray[Any], expected: npt.NDArray[Any]) -> dict[str, float]:
    """A metric of our own as `evaluate_metric` gives it, without ``evaluate``, whose import takes
    longer than a short evaluation.
    """
    from beftkit.tasks.formulas import FUNCTIONS

    function, kind = FUNCTIONS[name]
    return {name: float(function(expected.astype(kind), predicted.astype(kind)))}


def load_metric(name: str, *, trust_remote_code: bool = False) -> evaluate.EvaluationModule:
    """A metric that keeps its predictions in memory.

    Args:
        name: one of `METRIC_NAMES`, the path of a script (or of a folder with a script of its name)
            that defines an ``evaluate.Metric``, or a metric of the hub. Its ``name`` is then the
            last part of this, without ``.py``.
        trust_remote_code: allow the last: it downloads and runs code.

    Raises:
        BeftError: no such metric, or not without ``trust_remote_code``.
    """
    script = check_metric(name, trust_remote_code=trust_remote_code)
    try:
        import evaluate
    except ModuleNotFoundError as error:
        raise BeftError(
            f"{option('metric', name)}: needs the package {error.name}, which is not installed; pip"
            f" install evaluate, or take one of {', '.join(METRIC_NAMES)}"
        ) from None
    if name in METRIC_NAMES:
        from beftkit.tasks.formulas import evaluate_metric

        return evaluate_metric(name)
    try:
        metric = evaluate.load(script or name, keep_in_memory=True)
    except Exception as error:  # importing the script, or its packages, may raise anything
        place = option("metric", name)
        raise BeftError(f"{place}: cannot be loaded ({_line(error)})") from error
    metric.info.module_name = Path(name).stem  # what was asked for, not the name of its class
    return metric


def check_metric(name: str, *, trust_remote_code: bool = False) -> str | None:
    """Refuse what is no metric; nothing is loaded.

    Returns:
        The path of its script, if it is a local one.

    Raises:
        BeftError: as `load_metric`.
    """
    if name in OUR_METRICS:
        return None
    path = Path(name)
    script = path / f"{path.name}.py" if path.is_dir() else path
    local = script.is_file() and script.suffix == ".py"
    if not local and (path.exists() or path.suffix == ".py" or name.count("/") > 1):
        raise BeftError(
            f"{option('metric', name)}: no script there; expected FILE.py or a folder with its own"
        )
    if not local and not trust_remote_code:
        raise UsageError(
            f"{option('metric', name)}: not one of {', '.join(METRIC_NAMES)} nor a local script;"
            " a metric of the hub is code that would be run: allow it with --trust-remote-code"
            f"{meant(name, METRIC_NAMES)}"
        )
    return str(script) if local else None


def _numbers(name: str, found: Any) -> dict[str, float]:
    """The numbers a metric answered with, and nothing else."""
    numbers = {
        key: float(value)
        for key, value in (found or {}).items()
        if isinstance(value, int | float | np.number)
    }
    if not numbers:
        raise BeftError(f"{option('metric', name)}: gives no number")
    if len(numbers) == 1:
        return {name: next(iter(numbers.values()))}
    return {f"{name}_{key}": value for key, value in numbers.items()}


def _line(error: Exception) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
