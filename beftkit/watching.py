"""Whoever looks on while something takes its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Watcher(Protocol):
    """Whoever is told how work goes on: what ``watcher=`` takes.

    Subclass `Unwatched`, which does nothing, and write the methods that you want. They are called
    between two updates or batches, so what they take is added to the run; nothing waits for the
    device on their account, which may be some batches behind. An exception ends the run. Of several
    processes each has a watcher of its own; give one to the first alone.
    """

    def reached(self, run: int, runs: int, behind: int, steps: int) -> None:
        """Run ``run`` (from 1) of ``runs`` begins: a seed, a cell's run, a head or a snapshot.

        ``behind`` of ``steps`` steps of all runs together lie behind; all of them: it is over.
        Where there is one run, this is not called.
        """

    def started(self, title: str, steps: int, done: int) -> None:
        """Work of ``steps`` steps begins, of which ``done`` were done before (a run taken up).

        Steps are a run's updates, and batches of an evaluation or a Fisher measurement; 0: nobody
        knows how many. What was started before is over.
        """

    def advanced(self, steps: int) -> None:
        """So many steps more of what was started last."""

    def inside(self, title: str, done: int, steps: int) -> None:
        """Work within a run that is no update: ``done`` of ``steps`` batches of an evaluation.

        All of them: it is over.
        """

    def logged(self, record: Mapping[str, Any]) -> None:
        """A line was added to the log: on updates (with ``lr``), an evaluation (``metrics``), or
        scores alone.
        """

    def note(self, text: str) -> None:
        """Something the user should know."""


def never() -> int:
    """Nobody asks to stop."""
    return 0


class Unwatched:
    """Nobody looks on: the base of watchers that want some of what `Watcher` is told."""

    def reached(self, run: int, runs: int, behind: int, steps: int) -> None:
        """Nothing."""

    def started(self, title: str, steps: int, done: int) -> None:
        """Nothing."""

    def advanced(self, steps: int) -> None:
        """Nothing."""

    def inside(self, title: str, done: int, steps: int) -> None:
        """Nothing."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Inside(Unwatched):
    """Tells of work within a run, so that its steps are not taken for the run's own."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._title, self._done, self._steps = watcher, "", 0, 0

    def started(self, title: str, steps: int, done: int) -> None:
        self._title, self._done, self._steps = title, done, steps
        self._watcher.inside(title, done, steps)

    def advanced(self, steps: int) -> None:
        self._done += steps
        self._watcher.inside(self._title, self._done, self._steps)


def told(watcher: Watcher, batches: Iterable[T]) -> Iterator[T]:
    """The batches, each told as a step once the next one is asked for."""
    for batch in batches:
        yield batch
        watcher.advanced(1)
