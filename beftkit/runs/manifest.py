"""What a run made in its folder, by name: nothing else there is ever deleted.

``manifest.json`` grows as the run goes: a name stands there before its file is made. Names may end
in a pattern (``state/step-*.safetensors``); folders with a manifest of their own are named apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from beftkit.errors import BeftError, Refusal
from beftkit.files import check_schema, headed, umask, write_whole
from beftkit.runs.locks import LOCK, check_free

NAME = "manifest.json"
#: how temporary names begin
HALF = ".beftkit-"
#: the end of a name that stands for whatever is below
ALL = "**"


@dataclass(frozen=True)
class Manifest:
    """What is listed.

    Attributes:
        files: names from the folder on; the last part may be a pattern, or `ALL`.
        folders: names of folders that list themselves what is theirs.
    """

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def read(folder: Path) -> Manifest | None:
    """A folder's manifest, or None.

    Raises:
        BeftError: it is damaged, or names something outside of the folder.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
        found = Manifest(tuple(map(str, held["files"])), tuple(map(str, held["folders"])))
        check_schema(path, held)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BeftError(f"{path}: damaged ({error}); nothing there is deleted") from None
    for name in (*found.files, *found.folders):
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\0" in name:
            raise BeftError(f"{path}: names {name!r}, which is not below {folder}")
    return found


def add(folder: Path, *files: str, folders: Iterable[str] = ()) -> None:
    """List what is about to be made.

    Raises:
        BeftError: it cannot be written; what was listed is untouched.
    """
    held = read(folder) or Manifest()
    new = Manifest(
        tuple(dict.fromkeys((*held.files, *files))), tuple(dict.fromkeys((*held.folders, *folders)))
    )
    if new != held:
        _write(folder, new)


def begin(folder: Path, *files: str, folders: Iterable[str] = ()) -> None:
    """List this alone, once all that was listed is gone."""
    _write(folder, Manifest(files, tuple(folders)))


def _write(folder: Path, manifest: Manifest) -> None:
    write_whole(folder / NAME, (json.dumps(headed(asdict(manifest)), indent=2) + "\n").encode())


def made(folder: Path, what: str = "a run") -> list[Path]:
    """What there is of all that is listed, here and by the folders below.

    Args:
        folder: of a run, a selection, a demo.
        what: it holds, for messages.

    Raises:
        Refusal: no manifest says what was made, a process writes there, or a symbolic link stands
            in the way: none is followed.
    """
    held = read(folder)
    if held is None:
        raise Refusal(
            f"{folder}: holds {what} without {NAME}, which would list what it made (an older "
            "version's, or from elsewhere); remove it yourself, or give another --output"
        )
    found = [path for name in held.files for path in matching(folder, name)]
    for place in {folder, *((folder / name).parent for name in held.files)}:
        for path in place.glob(f"{HALF}*"):  # what a kill left
            found += _below(path) if path.is_dir() and not path.is_symlink() else [path]
    for name in held.folders:
        below = folder / name
        check_no_link(folder, name)
        if below.is_dir() and any(one.name != LOCK for one in below.iterdir()):
            check_free(below)
            found += [*made(below), below / LOCK, below / NAME]
    return found


def matching(folder: Path, name: str) -> list[Path]:
    """The files there that a name stands for.

    Raises:
        Refusal: one of them is a symbolic link, or lies behind one.
    """
    where, _, last = name.rpartition("/")
    check_no_link(folder, where)
    if last == ALL:
        return [*_below(folder / where)]
    found = sorted((folder / where).glob(last)) if "*" in last else [folder / name]
    for path in found:
        check_no_link(folder, str(path.relative_to(folder)))
    return [path for path in found if path.is_file()]


def _below(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):  # follows no link
        yield from (Path(where) / name for name in names)


def check_no_link(folder: Path, name: str) -> None:
    """Refuse a name in a folder that is a symbolic link, or leads through one.

    Raises:
        Refusal: it says which.
    """
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink():
            raise Refusal(
                f"{path}: is a symbolic link, which is not followed; remove the link, or give "
                "another --output"
            )


def unlisted(path: Path) -> Refusal:
    """A file that would be replaced, and is nobody's that we know."""
    return Refusal(
        f"{path}: would be replaced, but {NAME} does not list it as made by a run; move it away, "
        "or give another --output"
    )


def remove(folder: Path, paths: Iterable[Path]) -> None:
    """Delete these files, and folders below this one that are empty then.

    Where others keep something, a manifest stays: it tells whose folder it was.
    """
    for path in paths:
        if path.name == NAME and [*path.parent.iterdir()] != [path]:
            begin(path.parent)
            continue
        path.unlink(missing_ok=True)
        for above in path.parents:
            if above == folder:
                break
            with suppress(OSError):  # what others keep there stays
                above.rmdir()


def move_files(work: Path, folder: Path, prefix: str = "") -> list[str]:
    """List all files of a folder, then move them into another; returns their names there.

    What was there under their names is replaced, the rest stays. Rights are as the umask has them:
    safetensors and ``mkdtemp`` would keep other users out.
    """
    found = sorted(_below(work), key=lambda path: (path.name == "config.json", path))
    names = {path: prefix + path.relative_to(work).as_posix() for path in found}
    add(folder, *names.values())
    rights = 0o666 & ~umask()
    for path, name in names.items():
        target = folder / name
        check_no_link(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(rights)
        path.replace(target)
    return [*names.values()]
