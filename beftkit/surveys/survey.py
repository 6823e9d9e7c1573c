"""A whole survey: list, score side by side under one gate, keep a row of each model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from beftkit.biases import load_table
from beftkit.checkpoints.manner import Manner
from beftkit.errors import BeftError, Refusal, UsageError, option
from beftkit.progress import displayed, duration
from beftkit.spelling import meant
from beftkit.surveys.gate import Gate
from beftkit.surveys.ledger import Ledger
from beftkit.surveys.listing import SORTS, Listed, list_models, place_of
from beftkit.surveys.results import Survey, read
from beftkit.surveys.rows import PASSING, ROWS, Head, Row, is_survey, read_rows
from beftkit.surveys.scoring import METHOD, Base, Done, now
from beftkit.watching import Watcher, never

#: requests under way at once, and models; the requests of a model wait for each other
CONNECTIONS, MODELS = 24, 6
#: requests that a model is thought to take before any is done: a sharded one with 84 biases
_REQUESTS = 95
#: rows, and seconds, after which those that are done are written
_ROWS, _SECONDS = 16, 0.5
#: seconds between two words on how many requests are left
_TELL = 30.0


#: of the hub's list: how many, and sorted by what; bytes of a model that may be fetched in vain
LIMIT, SORT, MAX_BYTES = 200, "downloads", 64_000_000


class Interrupted(Exception):
    """The survey was asked to stop by a signal, and has: its rows are kept.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


def survey(
    base: str,
    references: Sequence[str] | None = None,
    *,
    output: str | Path,
    limit: int | None = LIMIT,
    sort: str = SORT,
    task: str | None = None,
    max_bytes: int = MAX_BYTES,
    tower: str | None = None,
    families: str | Path | None = None,
    download: bool = False,
    resume: bool = False,
    watcher: Watcher | None = None,
    progress: bool = False,
    asked_to_stop: Callable[[], int] | None = None,
) -> Survey:
    """Score many fine-tunes of one base against it, and keep a row of each.

    Of a model on the hub only headers and biases are read. Whatever comes of it is a row: nothing
    but a full disk stops a survey, and none of what is done is lost when it is stopped.

    Args:
        base: what they were made from: ``owner/name[@revision]`` on the hub, or a checkpoint here.
        references: which models: names on the hub, folders, files; None: those that the hub lists
            as fine-tuned from the base, under its present and its old id.
        output: folder to keep it in.
        limit: how many of the hub's list; None: all.
        sort: by what the hub sorts them, most first: ``downloads``, ``likes``, ``lastModified``,
            ``createdAt`` or ``trendingScore``.
        task: of the hub's list those of this task (``text-classification``) alone.
        max_bytes: how many bytes of a model may be fetched in vain, where the hub grants so few
            requests that larger ones save time.
        tower: which tower of several, as for `beftkit.score`.
        families: a TOML file with rows for families that beftkit does not know.
        download: fetch whole weight files into the cache, ``.bin`` too.
        resume: go on with a survey in ``output``: models that are not there, that could not be
            reached, and those whose commit moved.
        watcher: told how it goes (`beftkit.Watcher`).
        progress: show that on stderr instead.
        asked_to_stop: the number of a signal once one came; then `Interrupted` is raised.

    Returns:
        All its rows, old and new, and what they come to.

    Raises:
        BeftError: the base cannot be read, or the hub lists nothing; nobody lists for files here.
        Refusal: ``output`` holds a survey already, or another process writes there.

    Example:
        >>> found = survey("google-bert/bert-base-cased", output="bert")  # doctest: +SKIP
        >>> found.to_pandas()  # doctest: +SKIP
    """
    asked = {"limit": limit, "sort": sort, "task": task, "tower": tower, "download": download}
    asked |= {"max_bytes": max_bytes, "families": None if families is None else str(families)}
    asked["listed"] = references is None
    _check(base, references, asked)
    folder = Path(output)
    with displayed(progress, watcher) as looking, _kept(folder, resume) as held:
        work = _Work(folder, held, looking, asked_to_stop or never)
        work.run(base, references, asked, load_table(families))
    return read(folder)


