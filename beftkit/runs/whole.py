"""A folder that is there whole or not at all: made beside its place, and renamed into it.

Of models and adapters alike. What a killed process leaves, ``OUT.tmp-*``, is found and cleared by
the next that writes there.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from beftkit.adapters import BIASES_NAME, CONFIG_NAME
from beftkit.errors import BeftError, Refusal
from beftkit.files import lives, umask
from beftkit.runs import manifest
from beftkit.runs.locks import LOCK, check_free, occupied

#: what stands before the number of the process in the name of a folder that is being made
_BESIDE = ".tmp-"
#: the end of the name of what is being replaced
_FORMER = "-former"


@dataclass(frozen=True)
class Kind:
    """What a folder is made to be.

    Attributes:
        marks: names of which the manifest of one of ours lists one.
        what: it is, for messages.
        done: was done to make it, likewise.
    """

    marks: tuple[str, ...]
    what: str
    done: str


MERGED_MODEL = Kind(("config.json",), "model", "merged")
EXPORTED_MODEL = replace(MERGED_MODEL, done="exported")
MADE_ADAPTER = Kind((CONFIG_NAME, BIASES_NAME), "adapter", "made so")


def make_place(
    folder: Path, kind: Kind, inputs: Mapping[Path, str], *, overwrite: bool
) -> list[str]:
    """Clear what killed processes left of a folder, and refuse it where it must not be made.

    Args:
        folder: absent, empty, or with ``overwrite`` one of this kind that was made so before.
        kind: what it will be.
        inputs: what is read, which must not be written over -> what it is.
        overwrite: replace a former one.

    Returns:
        What was cleared, for notes.

    Raises:
        BeftError: it cannot be made, or holds one of ours.
        Refusal: it holds something else, or is, holds or lies in an input; or a process that lives
            is making it.
    """
    notes = clear_leftovers(folder)
    check_apart(folder, inputs)
    check_place(folder, kind, overwrite=overwrite)
    return notes


def check_place(folder: Path, kind: Kind, *, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless it is of ours and to be replaced.

    Raises:
        BeftError: it says what is there.
        Refusal: others' files are among it.
    """
    try:
        if folder.is_symlink():
            raise Refusal(f"{folder}: is a symbolic link, which is not followed; give its target")
        if not folder.exists():
            if not folder.parent.is_dir():
                raise BeftError(f"{folder}: the folder above does not exist; make it first")
            return
        if not folder.is_dir():
            raise BeftError(f"{folder}: is a file; expected a folder to make")
        held = sorted(path.name for path in folder.iterdir())
    except BeftError:  # is a ValueError too
        raise
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from None
    if not held:
        return
    listed = manifest.read(folder)
    if listed is None or not {*kind.marks} & {*listed.files}:
        raise Refusal(
            f"{folder}: holds {held[0]}, and no {manifest.NAME} that lists {_a(kind.what)} of "
            "ours, so nothing is replaced; give another --output"
        )
    if not overwrite:
        raise BeftError(
            f"{folder}: holds {_a(kind.what)} that was {kind.done}; --overwrite replaces it"
        )
    made = {*manifest.made(folder, _a(kind.what)), folder / manifest.NAME}
    for path in sorted(folder.rglob("*")):
        if path not in made and not path.is_dir():
            raise Refusal(
                f"{path}: would go with the former {kind.what}, which did not make it; move it away"
            )


def _a(what: str) -> str:
    return f"an {what}" if what.startswith("a") else f"a {what}"


def _unusable(folder: Path, error: Exception) -> BeftError:
    """What a system says of a path: a name too long, one with a null byte."""
    reason = getattr(error, "strerror", None) or "no usable path"
    return BeftError(f"{folder}: cannot be written ({reason})")


def check_apart(folder: Path, inputs: Mapping[Path, str]) -> None:
    """Refuse a folder to make that is, holds or lies in what is read, through links too.

    Args:
        folder: the folder to make.
        inputs: folders and files that are read -> what they are; what is not there is on a hub.

    Raises:
        Refusal: it does.
    """
    try:
        out = Path(os.path.realpath(folder))
        reals = {Path(os.path.realpath(one)): one for one in inputs if one.exists()}
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from None
    for real, path in reals.items():
        what = inputs[path]
        if real == out:
            raise Refusal(f"{folder}: is the {what} itself; give another --output")
        if out in real.parents:
            raise Refusal(f"{folder}: holds the {what}, {path}; give another --output")
        if real in out.parents:
            raise Refusal(f"{folder}: lies in the {what}, {path}; give another --output")


