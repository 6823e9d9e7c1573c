"""Progress on a stream: bars on a terminal and in a notebook, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TextIO

from beftkit.edges import printable
from beftkit.errors import UsageError
from beftkit.watching import Unwatched, Watcher

#: seconds between two drawings of the bars
_BARS = 0.1
#: a line is written after so many seconds, if such a share more is done or so long nothing was said
_LINES, _SHARE, _SILENCE = 30.0, 0.02, 600.0
#: seconds before a time that is left is told, and before work inside a run gets a bar of its own
_SETTLED, _LONG = 2.0, 1.0


@dataclass
class _Work:
    """What is going on: ``fresh`` of its steps were done here, the others before."""

    title: str
    steps: int
    done: int
    since: float
    fresh: int = 0

    def left(self, now: float) -> float | None:
        """Seconds to its end, at the speed so far; None: not known yet."""
        if not self.fresh or not self.steps or now - self.since < _SETTLED:
            return None
        return max(self.steps - self.done, 0) * (now - self.since) / self.fresh

    def counted(self) -> str:
        """How much of it is done."""
        return f"{self.done:,}" + (f" of {self.steps:,}" if self.steps else "")


class Display:
    """A watcher that shows what it is told.

    Args:
        stream: where to; None: stderr.
        quiet: show nothing.
        clock: gives seconds.

    Attributes:
        running: whether a run has begun.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self.quiet, self.running = quiet or self._stream is None, False
        self._clock = clock
        self._has_bars = not self.quiet and (self._stream.isatty() or _in_notebook())
        self._bars: Any = None
        self._jobs: dict[str, Any] = {}
        self._whole: _Work | None = None
        self._work: _Work | None = None
        self._within: _Work | None = None
        self._behind, self._begins = 0, False
        self._due = 0.0
        self._said, self._share = clock(), 0.0

    def reached(self, run: int, runs: int, behind: int, steps: int) -> None:
        self._work = self._within = None
        if behind >= steps:
            self._whole = None
            self._drop("whole", "work")
            return
        if self._whole is None:
            self._whole = _Work("", steps, behind, self._clock())
            self._share = 0.0
        self._whole.title, self._whole.done, self._behind = f"run {run} of {runs}", behind, behind
        self._begins = True

    def started(self, title: str, steps: int, done: int) -> None:
        self.running = True
        self._work, self._within = _Work(title, steps, done, self._clock()), None
        self._drop("work", "within")
        if self._whole is None:
            self._share = done / steps if steps else 0.0
        elif self._begins and not self._has_bars:
            left = self._whole.left(self._clock())
            more = "" if left is None else f" (all of it: {duration(left)} left)"
            self.note(f"{self._whole.title}: {title}{more}")
        self._begins = False
        self._advance(0)
        self._draw(self._clock())

    def advanced(self, steps: int) -> None:
        self._advance(steps)
        now = self._clock()
        if now >= self._due:
            self._draw(now)

    def _advance(self, steps: int) -> None:
        work, whole = self._work, self._whole
        if work is None:
            return
        work.done, work.fresh = work.done + steps, work.fresh + steps
        if whole is not None:
            whole.done, whole.fresh = self._behind + work.done, whole.fresh + steps

    def inside(self, title: str, done: int, steps: int) -> None:
        now = self._clock()
        if self._within is None:
            self._within = _Work(title, steps, 0, now)
        self._within.fresh += done - self._within.done
        self._within.done = done
        if done >= steps:
            self._within = None
            self._drop("within")
        elif now >= self._due:
            self._draw(now)

    def logged(self, record: Mapping[str, Any]) -> None:
        line = "" if self.quiet else record_line(record)
        if line:
            self.note(line)

    def note(self, text: str) -> None:
        if self.quiet:
            return
        if self._bars is not None:
            plain = {"markup": False, "highlight": False, "soft_wrap": True, "emoji": False}
            self._bars.console.print(printable(text), **plain)
        else:
            self._stream.write(f"{printable(text)}\n")
            self._stream.flush()

    def close(self) -> None:
        """Take the bars away."""
        self.running = False
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._jobs.clear()

    def _draw(self, now: float) -> None:
        if self.quiet:
            return
        if not self._has_bars:
            self._due = now + 1.0
            self._line(now)
            return
        self._due = now + _BARS
        if self._bars is None:
            self._bars = _bars(self._stream)
            self._bars.start()
        for name, work in (("whole", self._whole), ("work", self._work), ("within", self._within)):
            if work is None or (name == "within" and now - work.since < _LONG):
                continue
            left = work.left(now)
            shown = {"count": work.counted(), "left": "" if left is None else duration(left)}
            how = {"total": work.steps or None, "completed": work.done, **shown}
            title = printable(work.title)
            if name in self._jobs:
                self._bars.update(self._jobs[name], description=title, **how)
            else:
                self._jobs[name] = self._bars.add_task(title, **how)

    def _drop(self, *names: str) -> None:
        for name in names:
            if name in self._jobs:
                self._bars.remove_task(self._jobs.pop(name))

    def _line(self, now: float) -> None:
        """Say where it is, unless that was said a moment ago."""
        first = self._whole or self._work
        if first is None or now - self._said < _LINES:
            return
        share = first.done / first.steps if first.steps else 0.0
        if share - self._share < _SHARE and now - self._said < _SILENCE:
            return
        self._said, self._share = now, share
        words = []
        for work in (self._whole, self._work, self._within):
            if work is not None:
                left = work.left(now)
                words.append(
                    f"{work.title}: {work.counted()}"
                    + (f", {100 * work.done / work.steps:.0f} %" if work.steps else "")
                    + ("" if left is None else f", {duration(left)} left")
                )
        self.note("; ".join(words))


