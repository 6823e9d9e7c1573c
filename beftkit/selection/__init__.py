"""Choosing the bias: probes over a grid, what each method says of them, and the proof.

Importing this costs next to nothing: a name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beftkit.selection.ahead import plan_auto as plan_auto
    from beftkit.selection.ahead import time_auto as time_auto
    from beftkit.selection.auto import choose_bias as choose_bias
    from beftkit.selection.journey import select as select
    from beftkit.selection.opening import settings_of as settings_of
    from beftkit.selection.planning import SelectPlan as SelectPlan
    from beftkit.selection.planning import plan_select as plan_select
    from beftkit.selection.results import CellResult as CellResult
    from beftkit.selection.results import GroupResult as GroupResult
    from beftkit.selection.results import Selection as Selection
    from beftkit.selection.timing import time_select as time_select

_HOMES = {
    "choose_bias": "auto",
    "CellResult": "results",
    "GroupResult": "results",
    "Selection": "results",
    "SelectPlan": "planning",
    "plan_auto": "ahead",
    "plan_select": "planning",
    "select": "journey",
    "settings_of": "opening",
    "time_auto": "ahead",
    "time_select": "timing",
}
__all__ = [
    "CellResult",
    "GroupResult",
    "SelectPlan",
    "Selection",
    "choose_bias",
    "plan_auto",
    "plan_select",
    "select",
    "settings_of",
    "time_auto",
    "time_select",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit.selection' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit.selection.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
