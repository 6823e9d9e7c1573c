"""What a survey keeps: a row for each model, in two files that grow while it goes.

``survey.jsonl`` holds one JSON object a line: first the `Head`, then the `Row` of each model as it
is done. Of a model with several rows the last one counts; half a line at the end is what a kill
left, and counts for nothing. ``changes.f32`` holds the bias changes of scored models, one after the
other: ``[D]`` float32 (little-endian) each, D being `Head.length`, in the order of `Head.sites`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from beftkit.errors import BeftError
from beftkit.files import check_schema, from_plain, headed, no_number
from beftkit.scores import Inert

ROWS = "survey.jsonl"
CHANGES = "changes.f32"

Outcome = Literal[
    "scored",
    "unchanged",
    "no biases",
    "other architecture",
    "other width",
    "only bin",
    "gated",
    "gone",
    "damaged",
    "refused",
    "unreachable",
]
#: what each outcome means, in the order in which they are told
OUTCOMES: dict[Outcome, str] = {
    "scored": "its biases were compared with the base's",
    "unchanged": "its biases are the base's, or those rounded to another dtype",
    "no biases": "it has no bias of an attention block",
    "other architecture": "none of its biases matches one of the base",
    "other width": "its biases have other lengths than the base's",
    "only bin": "it has no .safetensors, and whole files are fetched with --download alone",
    "gated": "its owner asks for terms to be accepted, or a login",
    "gone": "there is no such repository, revision, file or folder",
    "damaged": "its files are not what they should be, or hold NaN or infinity",
    "refused": "it cannot be compared for another reason",
    "unreachable": "nobody answered, or not in time; --resume asks again",
}
#: outcomes that another try may change while the commit is the same
PASSING: frozenset[Outcome] = frozenset({"unreachable", "gated"})
#: figures of a site that a row keeps; each is one of `beftkit.scores.ranking.FIGURES`
KEPT = ("projection", "angle", "norm_change", "magnitude_l1", "norm_pre")

Figures = tuple[float | None, ...]


@dataclass(frozen=True)
class Place:
    """One bias vector of the base.

    Attributes:
        name: the tensor that holds it, as the base has it on disk.
        role: ``q``, ``k``, ``v``, ...
        layer: number of the layer within its stack.
        tower: ``text``, ``vision``, ``text.encoder``, ...
        attention: ``self`` or ``cross``.
        width: length of the vector.
        inert: whether softmax ignores it.
        part: of a fused tensor, None for a whole one.
    """

    name: str
    role: str
    layer: int
    tower: str
    attention: str
    width: int
    inert: Inert
    part: str | None = None


@dataclass(frozen=True)
class Head:
    """What all rows of a survey have in common: its base, and how it was asked.

    Attributes:
        base: reference, as given.
        commit: of the hub's repository; None for files here.
        bias_sha256: digest of the base's biases.
        family: what they were recognised as.
        tower: which one is compared.
        begun: when, in UTC (``2026-11-27T19:10:00Z``).
        method: what chose each model's target.
        sites: the base's bias vectors, in the order of every row's figures and changes.
        asked: what was asked for: options that have a bearing on the rows, by name.
    """

    base: str
    commit: str | None
    bias_sha256: str | None
    family: str
    tower: str
    begun: str
    method: str
    sites: tuple[Place, ...]
    asked: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def length(self) -> int:
        """D: elements of all sites together, which is how many a change in ``changes.f32`` has."""
        return sum(site.width for site in self.sites)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the first line."""
        return headed(asdict(self))