def clear_leftovers(folder: Path) -> list[str]:
    """Clear what killed processes left of this folder; says what it did.

    Raises:
        Refusal: a process that lives is making it.
        BeftError: something cannot be removed.
    """
    pattern = re.compile(rf"{re.escape(folder.name + _BESIDE)}(\d+)-\w+?({_FORMER})?")
    notes = []
    try:
        beside = sorted(folder.parent.iterdir())
    except (OSError, ValueError):
        return []
    for path in beside:
        match = pattern.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir():
            continue
        try:
            names = {one.name for one in path.iterdir()}
        except OSError:  # not ours to read, or gone: whoever made it has just ended
            continue
        ours = not names or names & {LOCK, manifest.NAME}
        if not ours:
            notes.append(f"{path}: is called as ours are, and is none; it was left as it is")
            continue
        if LOCK in names:
            check_free(path)
        elif lives(int(match[1])):
            raise Refusal(
                f"{path}: process {match[1]} may still be making {folder}; wait for its end, or "
                "remove that folder yourself"
            )
        try:
            if match[2] and not folder.exists():
                path.rename(folder)
                notes.append(f"{folder}: was out of its place since a run was killed; put back")
                continue
            _remove(path)
        except OSError as error:
            raise BeftError(f"{path}: cannot be removed ({error.strerror})") from None
        notes.append(f"{path}: left by a run that was killed; cleared")
    return notes


def _remove(folder: Path) -> None:
    """All of a folder; what tells whose it is goes last."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    (folder / LOCK).unlink(missing_ok=True)
    folder.rmdir()


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """A folder to write in, kept from others, which is gone afterwards unless it was renamed."""
    try:
        name = f"{folder.name}{_BESIDE}{os.getpid()}-"
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=name))
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    try:
        with occupied(work):
            yield work
    finally:
        if work.exists():
            with suppress(OSError):
                _remove(work)


def make_ready(work: Path, linked: Collection[str] = ()) -> None:
    """On the disk, and with the rights that the umask has: safetensors and mkdtemp give less.

    Files that are second names of others' are let alone: a change of theirs would be one of both.
    """
    mask = umask()
    for path in (work, *work.rglob("*")):
        if path.relative_to(work).as_posix() in linked or path.name == LOCK:
            continue
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextmanager
def made_whole(folder: Path, kind: Kind, *, overwrite: bool) -> Iterator[tuple[Path, set[str]]]:
    """A folder beside its place to write in, which takes that place when this ends well.

    Args:
        folder: its place, as `make_place` allows it.
        kind: what it will be.
        overwrite: replace a former one.

    Yields:
        Where to write, and a set for the names of files that are others' second names.

    Raises:
        BeftError: it cannot be written; what was in its place is there as before.
    """
    linked: set[str] = set()
    with folder_beside(folder) as work:
        try:
            manifest.begin(work)
            yield work, linked
            names = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
            names = [name for name in names if name not in (manifest.NAME, LOCK)]
            manifest.begin(work, *names)
            make_ready(work, linked)
            check_place(folder, kind, overwrite=overwrite)  # others may have been here meanwhile
            take_place(work, folder)
        except OSError as error:
            raise BeftError(f"{folder}: cannot be written ({error.strerror or error})") from None


def take_place(work: Path, folder: Path) -> None:
    """Rename one folder into the place of another, which is kept until that is done."""
    (work / LOCK).unlink(missing_ok=True)
    if not folder.exists():
        work.rename(folder)
        return
    aside = work.with_name(f"{work.name}{_FORMER}")
    folder.rename(aside)
    try:
        work.rename(folder)
    except OSError:
        aside.rename(folder)  # where this fails as well, it stays under the other name
        raise
    shutil.rmtree(aside, ignore_errors=True)


def check_room(folder: Path, needed: int) -> None:
    """Refuse what a disk has no room for, before it is written.

    Raises:
        BeftError: it has not.
    """
    try:
        free = shutil.disk_usage(folder.parent).free
    except OSError:
        return
    if needed > free:
        raise BeftError(
            f"{folder}: needs {needed / 1e9:.3g} GB and its disk has {free / 1e9:.3g} GB free; "
            "make room, or give another --output"
        )
