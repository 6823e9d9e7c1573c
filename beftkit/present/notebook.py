"""Results in a notebook: the tables of the command, as HTML."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.present.document import Document
from beftkit.present.html import html_fragment

if TYPE_CHECKING:
    from beftkit.scores import Scores


@dataclass(frozen=True)
class Drawn:
    """A picture in memory, which a notebook shows."""

    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png


def plotted(scores: Scores, path: str | Path | None) -> Drawn | Path:
    """The heat map of `beftkit.present.plots.heatmap`, in a file or, without a path, in memory."""
    from beftkit.present.plots import heatmap

    if path is not None:
        heatmap(scores, path)
        return Path(path)
    with tempfile.TemporaryDirectory() as folder:
        heatmap(scores, made := Path(folder) / "scores.png")
        return Drawn(made.read_bytes())


def html_of(result: Any) -> str | None:
    """A result's lines and tables; None for a part of a result, whose ``repr`` says it all."""
    found = _document(result)
    return None if found is None else html_fragment(found.blocks)


def _document(result: Any) -> Document | None:
    """Asked for by name: what training needs is not imported to show scores."""
    match type(result).__name__:
        case "Scores" if result.settings is None:
            from beftkit.present.scores import scores_document

            return scores_document([result])
        case "Scores":
            from beftkit.present.fisher import fisher_document

            return fisher_document([result])
        case "Inspection":
            from beftkit.present.inspection import inspection_document

            return inspection_document(result)
        case "TrainResult":
            from beftkit.present.training import train_document

            return train_document(result)
        case "RunPlan" | "SelectPlan" | "FisherPlan" | "Timing" as kind:
            from beftkit.present import planned, timing

            documents: dict[str, Callable[[Any], Document]] = {
                "RunPlan": planned.run_plan_document,
                "SelectPlan": planned.select_plan_document,
                "FisherPlan": planned.fisher_plan_document,
                "Timing": timing.timing_document,
            }
            return documents[kind](result)
        case "PredictionResult":
            from beftkit.present.predictions import predictions_document

            return predictions_document(result)
        case "ExportResult":
            from beftkit.present.predictions import export_document

            return export_document(result)
        case "MergeResult":
            from beftkit.present.merging import merge_document

            return merge_document(result)
        case "EvaluationResult":
            from beftkit.present.evaluation import evaluation_document

            return evaluation_document(result)
        case "ExtractResult":
            from beftkit.present.extraction import extract_document

            return extract_document(result)
        case "AverageResult":
            from beftkit.present.averages import average_document

            return average_document(result)
        case "CosineResult":
            from beftkit.present.cosines import cosines_document

            return cosines_document(result)
        case "Selection":
            from beftkit.present.selection import selection_document

            return selection_document(result)
        case "PaperResult":
            from beftkit.present.paper import paper_document

            return paper_document(result)
        case "PaperPlan":
            from beftkit.present.paper import paper_plan_document

            return paper_plan_document(result)
        case "Survey":
            from beftkit.present.survey import document

            return document(result)
    return None
