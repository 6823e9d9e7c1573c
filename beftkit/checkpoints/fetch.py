"""Requests to the hub: only the bytes asked for, every answer checked, every refusal in one line.

They go through huggingface_hub's session, which knows proxies, certificates and offline mode. Its
own retries are not used: they log to stderr, close the session under other threads, and cannot
retry a body that was cut off half way.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from beftkit.checkpoints.header import shorten
from beftkit.checkpoints.local import Span, sift
from beftkit.checkpoints.manner import ALONE, Manner, asked_wait
from beftkit.errors import BeftError

THREADS = 8
ATTEMPTS = 3
FIRST_WAIT = 0.5  # seconds before the second attempt, doubled before the third
LONGEST_WAIT = 30  # seconds that a server may ask us to wait
REFUSALS = 8  # of one request, where somebody waits for all threads as long as the hub asks
SLOWEST = 1000  # bytes a second, once an answer takes three times as long as one may stay silent
_PASSING = (429, 500, 502, 503, 504)  # may be gone a second later
_EXPIRED = (400, 401, 403, 404, 410)  # what stores answer to a signed address that is too old
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_EMPTY_RANGE = re.compile(r"bytes \*/(\d+)")

T = TypeVar("T")


class Offline(Exception):
    """Offline mode forbids the request."""


class Expired(Exception):
    """A store no longer takes an address that the hub once led to."""


class _Passing(Exception):
    """Worth another attempt, after so many seconds if the server said so."""

    def __init__(self, problem: str, wait: float = 0.0, refused: bool = False) -> None:
        super().__init__(problem)
        self.wait, self.refused = wait, refused


class Part(NamedTuple):
    """A range of a file: what was kept of it, how many bytes came, the file's size, and where."""

    body: bytes
    came: int
    size: int
    url: str


