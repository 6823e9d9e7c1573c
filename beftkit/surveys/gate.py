"""One gate for all requests to a hub: as many as it grants, spread over the time they are for.

A hub counts requests in windows (3,000 files in five minutes, say), tells in every answer how many
are left, and refuses the rest. Requests to the stores that it redirects to are not counted, and
pass freely.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from beftkit.checkpoints.manner import asked_wait, parse_rate
from beftkit.errors import BeftError
from beftkit.progress import duration

#: seconds for which all threads wait, if a hub asks for so many; for more nobody does
LONGEST = 900.0
#: failures in a row after which all threads pause, and for how many seconds at first and at most
_PATIENCE, _PAUSE, _LONGEST_PAUSE = 4, 1.0, 60.0
#: a wait that is told to whoever looks on, in seconds
_TOLD = 5.0
#: how long a wait goes on until it is looked whether somebody has asked to stop
_LOOK = 0.2


class Stopped(Exception):
    """Whoever sends requests was asked to stop."""


@dataclass
class _Window:
    """Requests of one kind, as far as the hub told; times are those of the gate's clock."""

    left: float = 0.0
    ends: float = 0.0
    limit: int | None = None
    length: float | None = None
    known: bool = False
    next: float = 0.0  # when the next request may pass
    blocked: float = 0.0  # until when none may
    under_way: int = 0
    wanted: float = 0.0  # how many more are expected
    refused: int = 0


class Gate:
    """Lets requests to one hub through.

    Where all that is wanted fits into what is left, requests pass at once; else evenly, what is
    left over the time it is left for.

    Args:
        endpoint: the hub's address; requests to others pass.
        note: is told of waits.
        clock: gives seconds.
        sleep: waits for so many of them.

    Attributes:
        sent: requests so far.
        refused: how often the hub answered 429.
        waits: a refused request may be sent again at once: it is held back here.
    """

    waits = True

    def __init__(
        self,
        endpoint: str,
        note: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._host, self._note = urlsplit(endpoint).netloc, note
        self._clock, self._sleep = clock, sleep
        self._windows = {"api": _Window(), "files": _Window()}
        self._lock = threading.Lock()
        self._stopped = False
        self._failed = 0
        self._told = 0.0
        self.sent = self.refused = 0

    def stop(self) -> None:
        """Let nobody through any more."""
        self._stopped = True

    def expect(self, requests: float) -> None:
        """Say how many requests for files are still to come, nearly."""
        with self._lock:
            self._windows["files"].wanted = requests

    def scarce(self) -> bool:
        """Whether fewer requests for files are left than are wanted: each one then costs time."""
        with self._lock:
            window = self._windows["files"]
            self._turn(window, self._clock())
            return window.known and window.wanted > window.left

    def left(self) -> tuple[int, int | None, float] | None:
        """Requests for files that are left, of how many, for how many seconds; None: not told."""
        with self._lock:
            window, now = self._windows["files"], self._clock()
            self._turn(window, now)
            if not window.known:
                return None
            return max(int(window.left), 0), window.limit, max(window.ends - now, 0.0)

    def seconds(self, requests: float) -> float | None:
        """How long so many requests for files take at what the hub grants; None: no limit known."""
        with self._lock:
            window, now = self._windows["files"], self._clock()
            self._turn(window, now)
            if not window.known or not window.limit or not window.length:
                return None
            if requests <= window.left:
                return 0.0
            rest = window.ends - now
            return rest + max(requests - window.left, 0.0) * window.length / window.limit

    @contextmanager
    def passage(self, url: str) -> Iterator[Callable[[Any], None]]:
        """A context in which one request is sent; gives what is told of each answer.

        Raises:
            Stopped: nobody shall send any more.
            BeftError: the hub asks to wait longer than anybody would.
        """
        parts = urlsplit(url)
        if parts.netloc != self._host:
            if self._stopped:
                raise Stopped
            yield lambda response: None
            return
        window = self._windows["api" if parts.path.startswith("/api/") else "files"]
        self._enter(window)
        under_way = True

        def answered(response: Any) -> None:
            nonlocal under_way
            if response.url.netloc.decode() == self._host:
                with self._lock:
                    window.under_way -= under_way
                    under_way = False
                    self._learn(window, response.status_code, response.headers)

        try:
            yield answered
        finally:
            if under_way:
                with self._lock:
                    window.under_way -= 1

    def _enter(self, window: _Window) -> None:
        """Wait for a request to be granted, then for its moment."""
        moment: float | None = None
        while True:
            with self._lock:
                try:
                    if self._stopped:
                        raise Stopped
                    now = self._clock()
                    wait = window.blocked - now
                    if wait <= 0 and moment is None:
                        moment, wait = self._grant(window, now)
                    if moment is not None:
                        wait = max(moment - now, wait)
                        if wait <= 0:
                            self.sent += 1
                            return
                    if wait > LONGEST:
                        raise BeftError(
                            f"the hub asks to wait for {duration(wait)}; try again then",
                            "unreachable",
                        )
                except BaseException:
                    window.under_way -= moment is not None
                    raise
            self._sleep(min(wait, _LOOK))

    def _grant(self, window: _Window, now: float) -> tuple[float | None, float]:
        """The moment for one request more; or None, and how long there is none."""
        self._turn(window, now)
        if window.known and window.left < 1:
            return None, max(window.ends - now, 0.001)
        moment = now
        if window.known and window.wanted > window.left:
            pace = max(window.ends - max(now, window.next), 0.0) / window.left
            # Two late ones may follow each other at once; what is left in the end is spread again.
            moment = max(window.next, now - pace)
            window.next = moment + pace
        window.left -= 1
        window.wanted = max(window.wanted - 1, 0.0)
        window.under_way += 1
        return moment, 0.0

    @staticmethod
    def _turn(window: _Window, now: float) -> None:
        """A window that is over is followed by the next; an answer will say when that ends."""
        if window.known and now >= window.ends:
            if window.limit is None or window.length is None:
                window.known = False
                return
            window.left = window.limit - window.under_way
            window.ends = now + window.length
            window.next = now

    def _learn(self, window: _Window, status: int, headers: Any) -> None:
        now = self._clock()
        if rate := parse_rate(headers):
            if rate.limit and rate.window:
                window.limit, window.length = rate.limit, float(rate.window)
            # Seconds are whole ones: the end is taken for as late as it can be, until a later
            # answer tells better. Requests under way may not be counted yet.
            ends, left = now + rate.seconds + 1.0, float(rate.left - window.under_way)
            if not window.known or ends > window.ends + 1.5:
                window.ends, window.left, window.known = ends, left, True
            else:
                window.ends, window.left = min(window.ends, ends), min(window.left, left)
        if status == 429:
            self.refused += 1
            window.refused += now >= window.blocked  # those under way are refused as well
            pause = asked_wait(status, headers) or min(_PAUSE * 2**window.refused, _LONGEST_PAUSE)
            self._block(window, now, pause, "the hub refuses more requests")
            return
        if status < 500:
            window.refused = self._failed = 0
            return
        self._failed += now >= window.blocked
        if self._failed >= _PATIENCE or asked_wait(status, headers):
            pause = min(_PAUSE * 2 ** (self._failed - _PATIENCE), _LONGEST_PAUSE)
            pause = asked_wait(status, headers) or pause
            self._block(window, now, pause, f"the hub answers {status}")

    def _block(self, window: _Window, now: float, pause: float, why: str) -> None:
        until = now + pause
        if until <= window.blocked:
            return
        window.blocked = until
        if pause >= _TOLD and now >= self._told:
            self._told = until
            self._note(f"{why}: waiting {duration(pause)}")
