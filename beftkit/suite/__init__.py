"""The paper's tables as lists of runs and selections, and ours beside the published figures.

Importing this costs next to nothing: a name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beftkit.suite.journey import paper as paper
    from beftkit.suite.planning import plan_paper as plan_paper
    from beftkit.suite.planning import time_paper as time_paper
    from beftkit.suite.results import PaperPlan as PaperPlan
    from beftkit.suite.results import PaperResult as PaperResult

_HOMES = {"paper": "journey", "plan_paper": "planning", "time_paper": "planning"}
_HOMES |= {"PaperPlan": "results", "PaperResult": "results"}
__all__ = ["PaperPlan", "PaperResult", "paper", "plan_paper", "time_paper"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit.suite' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit.suite.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
