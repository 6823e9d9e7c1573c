"""Tasks: the registry, data from the hub and from files, batches, losses and metrics.

Importing this costs next to nothing: a name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beftkit.tasks.answer_metrics import measure_chosen as measure_chosen
    from beftkit.tasks.answer_metrics import measure_written as measure_written
    from beftkit.tasks.batches import plan as plan
    from beftkit.tasks.batches import plan_evaluation as plan_evaluation
    from beftkit.tasks.data import Data as Data
    from beftkit.tasks.data import Split as Split
    from beftkit.tasks.data import subsample as subsample
    from beftkit.tasks.deviations import standard_errors as standard_errors
    from beftkit.tasks.encoding import Batch as Batch
    from beftkit.tasks.encoding import Encoded as Encoded
    from beftkit.tasks.encoding import encode as encode
    from beftkit.tasks.labels import LabelMisfit as LabelMisfit
    from beftkit.tasks.labels import match_labels as match_labels
    from beftkit.tasks.labels import read_label_map as read_label_map
    from beftkit.tasks.labels import relabel as relabel
    from beftkit.tasks.labels import unnamed as unnamed
    from beftkit.tasks.metrics import METRIC_NAMES as METRIC_NAMES
    from beftkit.tasks.metrics import OUR_METRICS as OUR_METRICS
    from beftkit.tasks.metrics import check_metric as check_metric
    from beftkit.tasks.metrics import compute_metrics as compute_metrics
    from beftkit.tasks.metrics import higher_is_better as higher_is_better
    from beftkit.tasks.metrics import load_metric as load_metric
    from beftkit.tasks.own_choices import Asking as Asking
    from beftkit.tasks.own_choices import load_choices as load_choices
    from beftkit.tasks.own_choices import own_task as own_task
    from beftkit.tasks.own_files import load_files as load_files
    from beftkit.tasks.own_files import text_columns as text_columns
    from beftkit.tasks.own_prompts import load_written as load_written
    from beftkit.tasks.prompts import Prompted as Prompted
    from beftkit.tasks.prompts import prompted as prompted
    from beftkit.tasks.sources import load_task as load_task
    from beftkit.tasks.streams import Rows as Rows
    from beftkit.tasks.streams import stream_file as stream_file

_NAMES = {
    "answer_metrics": "measure_chosen measure_written",
    "batches": "plan plan_evaluation",
    "data": "Data Split subsample",
    "deviations": "standard_errors",
    "encoding": "Batch Encoded encode",
    "labels": "LabelMisfit match_labels read_label_map relabel unnamed",
    "metrics": (
        "METRIC_NAMES OUR_METRICS check_metric compute_metrics higher_is_better load_metric"
    ),
    "own_choices": "Asking load_choices own_task",
    "own_files": "load_files text_columns",
    "own_prompts": "load_written",
    "prompts": "Prompted prompted",
    "sources": "load_task",
    "streams": "Rows stream_file",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit.tasks' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit.tasks.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