def _check(base: str, references: Sequence[str] | None, asked: Mapping[str, Any]) -> None:
    limit, sort, most = asked["limit"], asked["sort"], asked["max_bytes"]
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UsageError(f"{option('limit', limit)}: expected a number from 1")
    if sort not in SORTS:
        raise UsageError(
            f"{option('sort', sort)}: expected one of {', '.join(SORTS)}{meant(sort, SORTS)}"
        )
    if type(most) is not int or most < 0:
        raise UsageError(f"{option('max_bytes', most)}: expected a number of bytes from 0")
    if isinstance(references, str):
        raise UsageError(f"{references}: expected a list of references, not one")
    if references is not None:
        usual = {"limit": (LIMIT, None), "sort": (SORT,), "task": (None,)}
        for name, values in usual.items():
            if asked[name] not in values:
                raise UsageError(
                    f"{option(name, asked[name])}: is of what the hub lists, and the models were "
                    "named here; leave it out"
                )
    if references is None and Path(base).exists():
        raise UsageError(
            f"{base}: is here, not on the hub, which therefore lists nothing made from it; name "
            "the models, as by `beftkit survey BASE --from FILE`, with a reference a line, or a "
            "folder of checkpoints"
        )


@contextmanager
def _kept(folder: Path, resume: bool) -> Iterator[tuple[Head, tuple[Row, ...]] | None]:
    """The folder, for this process alone, and what it holds of a survey that is taken up."""
    from beftkit.runs.locks import occupied  # which has torch beside it

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    with occupied(folder):
        begun = is_survey(folder) and _has_line(folder / ROWS)
        if begun and not resume:
            raise Refusal(
                f"{folder}: holds a survey already; --resume goes on with it, else give another "
                "--output"
            )
        yield read_rows(folder) if begun else None


def _has_line(path: Path) -> bool:
    """Whether a survey's first line is whole: else it was killed before it had any."""
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


