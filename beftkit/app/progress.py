"""What a person at a run sees of it, and how one stops it: progress on stderr, signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from beftkit.app.common import say
from beftkit.progress import Display, is_main

T = TypeVar("T")
IS_MAIN = is_main()
#: torchrun hands on a Ctrl-C that the terminal gave every process already: seconds that are one
_ONE_SIGNAL = 5.0 if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0.0


class Signals:
    """SIGINT and SIGTERM ask a run to save and stop; a second one, or one before it, ends it."""

    def __init__(self, shown: Display) -> None:
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

    watcher = Display(quiet=quiet or not IS_MAIN)
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


def looked_at(run: Callable[..., T], quiet: bool) -> T:
    """Work that leaves nothing behind before its end, under bars or lines; Ctrl-C ends it.

    Args:
        run: is given ``watcher``.
        quiet: show nothing.
    """
    watcher = Display(quiet=quiet or not IS_MAIN)
    try:
        return run(watcher=watcher)
    finally:
        watcher.close()
