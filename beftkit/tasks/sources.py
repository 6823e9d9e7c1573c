"""A task's data, from a folder as GLUE or SuperGLUE ship it, or from the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError, UsageError, option
from beftkit.registry import OFFERED, TASKS, Kind, Layout, Task
from beftkit.spelling import meant
from beftkit.tasks.asked import asked_split
from beftkit.tasks.data import Data, Split
from beftkit.tasks.delimited import read_tsv
from beftkit.tasks.labels import relabel
from beftkit.tasks.nested import NESTED, read_nested
from beftkit.tasks.prompts import prompt_of
from beftkit.tasks.records import read_json
from beftkit.tasks.table import Table, class_ids, listed, needed, texts, values
from beftkit.tasks.text_files import plain_or_gzip


def load_task(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    train: bool | None = True,
    labels: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    kind: Kind | None = None,
) -> Data:
    """Load a task's training and validation splits.

    Args:
        name: a key of `TASKS`.
        data_dir: a folder in the original layout: the one that holds ``SST-2/`` and the like, in
            any usual spelling, or the task's own. None: the hub, through ``datasets``, which heeds
            HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and its cache.
        revision: another commit, tag or branch of the dataset on the hub than the pinned one.
        train: False: the validation splits alone; None: those as well if a folder lacks the other.
        labels: names of a kept head's classes in id order: see `relabel`. None: the task's own.
        label_map: label of the task -> one of ``labels``, where names alone do not tell.
        kind: how the task meets the model; that of its prompt: examples as `Split.asked`. None: its
            own.

    Raises:
        BeftError: an unknown task, data that cannot be had, or bad data, with file and line.
    """
    task = TASKS.get(name) or offered_task(name)
    kind = kind or task.kind
    prompts = task.asked(kind)
    if not prompts and kind != offered_task(name).kind:
        able = dict.fromkeys([task.kind, *((prompt_of(task).kind,) if task.prompt else ())])
        raise BeftError(f"task {name}: no {kind}; expected {' or '.join(able)}")
    if prompts and (labels or label_map):
        raise BeftError(f"task {name}: a prompt's answers are its own; no labels of a head fit it")
    if data_dir is None:
        from beftkit.tasks.hub_tables import read_hub

        # As the hub names things.
        layout = Layout(folder="", train="", validation=(), kind="tsv", nested=task.hub.nested)
        columns = _columns(task, layout, prompts)
        whole = train is not False
        tables, source = read_hub(task, revision or task.hub.revision, columns, train=whole)
    elif revision is not None:
        place = option("data_revision", revision)
        raise UsageError(f"{place}: only the hub has revisions, not {data_dir}")
    else:
        layout, tables, source = _read_folder(task, Path(data_dir), prompts, train=train)
    made = {
        split: asked_split(task, layout, table) if prompts else (_split(task, layout, table), ())
        for split, table in tables.items()
    }
    splits = {split: found for split, (found, _) in made.items()}
    notes = (*(table.notes for table in tables.values()), *(notes for _, notes in made.values()))
    data = Data(
        name=name,
        kind=kind,
        labels=task.labels,
        metrics=task.metrics_as(kind),
        train=splits.get("train"),
        validation={split: found for split, found in splits.items() if split != "train"},
        source={**source, "examples": {split: len(found) for split, found in splits.items()}},
        notes=tuple(dict.fromkeys(chain.from_iterable(notes))),
        prompt=task.prompt if prompts else None,
    )
    if label_map and not labels:
        raise BeftError("--label-map: only onto the classes of a head that is kept")
    return relabel(data, labels, label_map) if labels else data


def offered_task(name: str) -> Task:
    """A task that commands take.

    Raises:
        UsageError: there is no such task.
    """
    task = TASKS.get(name)
    if task is None:
        known = f"expected one of {', '.join(OFFERED)}{meant(name, OFFERED)}"
        raise UsageError(f"{option('task', name)}: {known}")
    return task


def _columns(task: Task, layout: Layout, prompts: bool) -> tuple[str, ...]:
    """The columns to read, as the file or the hub calls them."""
    if prompts and layout.nested:
        return NESTED[layout.nested].columns
    own = prompt_of(task).needs if prompts else task.columns
    label = (layout.label,) if task.labelled else ()
    return (*(layout.renamed.get(name, name) for name in own), *label)


def _split(task: Task, layout: Layout, table: Table) -> Split:
    fields = tuple(texts(table, field, layout.renamed) for field in task.fields)
    if task.kind == "values":
        return Split(fields, values(table, layout.label))
    return Split(fields, class_ids(table, layout.label, task.labels, layout.raw_labels))


def _read_folder(
    task: Task, root: Path, prompts: bool, *, train: bool | None
) -> tuple[Layout, dict[str, Table], dict[str, Any]]:
    folder, layout = _find(task, root)
    files = dict(zip(task.validation, layout.validation, strict=True))
    if train is None:
        train = plain_or_gzip(folder / layout.train).exists()
    if train:
        files = {"train": layout.train, **files}
    paths = {split: plain_or_gzip(folder / file) for split, file in files.items()}
    tables: dict[str, Table] = {}
    for split, path in paths.items():
        columns = _columns(task, layout, prompts)
        choose = needed(str(path), (*columns, *layout.held_out_by))
        if layout.kind == "json":
            table = read_nested(path, NESTED[layout.nested])
        elif layout.kind == "tsv":
            table = read_tsv(path, choose, header=layout.header, skip_short=layout.skip_short)
        else:
            table = read_json(path, choose)
        tables[split] = _part(table, split, layout, folder) if layout.held_out else table
    source = {"kind": "folder", "files": {split: str(path) for split, path in paths.items()}}
    return layout, tables, source


def _part(table: Table, split: str, layout: Layout, folder: Path) -> Table:
    """The rows of a split, where one file holds training and validation examples."""
    path = plain_or_gzip(folder / layout.held_out)
    listing = read_tsv(path, lambda names: names, header=layout.held_out_by)
    held_out = set(zip(*listing.columns.values(), strict=True))
    keys = zip(*(table.columns[name] for name in layout.held_out_by), strict=True)
    rows = [row for row, key in enumerate(keys) if (key in held_out) == (split != "train")]
    if not rows:
        raise BeftError(f"{table.where}: no {split} examples beside {layout.held_out}")
    return table.only(rows)


def _find(task: Task, root: Path) -> tuple[Path, Layout]:
    """The folder of the task and the layout of its files."""
    try:
        below = sorted(path for path in root.iterdir() if path.is_dir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BeftError(f"{root}: cannot be listed ({reason}); expected a folder of data") from None
    own = {_plain(layout.folder) for layout in task.layouts} | {task.name}
    for folder in (*(path for path in below if _plain(path.name) in own), root):
        for layout in task.layouts:
            files = (folder / file for file in (layout.train, *layout.validation))
            if any(plain_or_gzip(file).exists() for file in files):
                return folder, layout
    layout = task.layouts[0]
    expected = " and ".join((layout.train, *layout.validation))
    there = listed(sorted(path.name for path in root.iterdir())) or "nothing"
    raise BeftError(
        f"{root}: no data of {task.name}; expected a folder {layout.folder} with {expected} in it,"
        f" or that folder itself; there is {there}"
    )


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
