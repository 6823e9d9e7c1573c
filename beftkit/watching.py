"""Whoever looks on while something takes its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Watcher(Protocol):
    """Whoever shows a run while it goes on."""

    def started(self, title: str, steps: int, done: int) -> None:
        """A run of so many updates begins, of which some are done."""

    def advanced(self, steps: int) -> None:
        """So many updates more."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """A line was added to the log."""

    def note(self, text: str) -> None:
        """Something the user should know."""


def never() -> int:
    """Nobody asks to stop."""
    return 0


class Unwatched:
    """Nobody looks on."""

    def started(self, title: str, steps: int, done: int) -> None:
        """Nothing."""

    def advanced(self, steps: int) -> None:
        """Nothing."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
