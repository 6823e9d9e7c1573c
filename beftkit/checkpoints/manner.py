"""How a hub is asked: by one reader alone, or by many threads under one gate."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from beftkit.checkpoints.header import MAX_HEADER

#: ``"resolvers";r=12;t=55``: so many requests are left for so many seconds (IETF draft of 2025)
_RATE = re.compile(
    r'"(?P<what>[\w-]+)"\s*;\s*r\s*=\s*(?P<left>\d{1,9})\s*;\s*t\s*=\s*(?P<t>\d{1,9})'
)
#: ``"fixed window";"resolvers";q=3000;w=300``: of so many in so many seconds
_POLICY = re.compile(r"q\s*=\s*(?P<limit>\d{1,9}).*?w\s*=\s*(?P<window>\d{1,9})")
#: a hub's configuration or index, and its listings, are never larger
_JSON_LIMIT = 100_000_000


@dataclass(frozen=True)
class Rate:
    """What an answer says of the requests that are left.

    Attributes:
        what: of which kind they are: ``resolvers`` (files), ``api``, ...
        left: how many.
        seconds: for how long.
        limit: how many there are in a window; None: it does not say.
        window: seconds of a window; None: it does not say.
    """

    what: str
    left: int
    seconds: int
    limit: int | None = None
    window: int | None = None


def parse_rate(headers: Mapping[str, str]) -> Rate | None:
    """What the headers ``RateLimit`` and ``RateLimit-Policy`` say, or None."""
    found = _RATE.search(headers.get("RateLimit", ""))
    if not found:
        return None
    policy = _POLICY.search(headers.get("RateLimit-Policy", ""))
    limit, window = (int(policy["limit"]), int(policy["window"])) if policy else (None, None)
    return Rate(found["what"], int(found["left"]), int(found["t"]), limit, window)


def asked_wait(status: int, headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks us to wait, 0 where it does not.

    ``Retry-After`` says it in seconds or as a date; an answer 429 without one may say for how long
    no request is left.
    """
    again = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", again, re.ASCII):
        return float(again)
    if again:
        try:
            return max(parsedate_to_datetime(again).timestamp() - time.time(), 0.0)
        except (ValueError, TypeError, OverflowError):
            return 0.0
    rate = parse_rate(headers) if status == 429 else None
    return float(rate.seconds) if rate and not rate.left else 0.0


class Traffic(Protocol):
    """Whoever lets requests through, and learns from the answers.

    Attributes:
        waits: whether a refused request may be sent again at once, since it is held back as long as
            the hub asks.
    """

    waits: bool

    def passage(self, url: str) -> Any:
        """A context in which one request is sent; gives what is told of each answer.

        It is entered once the request may be sent.
        """
        ...


class Free:
    """Lets all through."""

    waits = False

    @contextmanager
    def passage(self, url: str) -> Iterator[Callable[[Any], None]]:
        """At once."""
        del url
        yield lambda response: None


@dataclass(frozen=True)
class Manner:
    """How hub files are asked for.

    Attributes:
        traffic: lets requests through.
        pool: sends them; None: the one that all share.
        header_bytes: how much of a file is asked for at first; 8 tell how long its header is.
        longest_header: bytes; a longer one is refused.
        longest_json: bytes of a configuration or an index; a longer one is refused.
        spare: bytes of a file that may be fetched in vain where that saves requests.
    """

    traffic: Traffic = field(default_factory=Free)
    pool: Executor | None = None
    header_bytes: int = 0
    longest_header: int = MAX_HEADER
    longest_json: int = _JSON_LIMIT
    spare: Callable[[], int] = int


ALONE = Manner()
