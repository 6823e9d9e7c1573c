"""The folders a report is made of, read whole or refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from beftkit.errors import BeftError, UsageError
from beftkit.files import check_schema, no_number
from beftkit.present.selection import selection_document
from beftkit.selection.results import Selection

SETTINGS, RESULT = "select.yaml", "select.json"  # as `beftkit select` writes them


@dataclass(frozen=True)
class Folder:
    """A finished selection.

    Attributes:
        path: as given.
        label: model and task in short, different for every folder of a report.
        brief: as much of it as tells it from the others.
        found: what ``select.json`` holds.
        version: of the beftkit that wrote it.
        settings: the text of ``select.yaml``; empty where it is gone.
    """

    path: str
    label: str
    brief: str
    found: Selection
    version: str
    settings: str


def read_folders(paths: Sequence[str | Path]) -> list[Folder]:
    """Read each folder's ``select.json`` and ``select.yaml``.

    Args:
        paths: folders that `beftkit.select` made.

    Returns:
        One `Folder` each, in the order given.

    Raises:
        UsageError: none was given, or one of them twice.
        BeftError: no such folder, not finished, or not what `beftkit.select` writes.
    """
    if not paths:
        raise UsageError("no folder was given; expected folders that beftkit select made")
    seen: set[Path] = set()
    for path in paths:
        if Path(path).resolve() in seen:
            raise UsageError(f"{path}: was given twice; expected different folders")
        seen.add(Path(path).resolve())
    read = [_read(Path(path)) for path in paths]
    models = [_short(found.model) for found, _, _ in read]
    tasks = [_short(found.task) for found, _, _ in read]
    both = [f"{model} on {task}" for model, task in zip(models, tasks, strict=True)]
    names = [Path(path).resolve().name for path in paths]
    names = names if _differ(names) else [str(path) for path in paths]
    labels = [
        label if both.count(label) == 1 else f"{label} ({name})"
        for label, name in zip(both, names, strict=True)
    ]
    briefs = next((some for some in (tasks, models, both, names) if _differ(some)), labels)
    return [
        Folder(str(path), label, brief, *one)
        for path, label, brief, one in zip(paths, labels, briefs, read, strict=True)
    ]


def _differ(words: Sequence[str]) -> bool:
    return len(set(words)) == len(words)


def _read(folder: Path) -> tuple[Selection, str, str]:
    path = folder / RESULT
    try:
        if not folder.exists():
            raise BeftError(f"{folder}: no such folder; expected one that beftkit select made")
        if not folder.is_dir():
            raise BeftError(f"{folder}: is a file; expected a folder that beftkit select made")
        if not path.is_file():
            raise BeftError(f"{folder}: holds no {RESULT}: {_why(folder)}")
        text = path.read_text(encoding="utf-8")
        settings = folder / SETTINGS
        held = settings.read_text(encoding="utf-8") if settings.is_file() else ""
    except OSError as error:
        raise BeftError(f"{error.filename}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BeftError(f"{folder}: its {RESULT} or {SETTINGS} is not UTF-8 text") from None
    try:
        values = json.loads(text, parse_constant=no_number)
        check_schema(path, values)
        found = Selection.from_dict(values)
        selection_document(found)  # every table can be made of it
        return found, str(values["beftkit_version"]), held
    except BeftError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        StopIteration,
        RecursionError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        again = f"`beftkit select --output {folder} --resume` writes it anew"
        raise BeftError(f"{path}: is damaged ({reason}); {again}") from None


def _why(folder: Path) -> str:
    if (folder / SETTINGS).is_file():
        return f"its selection is not finished; `beftkit select --output {folder} --resume` goes on"
    inner = sorted(str(one.parent) for one in folder.glob(f"*/{RESULT}"))
    if inner:
        return f"give its selections themselves: {' '.join(inner[:4])}"
    return "expected a folder that beftkit select made"


def _short(name: str) -> str:
    """The last part of a path or of ``owner/name``."""
    return PurePath(name).name or name