@dataclass
class _Work:
    folder: Path
    held: tuple[Head, tuple[Row, ...]] | None
    watcher: Watcher
    asked_to_stop: Callable[[], int]
    _left: int = 0
    _done: int = 0
    _told: float = field(default_factory=time.monotonic)

    def run(
        self, reference: str, references: Sequence[str] | None, asked: dict[str, Any], table: Any
    ) -> None:
        """Read the base, list, and score."""
        from huggingface_hub import constants

        self.gate = Gate(constants.ENDPOINT, note=self.watcher.note)
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="beftkit-survey-hub")
        workers = ThreadPoolExecutor(MODELS, thread_name_prefix="beftkit-survey")
        try:
            manner = Manner(traffic=self.gate, pool=pool)
            head, rows = self.held or (None, ())
            how: dict[str, Any] = {"tower": asked["tower"], "download": asked["download"]}
            if head is not None:
                how |= {"tower": head.tower, "commit": head.commit}
            base = Base(reference, table, **how, manner=manner)
            head = self._head(base, asked, head)
            models = self._models(reference, references, asked, manner)
            base.manner = replace(base.manner, spare=self._spare(base, asked["max_bytes"]))
            known = {row.model: row for row in rows if not (asked["download"] and _pickled(row))}
            todo = [one for one in models if not _is_done(one, known.get(one.model))]
            ledger = Ledger(self.folder, head, rows if self.held else None)
            try:
                self._score(base, todo, known, len(models) - len(todo), workers, ledger)
            finally:
                ledger.close()
        finally:
            self.gate.stop()
            for one in (workers, pool):
                one.shutdown(wait=False, cancel_futures=True)

    def _head(self, base: Base, asked: dict[str, Any], held: Head | None) -> Head:
        """The survey's head: of one that is taken up its own, if the base is still the same."""
        what = base.biases.bias_sha256, base.biases.recognition.family, base.tower
        new = Head(base.reference, base.commit, *what, now(), METHOD, base.places, {**asked})
        if held is None:
            return new
        if (held.bias_sha256, held.sites) != (new.bias_sha256, new.sites):
            raise Refusal(
                f"{self.folder}: holds a survey of {held.base}, whose biases are not those of "
                f"{base.reference}; give another --output"
            )
        return held

    def _models(
        self,
        base: str,
        references: Sequence[str] | None,
        asked: Mapping[str, Any],
        manner: Manner,
    ) -> list[Listed]:
        if references is not None:
            return [Listed(one) for one in dict.fromkeys(map(str, references))]
        place = place_of(base)
        name = base if place is None else place.repo
        listing = list_models(
            name, limit=asked["limit"], sort=asked["sort"], task=asked["task"], manner=manner
        )
        counts = ", ".join(f"{count:,} of {one}" for one, count in listing.counts.items())
        if not listing.models:
            of = f" of the task {asked['task']}" if asked["task"] else ""
            raise BeftError(
                f"{base}: the hub lists no fine-tunes{of} ({counts}); name models, as by "
                "`beftkit survey BASE --from FILE`"
            )
        self.watcher.note(f"fine-tunes that the hub lists: {counts}; {len(listing.models):,} to do")
        return [*listing.models]

    def _spare(self, base: Base, most: int) -> Callable[[], int]:
        """Bytes of a file that may be fetched in vain: none while requests are free."""
        share = most // base.files
        return lambda: share if self.gate.scarce() else 0

    def _score(
        self,
        base: Base,
        todo: Sequence[Listed],
        known: Mapping[str, Row],
        behind: int,
        workers: ThreadPoolExecutor,
        ledger: Ledger,
    ) -> None:
        self.watcher.started("survey", behind + len(todo), behind)
        self._left, waiting = len(todo), iter(todo)
        running: set[Future[Done | None]] = set()
        ready: list[Done] = []
        written, self._before = time.monotonic(), self.gate.sent
        try:
            while True:
                self._expect()
                while len(running) < 2 * MODELS and (one := next(waiting, None)) is not None:
                    running.add(workers.submit(base.score, one, known.get(one.model)))
                if not running:
                    break
                ended, running = wait(running, 0.2, FIRST_COMPLETED)
                if number := self.asked_to_stop():
                    raise Interrupted(number)
                for future in ended:
                    done = future.result()
                    ready += [] if done is None else [done]
                    self._left, self._done = self._left - 1, self._done + 1
                if len(ready) >= _ROWS or (ready and time.monotonic() - written > _SECONDS):
                    ledger.add(ready)
                    ready, written = [], time.monotonic()
                self.watcher.advanced(len(ended))
                self._tell()
        except (Interrupted, KeyboardInterrupt):
            self.gate.stop()
            ledger.add([*ready, *_finished(running)])
            raise
        ledger.add(ready)

    def _expect(self) -> None:
        """Tell the gate how many requests are to come, by what models took so far."""
        sent = self.gate.sent - self._before
        each = sent / self._done if self._done >= 2 * MODELS else _REQUESTS
        self._each = each
        self.gate.expect(each * self._left - (0 if self._done else sent))

    def _tell(self) -> None:
        """Now and then: how many requests are left, and how long all of it takes."""
        if time.monotonic() - self._told < _TELL or (left := self.gate.left()) is None:
            return
        self._told = time.monotonic()
        requests, limit, rest = left
        of = "" if limit is None else f" of {limit:,}"
        words = f"the hub grants {requests:,}{of} requests for {duration(rest)}"
        seconds = self.gate.seconds(self._each * self._left)
        if seconds:
            words += (
                f"; {self._left:,} models at {self._each:.0f} each: {duration(seconds)} at least"
            )
        self.watcher.note(words)


def _finished(running: set[Future[Done | None]]) -> Iterator[Done]:
    """What came of models between the last look and now."""
    for future in running:
        if future.done() and not future.cancelled() and future.exception() is None:
            done = future.result()
            if done is not None:
                yield done


def _pickled(row: Row) -> bool:
    """Whether whole files have to be fetched to know more."""
    return row.outcome == "only bin"


def _is_done(listed: Listed, row: Row | None) -> bool:
    """Whether a row says what asking again would: the commit is the one that was read."""
    if row is None or row.outcome in PASSING or listed.commit is None:
        return False
    return row.commit == listed.commit
