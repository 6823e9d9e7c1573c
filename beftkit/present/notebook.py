"""Results in a notebook: the tables of the command, as HTML."""

from __future__ import annotations

from typing import Any

from beftkit.present.document import Document
from beftkit.present.html import html_fragment


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
        case "RunPlan":
            from beftkit.present.training import plan_document

            return plan_document(result)
        case "EvaluationResult":
            from beftkit.present.evaluation import evaluation_document

            return evaluation_document(result)
        case "Selection":
            from beftkit.present.selection import selection_document

            return selection_document(result)
    return None
