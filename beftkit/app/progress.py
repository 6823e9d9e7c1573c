"""What a person at a run sees of it, and how one stops it: progress on stderr, signals."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import typer

from beftkit.app.common import say
from beftkit.edges import printable

T = TypeVar("T")
IS_MAIN = os.environ.get("RANK", "0") == "0"  # torchrun's
#: torchrun hands on a Ctrl-C that the terminal gave every process already: seconds that are one
_ONE_SIGNAL = 5.0 if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0.0


class Shown:
    """Progress on stderr: a bar on a terminal, lines elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.running = quiet, False
        self._bar: Any = None
        self._job: Any = None

    def started(self, title: str, steps: int, done: int) -> None:
        self.running = True
        if self.quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        self.close()
        self.running = True
        columns = *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
        self._bar.start()
        self._job = self._bar.add_task(escape(printable(title)), total=steps, completed=done)

    def advanced(self, steps: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._job, steps)

    def logged(self, record: Mapping[str, Any]) -> None:
        from beftkit.present.training import record_line

        line = record_line(record)
        if line:
            self.note(line)

    def note(self, text: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            say([text])

    def close(self) -> None:
        """Take the bar away."""
        self.running = False
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Signals:
    """SIGINT and SIGTERM ask a run to save and stop; a second one, or one before it, ends it."""

    def __init__(self, shown: Shown) -> None:
        self._shown, self._number, self._first = shown, 0, 0.0
        self._former: dict[int, Any] = {}

    def asked(self) -> int:
        """The signal that came, or 0."""
        return self._number

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _came(self, number: int, _: object) -> None:
        now = time.monotonic()
        if not self._shown.running or (self._number and now - self._first > _ONE_SIGNAL):
            self._shown.close()
            raise SystemExit(128 + number)
        if not self._number:
            self._number, self._first = number, now


def watched(run: Callable[..., T], quiet: bool, stopped: str) -> T:
    """A run under a bar or lines, and under signals.

    Args:
        run: is given ``watcher`` and ``asked_to_stop``.
        quiet: show nothing.
        stopped: to be said if it was asked to stop; its exit code is then the signal's.
    """
    from beftkit.training.trainer import Interrupted

    watcher = Shown(quiet or not IS_MAIN)
    with Signals(watcher) as signals:
        try:
            return run(watcher=watcher, asked_to_stop=signals.asked)
        except Interrupted as stop:
            watcher.close()
            if IS_MAIN:
                say([stopped])
            raise typer.Exit(128 + stop.signal) from None
        finally:
            watcher.close()