@contextmanager
def displayed(progress: bool, watcher: Watcher | None = None) -> Iterator[Watcher]:
    """Whoever shall be told: the watcher that was given, bars on stderr, or nobody.

    Args:
        progress: show bars, or lines; by the first of several processes alone.
        watcher: instead.

    Raises:
        UsageError: both were given.
    """
    if progress and watcher is not None:
        raise UsageError("progress and watcher were both given; expected one of them")
    if not progress:
        yield watcher or Unwatched()
        return
    bars = Display(quiet=not is_main())
    try:
        yield bars
    finally:
        bars.close()


def is_main() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def duration(seconds: float) -> str:
    """A time as a person says it: ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def record_line(record: Mapping[str, Any]) -> str:
    """A line of the log as a person reads it; empty for what only a file should hold."""
    begin = f"step {record['step']}"
    if "epoch" in record:
        begin += f", epoch {record['epoch']:g}"
    if "metrics" in record:
        return f"{begin}: {', '.join(_named(record['metrics']))}"
    if "lr" not in record:
        return ""
    speed = record["examples_per_second"]
    return (
        f"{begin}: loss {_fixed(record['loss'])}, lr {record['lr']:.3g}, "
        f"gradient {_fixed(record['grad_norm'])}"
        + (f", {speed:.0f} examples/s" if speed else "")
        + (f"; projection {' '.join(_named(record['scores']))}" if record["scores"] else "")
    )


def _named(values: Mapping[str, float | None]) -> list[str]:
    return [f"{name} {_fixed(value)}" for name, value in values.items()]


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    texts = ("{task.description}", "{task.fields[count]}", "{task.fields[left]}")
    title, count, left = (TextColumn(text, markup=False) for text in texts)
    # In a notebook rich finds out by itself, and draws in the cell. What others print on stdout
    # stays there, what they say on stderr comes above the bars.
    how: dict[str, Any] = {"console": Console(file=stream), "transient": True}
    return Progress(title, BarColumn(), count, left, redirect_stdout=False, **how)


def _in_notebook() -> bool:
    """Whether rich can draw in a notebook's cell, for which it needs ipywidgets."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter and find_spec("ipywidgets") is not None
