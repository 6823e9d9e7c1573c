"""A survey to look at: what its folder holds, typed, and as one table of all models and sites."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from beftkit.errors import BeftError
from beftkit.files import from_plain, headed, read_headed, whole_file, write_whole
from beftkit.shown import Shown
from beftkit.surveys.neighbours import ALIKE, Neighbours, nearest
from beftkit.surveys.rows import CHANGES, KEPT, Head, Row, read_changes, read_rows
from beftkit.surveys.summary import Summary, role_scores, scored, summarise

PARQUET = "survey.parquet"
NEIGHBOURS = "neighbours.json"
#: what a table says of a model, and of a site of the base; then come the figures, `KEPT`
OF_MODEL = (
    "model", "outcome", "reason", "task", "downloads", "last_modified", "asked", "licence",
    "commit", "listed", "gated", "target", "compared", "of", "bias_sha256",
    "other_base",
)  # fmt: skip
OF_SITE = ("name", "part", "role", "layer", "tower", "attention", "width", "inert")
#: models a row group: of so many the table is held at once
_GROUP = 200
_NONE = Neighbours()
#: what JSON says of a model, where it says something; figures of sites are the table's
_OF_ROW = tuple(one.name for one in fields(Row) if one.name not in KEPT)
_WHOLE = ("downloads", "compared", "of", "layer", "width")
_YES_OR_NO = ("gated", "other_base")


@dataclass(frozen=True, repr=False)
class Survey(Shown):
    """What many checkpoints of one base did to its biases.

    Attributes:
        folder: where it is kept.
        head: the base, its bias vectors, and how it was asked.
        rows: what came of each model, in the order in which they were asked.
        neighbours: who moved the biases the same way.
        notes: sentences that a reader of the numbers needs.
    """

    folder: str
    head: Head
    rows: tuple[Row, ...]
    neighbours: Neighbours = _NONE
    notes: tuple[str, ...] = ()

    @cached_property
    def summary(self) -> Summary:
        """What the rows come to."""
        return summarise(self.head, self.rows)

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        targets = {one.role: one.targets for one in self.summary.roles if one.targets}
        what = {"base": self.head.base, "models": len(self.rows)}
        return what | {"scored": len(scored(self.rows)), "targets": targets}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: all but the figures of single sites, which the table holds."""
        held = scored(self.rows)
        scores = {role: one.tolist() for role, one in role_scores(self.head, held).items()}
        places = {row.model: place for place, row in enumerate(held)}
        models = []
        for row in self.rows:
            values = ((name, getattr(row, name)) for name in _OF_ROW)
            said = {
                name: one
                for name, one in values
                if one is not None and one is not False and one not in ((), "")
            }
            if (place := places.get(row.model)) is not None:
                own = {role: _known(values[place]) for role, values in scores.items()}
                said["scores"] = own
            models.append(said)
        what = {name: one for name, one in self.head.to_dict().items() if name != "sites"}
        what |= {"notes": list(self.notes), "summary": asdict(self.summary)}
        return what | {"neighbours": asdict(self.neighbours), "models": models}

    def to_pandas(self) -> Any:
        """One row a model and site as a `pandas.DataFrame`, as in ``survey.parquet``.

        A model without figures has one row, whose site is unknown. Whole numbers are ``Int64`` and
        texts ``string``, which know of missing ones.

        Raises:
            BeftError: no pandas.
        """
        try:
            import pandas
        except ImportError:
            raise BeftError("to_pandas needs pandas: pip install 'beftkit[pandas]'") from None
        frame = pandas.DataFrame(columns(self.head, self.rows))
        kinds = {name: "Int64" if name in _WHOLE else "string" for name in (*OF_MODEL, *OF_SITE)}
        return frame.astype({**kinds, **dict.fromkeys(_YES_OR_NO, bool)})


def read(folder: str | Path) -> Survey:
    """Read a survey, finished or not.

    The nearest neighbours are searched once: they are kept in ``neighbours.json`` with a digest of
    whom they were searched among, and searched again where that is no longer who is there.

    Args:
        folder: that holds ``survey.jsonl``.

    Raises:
        BeftError: there is none, or it is damaged.
    """
    head, rows = read_rows(folder)
    neighbours, notes = _neighbours(Path(folder), head, rows)
    return Survey(str(folder), head, rows, neighbours, tuple(notes))


