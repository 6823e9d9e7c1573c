"""One model of a survey against the base: whatever comes of it is a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters import meant
from beftkit.biases import Site, Table, choose_tower, in_tower
from beftkit.checkpoints import BiasSet, Checkpoint, open_checkpoint, other_base
from beftkit.checkpoints.checkpoint import choose_weights, open_in
from beftkit.checkpoints.fetch import Offline
from beftkit.checkpoints.hub import SCHEME, HubFolder, Reference, parse_reference
from beftkit.checkpoints.manner import ALONE, Manner
from beftkit.diff import Sides, compared
from beftkit.diff.compare import refuse_empty
from beftkit.edges import printable
from beftkit.errors import BeftError
from beftkit.surveys.gate import Stopped
from beftkit.surveys.listing import Listed, place_of
from beftkit.surveys.rows import KEPT, OUTCOMES, PASSING, Outcome, Place, Row

#: how each model's target is chosen
METHOD = "projection"
#: of a header: so many times the base's largest, and never less than this
_HEADERS, _LEAST_HEADER = 20, 4_000_000
#: bytes of a configuration or an index
_JSON = 20_000_000
#: letters of a reason or a note that are kept
_LONGEST = 500

Vector = npt.NDArray[np.float32]


def now() -> str:
    """This second in UTC, as rows say it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Done:
    """A row, and the model's change where there is one: ``[D]`` in order of the base's sites."""

    row: Row
    change: Vector | None = None


class _Same(Exception):
    """A model is what it was when it was asked before."""


class Base:
    """The base of a survey, opened and read once.

    Attributes:
        reference: as given.
        commit: of the hub's repository; None for files here.
        places: its bias vectors, in order.
        tower: which is compared.
        manner: how models are asked for: as the base was, but bounded by what it holds.
    """

    def __init__(
        self,
        reference: str,
        table: Table,
        *,
        tower: str | None = None,
        commit: str | None = None,
        download: bool = False,
        manner: Manner = ALONE,
    ) -> None:
        self.reference, self._download, self._table = reference, download, table
        place = _place_of_base(reference)
        if place is not None:
            place = place._replace(revision=place.revision if commit is None else commit)
            folder = HubFolder(place, download=download, manner=manner)
            self.commit: str | None = folder.commit
            checkpoint = _open(folder, reference)
        else:
            self.commit = None
            checkpoint = open_checkpoint(meant(reference), download=download)
        self._checkpoint = checkpoint
        self._sides = self._new_sides()
        self.biases: BiasSet = self._sides.biases(checkpoint, checkpoint.config)
        refuse_empty(self.biases)
        self.tower, _ = choose_tower([site.tower for site in self.biases.sites], tower)
        self.sites = [one for one in self.biases.sites if in_tower(one.tower, self.tower)]
        self.places = tuple(_place(site) for site in self.sites)
        self._numbers = {(one.name, one.part): n for n, one in enumerate(self.places)}
        ends = np.cumsum([0, *(one.width for one in self.places)])
        self._starts: list[int] = ends.tolist()
        headers = _header_bytes(checkpoint)
        self.manner = replace(
            manner,
            header_bytes=headers,
            longest_header=max(_HEADERS * headers, _LEAST_HEADER),
            longest_json=_JSON,
        )

    def _new_sides(self) -> Sides:
        return Sides(self._checkpoint, None, self._table, self._download)

    @property
    def length(self) -> int:
        """D: elements of all its bias vectors."""
        return self._starts[-1]

    @property
    def files(self) -> int:
        """How many weight files it has."""
        return max(len({info.file for info in self._checkpoint.tensors.values()}), 1)

    def score(self, listed: Listed, held: Row | None = None) -> Done | None:
        """What came of a model; no error leaves this but `Stopped`.

        Args:
            listed: the model.
            held: its row of before; None is returned where that still tells all.
        """
        known = {
            name: getattr(listed, name)
            for name in ("model", "task", "tags", "downloads", "last_modified", "licence", "gated")
        }
        row = Row(**known, listed=listed.by, commit=listed.commit, outcome="refused", asked=now())
        row = replace(row, of=len(self.places))
        folders: list[HubFolder] = []
        try:
            done = self._scored(row, listed, folders, held)
        except Stopped:
            raise
        except _Same:
            return None
        except BeftError as error:
            done = Done(replace(row, **_told(error, "damaged")))
        except Offline:
            told = "offline mode (HF_HUB_OFFLINE) forbids to ask the hub"
            done = Done(replace(row, outcome="unreachable", reason=told))
        except Exception as error:  # whatever a file of others does: nothing stops a survey
            told = f"could not be read ({type(error).__name__}: {error})"
            done = Done(replace(row, outcome="refused", reason=_line(told)))
        for folder in folders:
            read: dict[str, Any] = {"bytes_fetched": folder.origin()["bytes_fetched"]}
            read |= {"requests": folder.requests, "commit": folder.commit}
            done = replace(done, row=replace(done.row, **read))
        return done

    def _scored(self, row: Row, listed: Listed, folders: list[HubFolder], held: Row | None) -> Done:
        checkpoint = self._opened(listed, folders, held)
        try:
            # A base without a configuration is seen by each model's own.
            sides = self._sides if self._checkpoint.config else self._new_sides()
            found, change = compared(sides, checkpoint, self.tower)
        except BeftError as error:
            return Done(replace(row, **_told(error, "refused")))
        numbers = [self._numbers.get((one.name, one.slice)) for one in found.sites]
        inside = [(n, k) for k, n in enumerate(numbers) if n is not None]
        figures: dict[str, list[float | None]] = {name: [None] * len(self.places) for name in KEPT}
        for number, k in inside:
            for name in KEPT:
                figures[name][number] = found.sites[k].figures[name]
        kept: dict[str, Any] = {name: tuple(values) for name, values in figures.items()}
        ranked = found.ranked(METHOD)
        row = replace(
            row,
            compared=len(inside),
            beyond=tuple(one.name for one, n in zip(found.sites, numbers, strict=True) if n is None)
            + found.coverage.only_post,
            why=tuple(_line(note) for note in ranked.notes),
            bias_sha256=found.post.bias_sha256,
            other_base=checkpoint.adapter is not None
            and bool(other_base(checkpoint, self._checkpoint)),
            **kept,
        )
        if not found.changed or found.rounding:
            told = "rounding only: its biases are the base's in another dtype"
            told = told if found.changed else "its biases are the base's, bit by bit in value"
            return Done(replace(row, outcome="unchanged", reason=told))
        row = replace(row, outcome="scored", target=ranked.target)
        return Done(row, self._change(inside, change))

    def _change(
        self, inside: Sequence[tuple[int, int]], change: Callable[[int], npt.NDArray[np.float64]]
    ) -> Vector:
        result = np.zeros(self.length, np.float32)
        with np.errstate(over="ignore"):  # beyond float32: infinite there, as it would be in use
            for number, k in inside:
                result[self._starts[number] : self._starts[number + 1]] = change(k)
        return result

    def _opened(self, listed: Listed, folders: list[HubFolder], held: Row | None) -> Checkpoint:
        if listed.by is not None:
            place = parse_reference(f"{SCHEME}{listed.model}")
            place = place and place._replace(text=listed.model)
        else:
            place = place_of(listed.model)
        if held is not None and held.outcome in PASSING:
            held = None
        if place is None:
            found = meant(listed.model)
            if held is not None and not _newer(Path(found), held.asked):
                raise _Same
            return open_checkpoint(found, download=self._download)
        paths = None
        if listed.commit is not None and listed.paths is not None:
            paths = (listed.commit, [*listed.paths])
        folder = HubFolder(place, download=self._download, manner=self.manner, listed=paths)
        folders.append(folder)
        if held is not None and held.commit == folder.commit and paths is None:
            raise _Same
        return _open(folder, listed.model)


