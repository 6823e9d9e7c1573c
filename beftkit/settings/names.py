"""Names that settings are given: those fields had formerly, tasks, regimes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from beftkit.errors import UsageError, option
from beftkit.registry import OFFERED, REGIMES, TASKS, Kind
from beftkit.spelling import meant


def former_names(kind: type[BaseModel]) -> dict[str, str]:
    """Former name -> the field that is given by it still."""
    extras: dict[str, Any] = {n: one.json_schema_extra for n, one in kind.model_fields.items()}
    return {old: name for name, extra in extras.items() for old in (extra or {}).get("former", ())}


def renamed(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names of today.

    Raises:
        UsageError: one under two names, with two values.
    """
    found = dict(values)
    for former, name in former_names(kind).items():
        if former not in found:
            continue
        old = found.pop(former)
        if found.setdefault(name, old) != old:
            both = f"{option(name, found[name])} and {option(former, old)}"
            raise UsageError(f"{both} are one setting; expected one of them")
    return found


def check_task(task: str) -> str:
    """A task of the registry.

    Raises:
        ValueError: it is none.
    """
    if task not in TASKS:
        raise ValueError(f"expected one of {', '.join(OFFERED)}{meant(task, OFFERED)}")
    return task


def check_regime(task: str | None, regime: str | None, kind: Kind | None = None) -> None:
    """Refuse a regime that a task has not.

    Args:
        task: its name; another is not looked at.
        regime: the same.
        kind: how the task meets the model; None: in its own manner.

    Raises:
        ValueError: naming those it has.
    """
    if task not in TASKS or regime not in REGIMES:
        return
    sizes = TASKS[task].sizes_as(kind or TASKS[task].kind)
    if regime not in sizes:
        has = ", ".join(sizes)
        raise ValueError(
            f"{option('regime', regime)}: {task} has {has}; --train-size=N takes any number"
        )
