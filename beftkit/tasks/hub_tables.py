"""A task's data from the Hugging Face hub, through ``datasets``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beftkit.checkpoints.reach import hub_or_cache
from beftkit.errors import BeftError, Unreachable
from beftkit.registry import Task
from beftkit.tasks.table import Table, filled, listed, needed, shortened

_SHA = re.compile("[0-9a-f]{40}")


def read_hub(
    task: Task, revision: str, columns: Sequence[str], *, train: bool
) -> tuple[dict[str, Table], dict[str, Any]]:
    """The splits of a task, by name, and where they came from.

    Args:
        task: which.
        revision: commit, tag or branch.
        columns: what is read of them.
        train: False: the validation splits alone.

    Raises:
        BeftError: they cannot be had, or are not what the task expects.
    """
    where = _named(task)
    found = _load(task, revision)
    commit = _commit(found) or revision
    if _SHA.fullmatch(revision) and commit != revision:  # offline, datasets takes what it has
        raise BeftError(
            f"{where}: the cache has revision {commit} only, not {revision}; ask for that one, or"
            " go online"
        )
    wanted = {split: split for split in task.validation}
    if train:
        wanted = {"train": task.hub.train, **wanted}
    tables = {}
    for name, split in wanted.items():
        if split not in found:
            raise BeftError(f"{where}: no split {split!r}; it has {listed(list(found))}")
        tables[name] = _table(task, f"{where} {split}", found[split], columns)
    source = {"kind": "hub", "repo": task.hub.repo, "config": task.hub.config, "revision": commit}
    return tables, source


def _commit(found: Any) -> str | None:
    """The commit that was read; datasets says so nowhere but in the name of its cache's folder."""
    for split in found.values():
        for file in split.cache_files:
            name = Path(file["filename"]).parent.name
            return name if _SHA.fullmatch(name) else None
    return None


def _named(task: Task) -> str:
    return f"{task.hub.repo} {task.hub.config}".strip()


def _table(task: Task, where: str, split: Any, wanted: Sequence[str]) -> Table:
    columns = needed(where, wanted)(split.column_names)
    names = getattr(split.features.get("label"), "names", None)
    if task.labels and names is not None and tuple(names) != task.labels:
        raise BeftError(f"{where}: its labels are {listed(names)}; expected {listed(task.labels)}")
    return filled(Table(where, {name: split[name][:] for name in columns}))


def _load(task: Task, revision: str) -> Any:
    """All splits; whatever goes wrong is said in one line, with what to do."""
    hub = task.hub
    where = _named(task)
    instead = "give a local copy with --data-dir"
    try:
        import datasets
        from datasets.exceptions import DatasetNotFoundError
    except ModuleNotFoundError as error:
        raise BeftError(
            f"{where}: the hub's data need the package {error.name}, which is not installed; pip"
            f" install datasets, or {instead}"
        ) from None
    try:
        with hub_or_cache(), _no_bars():
            return datasets.load_dataset(hub.repo, hub.config or None, revision=revision)
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            raise BeftError(
                f"{where}: access is gated; ask for it on the hub and set HF_TOKEN, or {instead}"
            ) from None
        raise BeftError(
            f"{where}: not found at revision {revision} (or private); check the revision and"
            f" HF_ENDPOINT, or {instead}"
        ) from None
    except ConnectionError as error:  # offline mode too
        raise Unreachable(
            f"{where}: the hub cannot be reached and the cache has no copy ({_first(error)});"
            f" {instead}"
        ) from None
    except Exception as error:  # datasets lets errors of its many libraries through
        if "scripts are no longer supported" in str(error):
            raise BeftError(
                f"{where}: revision {revision} needs a loading script, which is not run; take a"
                f" revision that holds Parquet files, or {instead}"
            ) from None
        raise Unreachable(
            f"{where}: cannot be loaded ({type(error).__name__}: {_first(error)}); {instead}"
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without datasets' own progress, which ``--quiet`` does not reach."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _first(error: Exception) -> str:
    return shortened((str(error).strip().splitlines() or [type(error).__name__])[0], bare=True)
