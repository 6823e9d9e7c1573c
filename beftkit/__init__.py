"""beftkit: fine-tune, score and inspect the bias terms of language models."""

from __future__ import annotations

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
    from beftkit.selection import train as train

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
    "train": "selection",
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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``import beftkit`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