@dataclass(frozen=True)
class Row:
    """What came of one model.

    Every figure is a tuple as long as `Head.sites`, in that order; None where it is undefined, or
    where the model has no such bias (then it is None in all of them). The tuples are empty unless
    the outcome is ``scored`` or ``unchanged``.

    Attributes:
        model: reference: ``owner/name`` on the hub, else a path, or what a line of a file said.
        outcome: key of `OUTCOMES`.
        reason: why, in one line; "" for scored. Text of others is in it: escape it where it goes.
        commit: of the hub's repository that was read; None for files here.
        asked: when, in UTC.
        listed: which of the base's ids lists the model; None where it was named by the user.
        task: the hub's ``pipeline_tag``.
        tags: the hub's.
        downloads: of the last 30 days, as the hub counts.
        last_modified: as the hub says, in UTC.
        licence: as the model card names it.
        gated: whether the hub lists it as gated.
        compared: how many of the base's vectors it has.
        of: how many the base has.
        beyond: names of bias vectors that it has and the base has not; no figures are kept of them.
        target: the role to fine-tune by its scores, or None.
        why: what there is to say of the target, and of what was read.
        bias_sha256: digest of its biases; equal ones are equal models to a survey.
        change: which row of ``changes.f32`` holds its change; None: none is kept.
        bytes_fetched: from the hub.
        requests: to the hub.
        other_base: whether it is an adapter that was trained on another base than the survey's, as
            `score` tells it; ``why`` has the sentence.
    """

    model: str
    outcome: Outcome
    reason: str = ""
    commit: str | None = None
    asked: str = ""
    listed: str | None = None
    task: str | None = None
    tags: tuple[str, ...] = ()
    downloads: int | None = None
    last_modified: str | None = None
    licence: str | None = None
    gated: bool = False
    compared: int = 0
    of: int = 0
    beyond: tuple[str, ...] = ()
    target: str | None = None
    why: tuple[str, ...] = ()
    bias_sha256: str | None = None
    change: int | None = None
    bytes_fetched: int | None = None
    requests: int | None = None
    projection: Figures = ()
    angle: Figures = ()
    norm_change: Figures = ()
    magnitude_l1: Figures = ()
    norm_pre: Figures = ()
    other_base: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a line: those that say something."""
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None and value is not False and value not in ((), "")
        }


def line(one: Head | Row) -> bytes:
    """One line of ``survey.jsonl``."""
    plain = one.to_dict()
    return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def is_survey(folder: str | Path) -> bool:
    """Whether a folder holds a survey, finished or not."""
    try:
        return (Path(folder) / ROWS).is_file()
    except (OSError, ValueError):
        return False


def read_rows(folder: str | Path) -> tuple[Head, tuple[Row, ...]]:
    """The head of a survey and the last row of each model, in the order in which they came first.

    Raises:
        BeftError: there is none, it is of a newer version, or a line before the last is damaged.
    """
    path = Path(folder) / ROWS
    try:
        with path.open("rb") as file:
            head = _head(path, file.readline())
            rows: dict[str, Row] = {}
            for number, raw in enumerate(file, start=2):
                if raw.endswith(b"\n"):  # else half of one, which a kill left
                    row = _row(path, number, raw, head)
                    rows[row.model] = row
    except OSError as error:
        raise BeftError(f"{path}: cannot be read ({error.strerror})") from None
    return head, tuple(rows.values())


def _head(path: Path, raw: bytes) -> Head:
    try:
        values = json.loads(raw, parse_constant=no_number)
        if not raw.endswith(b"\n"):
            raise ValueError("cut short")
        check_schema(path, values)
        return from_plain(Head, values)
    except BeftError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise BeftError(f"{path}: its first line is not that of a survey; is it damaged?") from None


def _row(path: Path, number: int, raw: bytes, head: Head) -> Row:
    try:
        values = json.loads(raw, parse_constant=no_number)
        for name in ("tags", "beyond", "why", *KEPT):
            values[name] = tuple(values.get(name, ()))
        row = Row(**{key: one for key, one in values.items() if key in Row.__dataclass_fields__})
        counts = {len(getattr(row, name)) for name in KEPT}
        if row.outcome not in OUTCOMES or not counts <= {0, len(head.sites)}:
            raise ValueError("unknown outcome, or not as many figures as sites")
        return row
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise BeftError(f"{path}: line {number} is damaged; remove that line") from None


def read_changes(folder: str | Path, head: Head) -> npt.NDArray[np.float32]:
    """The changes ``post - pre`` of scored models, ``[rows, D]`` float32, mapped and not read.

    A row is that of the model whose `Row.change` says its number; a site that the model lacks is
    zero in it. Where no model was scored there are no rows.

    Raises:
        BeftError: the file cannot be read.
    """
    path, length = Path(folder) / CHANGES, head.length
    try:
        count = path.stat().st_size // (4 * length) if length and path.exists() else 0
        if not count:
            return np.zeros((0, length), np.float32)
        return np.memmap(path, "<f4", "r", shape=(count, length))
    except (OSError, ValueError) as error:
        raise BeftError(f"{path}: cannot be read ({error})") from None


def starts(sites: Sequence[Place]) -> list[int]:
    """Where each site begins in a change; one more number is where the last one ends."""
    found = [0]
    for site in sites:
        found.append(found[-1] + site.width)
    return found
