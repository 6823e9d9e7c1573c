"""A selection's folder: when it may be written to, and what it lists as its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError, option
from beftkit.files import read_headed, write_whole
from beftkit.runs import folders, manifest, provenance
from beftkit.runs.folders import check_code, check_resumable
from beftkit.runs.locks import LOCK, check_free, occupied
from beftkit.runs.manifest import HALF
from beftkit.selection.cells import PROBE, Cell
from beftkit.settings.resolve import read_yaml, resolve_select
from beftkit.settings.select import SelectSettings

SETTINGS, RESULT, CELL, FISHER = "select.yaml", "select.json", "cell.json", "fisher.json"
CELLS = "cells"


def settings_of(
    model: str | Path | None,
    output: str | Path | None,
    config: str | Path | None,
    resume: bool,
    given: Mapping[str, Any],
) -> SelectSettings:
    """A selection's settings; one that is taken up has those in its own folder to start from.

    Raises:
        UsageError: an unknown setting, a value that does not fit, or no model.
    """
    if resume and config is None and output is not None:
        saved = Path(output) / SETTINGS
        if saved.is_file():
            check_code(saved, given)
            config = saved
        else:
            check_resumable(Path(output), SETTINGS, {"model": model})
    return resolve_select(config, {**given, "model": model})


@contextmanager
def opened(
    folder: Path, values: Mapping[str, Any], *, overwrite: bool, resume: bool
) -> Iterator[None]:
    """Make the folder ready, write ``select.yaml``, and keep other selections out.

    Args:
        folder: of the selection.
        values: what ``select.yaml`` holds.
        overwrite: whether a former selection is replaced.
        resume: whether one is taken up.

    Raises:
        Refusal: another process writes there, or what is there cannot be told from others' files.
        BeftError: it holds something else, or a selection with other settings.
    """
    import yaml

    given = {"overwrite": overwrite, "resume": resume}
    check_former(folder, values, **given)  # nothing is written where it is refused
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    with occupied(folder):
        former = _former(folder, values, **given)  # others may have been here meanwhile
        if former is None:
            manifest.add(folder, SETTINGS, RESULT)
            yield
            return
        try:
            # select.yaml goes last (it is replaced), so that a kill leaves a selection's folder.
            manifest.remove(folder, [path for path in former if path != folder / SETTINGS])
        except OSError as error:
            raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
        manifest.begin(folder, SETTINGS, RESULT)
        write_whole(folder / SETTINGS, yaml.safe_dump(dict(values), sort_keys=False).encode())
        yield


def check_former(
    folder: Path, values: Mapping[str, Any], *, overwrite: bool, resume: bool
) -> list[Path] | None:
    """What `opened` would delete there; None: it would take a selection up. Nothing is written.

    Raises:
        BeftError: as `opened`.
    """
    check_free(folder)
    return _former(folder, values, overwrite=overwrite, resume=resume)


def list_cells(folder: Path, cells: Sequence[Cell], biases: Sequence[str]) -> None:
    """List all that the cells of a grid can make, before any does: one process for all of them."""
    places = [f"{CELLS}/{cell.name}" for cell in cells]
    files = [f"{place}/{name}" for place in places for name in (CELL, FISHER, LOCK)]
    runs = [f"{place}/{bias}" for place in places for bias in (PROBE, *biases)]
    for name in runs:
        manifest.check_no_link(folder, name)
    manifest.add(folder, *files, folders=runs)


def _former(
    folder: Path, values: Mapping[str, Any], *, overwrite: bool, resume: bool
) -> list[Path] | None:
    """What a former selection made there and is to be deleted; None: it is to be taken up."""
    if folder.exists() and not folder.is_dir():
        raise BeftError(f"{folder}: is a file; expected a folder to make")
    try:
        held = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise BeftError(f"{folder}: cannot be listed ({error.strerror})") from None
    held = [name for name in held if name not in (LOCK, manifest.NAME)]
    held = [name for name in held if not name.startswith(HALF)]
    former = SETTINGS in held
    if resume and former:
        _check_same(folder, values)
        return None
    if not held:
        return []
    if not (former and (overwrite or _unbegun(folder))):
        taken = "holds a selection; --resume takes it up, --overwrite replaces it"
        foreign = f"holds {held[0]} and is no selection's folder; give another --output"
        raise BeftError(f"{folder}: {taken if former else foreign}")
    try:
        resolve_select(folder / SETTINGS, {})
    except BeftError as error:
        raise BeftError(
            f"{folder}: its {SETTINGS} is no selection's, so nothing is replaced ({error.told}); "
            "give another --output"
        ) from None
    manifest.check_no_link(folder, CELLS)
    for cell in sorted((folder / CELLS).glob("*")):
        check_free(cell)
    made = manifest.made(folder, "a selection")
    for path in (folder / RESULT, *(folder / CELLS).glob(f"*/{CELL}")):
        if path.exists() and path not in made:
            raise manifest.unlisted(path)
    return made


def _unbegun(folder: Path) -> bool:
    """Whether nothing in it is any loss: every run of it was refused before its first update."""
    if manifest.read(folder) is None:
        return False
    begun = (SETTINGS, folders.SETTINGS, provenance.NAME, manifest.NAME, LOCK)
    for path in folder.rglob("*"):
        if path.is_symlink():
            return False
        if path.is_dir() or path.name in begun or path.name.startswith(HALF):
            continue
        try:
            if path.name != CELL or read_headed(path).get("methods"):
                return False
        except (OSError, ValueError, RecursionError):
            return False
    return True


def _check_same(folder: Path, values: Mapping[str, Any]) -> None:
    before = read_yaml(folder / SETTINGS)
    for key in dict.fromkeys([*before, *values]):
        # Verification may come later; the rest changes nothing of what is found.
        if key not in ("verify", "report_to", "device") and before.get(key) != values.get(key):
            raise BeftError(
                f"{folder}: was begun with {option(key, before.get(key))}, not "
                f"{values.get(key)!r}; "
                "resume with the same settings (--output and --resume alone will do), or start "
                "afresh with --overwrite"
            )