class Connection:
    """The way to one repository. ``received`` counts bytes of bodies, in vain or not.

    Attributes:
        endpoint: the hub's address.
        repo: the repository, for messages.
        revision: what was asked for, for messages.
        requests: that were sent so far.
    """

    def __init__(self, repo: str, revision: str | None, manner: Manner = ALONE) -> None:
        from huggingface_hub import constants, errors

        self.endpoint: str = constants.ENDPOINT
        self.repo, self.revision = repo, revision
        self.received = self.requests = 0
        self._manner = manner
        self._timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        self._headers = _headers(repo)
        # The client is httpx2, or httpx before huggingface_hub 2: equal but for the name.
        self._client: Any = sys.modules[errors.HfHubHTTPError.__bases__[0].__module__.split(".")[0]]
        self._offline = errors.OfflineModeIsEnabled
        self._reached = False
        self._failure: BaseException | None = None
        self._stopped = threading.Event()  # ends pauses before another attempt
        self._lock = threading.Lock()

    def start(self, call: Callable[[], T]) -> Callable[[], T]:
        """Run a call beside others; what it returned, or raised, comes when it is asked for."""
        future = (self._manner.pool or _pool()).submit(self._guarded, call)
        return partial(self._guarded, future.result)  # Ctrl-C arrives in it

    def _guarded(self, call: Callable[[], T]) -> T:
        """Call unless something went wrong: what is still in the queue then shall not be sent."""
        try:
            if self._failure is not None:
                raise self._failure
            return call()
        except BaseException as error:
            self._failure = self._failure or error
            self._stopped.set()
            raise self._failure from None

    def whole(self, url: str, where: str, limit: int) -> bytes:
        """A small file or answer, whole."""
        return self.page(url, where, limit)[0]

    def page(self, url: str, where: str, limit: int) -> tuple[bytes, str | None]:
        """The same, and the address of the page that follows where an answer has several."""

        def read(response: Any) -> tuple[bytes, str | None]:
            self._status(response, where, 200)
            body = b"".join(self._chunks(response.iter_bytes(), limit, where))
            return body, response.links.get("next", {}).get("url")

        return self._insist(url, where, self._headers, read)

    def part(
        self,
        url: str,
        where: str,
        start: int,
        stop: int,
        *,
        direct: bool = False,
        keep: Sequence[Span] | None = None,
    ) -> Part:
        """Bytes ``start`` to ``stop`` of a file, or what there is of them.

        Args:
            url: the file.
            where: the same, for messages.
            start: first byte.
            stop: the byte after the last.
            direct: the address is that of a store: it is told no token and may be too old.
            keep: sorted ranges within it that are kept, one after the other; None: all of it.

        Raises:
            Expired: it was.
        """

        def read(response: Any) -> Part:
            if direct and response.status_code in _EXPIRED:
                raise Expired
            if response.status_code == 416 and (
                match := _EMPTY_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            ):
                return Part(b"", 0, int(match[1]), str(response.url))
            if response.status_code == 200:  # the body, gigabytes perhaps, is left unread
                raise BeftError(
                    f"{where}: the server sends whole files only, not parts of them; --download "
                    "fetches the file into the cache and reads it there",
                    "refused",
                )
            self._status(response, where, 206)
            size, end = self._range(response, where, start, stop)
            came = 0

            def counted() -> Iterator[bytes]:
                nonlocal came
                for chunk in self._chunks(response.iter_raw(), end - start, where):
                    came += len(chunk)
                    yield chunk

            body = b"".join(counted() if keep is None else sift(counted(), start, keep))
            if came != end - start:
                raise _Passing(f"an answer of {end - start} bytes ended after {came}")
            return Part(body, came, size, str(response.url))

        # A range of a compressed file would be of no use.
        asked = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        headers = {**self._headers, **asked}
        if direct:
            headers.pop("Authorization", None)
        return self._insist(url, where, headers, read)

    def _insist(self, url: str, where: str, headers: dict[str, str], read: Callable[[Any], T]) -> T:
        """Ask until there is an answer, or a reason to ask no more."""
        from huggingface_hub import get_session

        options: dict[str, Any] = {"timeout": self._timeout, "follow_redirects": True}
        client, pause, traffic = self._client, FIRST_WAIT, self._manner.traffic
        attempt = refusals = 0
        while True:
            attempt, wait = attempt + 1, 0.0
            try:
                with (
                    traffic.passage(url) as answered,
                    get_session().stream("GET", url, headers=headers, **options) as response,
                ):
                    with self._lock:
                        self._reached, self.requests = True, self.requests + 1
                    for one in (*response.history, response):
                        answered(one)
                    return read(response)
            except _Passing as error:
                problem, wait = str(error), error.wait
                if error.refused and traffic.waits and refusals < REFUSALS:
                    attempt, refusals = attempt - 1, refusals + 1
                    continue
            except self._offline:
                raise Offline from None
            except client.TimeoutException:
                problem = f"no answer from {self.endpoint} within {self._timeout:g} s"
            except client.ConnectError as error:
                problem = f"{self.endpoint} cannot be reached ({_brief(error)})"
            except (client.NetworkError, client.RemoteProtocolError) as error:
                problem = f"the connection was cut ({_brief(error)})"
            except (client.HTTPError, client.InvalidURL, UnicodeError) as error:
                told = f"{where}: the request failed ({_brief(error)})"
                raise BeftError(told, "refused") from None
            # Without a first answer nobody is there, and more waiting only hides that.
            hopeless = not self._reached or wait > LONGEST_WAIT or attempt == ATTEMPTS
            if hopeless or self._stopped.wait(wait or pause):
                break
            pause *= 2
        raise BeftError(f"{where}: {problem}; try again later", "unreachable")

    def _chunks(self, chunks: Iterator[bytes], limit: int, where: str) -> Iterator[bytes]:
        """The pieces of a body, counted; more than the limit is refused, and what only drips."""
        begun, came = time.monotonic(), 0
        for chunk in chunks:
            took, came = time.monotonic() - begun, came + len(chunk)
            if took > 3 * self._timeout and came < SLOWEST * took:
                raise _Passing(f"the answer only drips ({came} bytes in {took:.0f} s)")
            with self._lock:
                self.received += len(chunk)
            limit -= len(chunk)
            if limit < 0:
                raise BeftError(f"{where}: the server sends more than was asked for", "refused")
            yield chunk

    def _range(self, response: Any, where: str, start: int, stop: int) -> tuple[int, int]:
        """The file's size, and the end of the range that follows: no more, no other than asked."""
        said = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(said)
        if match:
            first, last, size = map(int, match.groups())
            if first == start and last + 1 == min(stop, size):
                encoding = response.headers.get("Content-Encoding", "identity")
                if encoding == "identity":
                    return size, last + 1
                said = f"{said}, encoded as {encoding}"
        raise BeftError(
            f"{where}: asked for bytes {start}-{stop - 1}, the server answers with "
            f"{shorten(said or 'no Content-Range', 60)}; --download may do",
            "refused",
        )

    def _status(self, response: Any, where: str, wanted: int) -> None:
        """Let the wanted status pass; anything else is refused in words."""
        status, headers = response.status_code, response.headers
        if status == wanted:
            return
        if status in _PASSING:
            busy = "too many requests" if status == 429 else f"the hub answers {status}"
            raise _Passing(busy, asked_wait(status, headers), status == 429)
        code, message = headers.get("X-Error-Code"), headers.get("X-Error-Message", "")
        page, login = f"{self.endpoint}/{self.repo}", "log in with `hf auth login`"
        token, kind = "Authorization" in self._headers, "refused"
        if code == "GatedRepo":
            kind = "gated"
            text = f"{self.repo}: gated; accept its terms at {page} and {login}"
        elif code == "RevisionNotFound":
            kind = "gone"
            text = f"{self.repo}: no revision {shorten(str(self.revision))} in this repository"
        elif code == "EntryNotFound":
            kind = "gone"
            text = f"{where}: no such file in the repository"
        elif status == 401 and ("credentials" in message or (token and not code)):
            text = f"{self.repo}: the hub refuses the token (401); {login} again, or unset HF_TOKEN"
        elif code == "RepoNotFound" or status in (401, 404):  # 401: what one may not even know of
            kind = "gone"
            whose = "or the token may not see it" if token else f"or private: then {login}"
            text = f"{self.repo}: no such repository at {self.endpoint}, {whose}"
        elif status == 403:
            kind = "gated"
            said = f" ({shorten(message, 100)})" if message else ""
            text = f"{where}: access refused{said}; accept the terms at {page}, or {login}"
        else:
            text = f"{where}: the server answers {status}; is {self.endpoint} a hub?"
        raise BeftError(text, kind)


def _headers(repo: str) -> dict[str, str]:
    """Who asks. Not huggingface_hub's own headers: making those asks the hub about telemetry."""
    from huggingface_hub import constants, get_token

    from beftkit import __version__

    headers = {"User-Agent": f"beftkit/{__version__}"}
    try:
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    except OSError as error:  # a token file that cannot be read, a login that cannot be renewed
        raise BeftError(f"{repo}: no usable token ({_brief(error)}); log in again") from None
    return {**headers, "Authorization": f"Bearer {token}"} if token else headers


def _brief(error: Exception) -> str:
    return shorten(" ".join(str(error).split()) or type(error).__name__, 100)


@cache
def _pool() -> ThreadPoolExecutor:
    """One for all repositories: their requests share the bound."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="beftkit-hub")