def columns(head: Head, rows: Sequence[Row]) -> dict[str, Any]:
    """The table of all models and sites, column by column: `OF_MODEL`, `OF_SITE`, then `KEPT`."""
    count = len(head.sites)
    figures = {name: np.full((len(rows), count), np.nan) for name in KEPT}
    for number, row in enumerate(rows):
        for name in KEPT:
            if values := getattr(row, name):
                figures[name][number] = np.array(values, np.float64)
    there = ~np.isnan(figures["norm_pre"])
    # A row for each site that a model has, in the base's order; one for a model that has none.
    wanted = np.hstack([there, ~there.any(axis=1, keepdims=True)])
    model, site = np.nonzero(wanted)
    table: dict[str, Any] = {}
    for name in OF_MODEL:
        table[name] = _objects([getattr(row, name) for row in rows])[model]
    for name in OF_SITE:
        table[name] = _objects([*(getattr(one, name) for one in head.sites), None])[site]
    for name in KEPT:
        table[name] = np.hstack([figures[name], np.full((len(rows), 1), np.nan)])[model, site]
    return table


def write_parquet(survey: Survey) -> Path:
    """Write that table as ``survey.parquet`` into the survey's folder; returns its path.

    Whole numbers, texts and yes or no are null where nothing is known, and so are figures. The
    file's metadata says what all rows have in common, as JSON under ``beftkit``.

    Raises:
        BeftError: no pyarrow, or the file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BeftError(f"{PARQUET} needs pyarrow: pip install pyarrow") from None
    whole, text = pyarrow.int64(), pyarrow.string()
    kinds = {name: whole if name in _WHOLE else text for name in (*OF_MODEL, *OF_SITE)}
    kinds |= dict.fromkeys(_YES_OR_NO, pyarrow.bool_()) | dict.fromkeys(KEPT, pyarrow.float64())
    said = {name: one for name, one in survey.head.to_dict().items() if name != "sites"}
    schema = pyarrow.schema(list(kinds.items()), metadata={"beftkit": json.dumps(said)})
    path = Path(survey.folder) / PARQUET
    with whole_file(path) as file:
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for start in range(0, len(survey.rows), _GROUP):
                table = columns(survey.head, survey.rows[start : start + _GROUP])
                arrays = [
                    pyarrow.array(table[name], kind, from_pandas=name in KEPT)
                    for name, kind in kinds.items()
                ]
                writer.write_table(pyarrow.table(arrays, schema=schema))
    return path


def _objects(values: Sequence[Any]) -> Any:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _neighbours(folder: Path, head: Head, rows: Sequence[Row]) -> tuple[Neighbours, list[str]]:
    """Those kept, if they were searched among just these models, else searched anew."""
    notes = []
    changes = read_changes(folder, head)
    moved = [row for row in scored(rows) if row.change is not None]
    held = [row for row in moved if 0 <= (row.change or 0) < len(changes)]
    if lost := len(moved) - len(held):
        notes.append(f"models whose change is not in {CHANGES}, so without neighbours: {lost}")
    among = [[row.model, row.change, row.bias_sha256, row.asked] for row in held]
    digest = hashlib.sha256(json.dumps([ALIKE, head.length, among]).encode()).hexdigest()
    path = folder / NEIGHBOURS
    if (kept := _kept(path, digest, {row.model for row in held})) is not None:
        return kept, notes
    found = nearest([row.model for row in held], changes, [row.change or 0 for row in held])
    values: Mapping[str, Any] = headed({"among": digest, **asdict(found)})
    try:
        write_whole(path, (json.dumps(values, allow_nan=False) + "\n").encode())
    except BeftError as error:  # of somebody else's, or on a full disk: it can still be shown
        notes.append(f"the neighbours are searched anew each time: {error}")
    return found, notes


def _kept(path: Path, digest: str, models: set[str]) -> Neighbours | None:
    """Neighbours from the file, if it is whole and of these models."""
    try:
        values = read_headed(path)
        found = from_plain(Neighbours, values)
        told = {name for one in found.nearest for name in (one.model, one.neighbour)}
        told |= {name for group in found.groups for name in group} | set(found.left_out)
        sound = all(type(one.cosine) is float and type(one.rank) is int for one in found.nearest)
        sound &= all(isinstance(why, str) for why in found.left_out.values())
        return found if sound and told <= models and values["among"] == digest else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, BeftError):
        return None  # what it would say can be found again