def _place_of_base(reference: str) -> Reference | None:
    """Where the base lies on the hub; old ids have no owner and stand for nothing else here."""
    place: Reference | None = place_of(reference)
    here = reference.startswith((".", "/")) or Path(reference).exists()
    if place is None and not here:
        return parse_reference(f"{SCHEME}{reference}")
    return place


def _open(folder: HubFolder, reference: str) -> Checkpoint:
    found = open_in(folder, folder.name or choose_weights(folder), reference)
    found.origin = folder.origin
    return found


def _newer(path: Path, asked: str) -> bool:
    """Whether a file, or one in a folder, was changed after that time, or cannot be seen."""
    try:
        files = [path, *path.iterdir()] if path.is_dir() else [path]
        changed = max(one.stat().st_mtime for one in files)
        return changed >= datetime.fromisoformat(asked).timestamp()
    except (OSError, ValueError):
        return True


def _place(site: Site) -> Place:
    part = None if site.cut is None else str(site.cut)
    where = site.name, site.role, site.layer, site.tower, site.attention, site.width
    return Place(*where, site.inert, part)


def _header_bytes(checkpoint: Checkpoint) -> int:
    """How long the longest of its files' headers is: tensors begin behind them."""
    starts: dict[int, int] = {}
    tensors: Mapping[str, Any] = checkpoint.tensors
    for info in tensors.values():
        starts[info.file] = min(info.start, starts.get(info.file, info.start))
    longest = max(starts.values(), default=0)
    return longest if 0 < longest <= _LEAST_HEADER else 0


def _told(error: BeftError, otherwise: Outcome) -> dict[str, Any]:
    kind = error.kind if error.kind in OUTCOMES else otherwise
    return {"outcome": kind, "reason": _line(error.at_terminal)}


def _line(text: str) -> str:
    """One line of letters that can be shown, not longer than anybody reads."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
