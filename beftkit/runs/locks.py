"""One process at a time in a run's folder."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from beftkit.errors import BeftError, Refusal
from beftkit.files import lives

#: holds process and machine of whoever has the folder, a line each, as filelock's soft lock does
LOCK = ".beftkit.lock"
_HELD: set[Path] = set()


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep all other processes out of a folder while it lasts; it ends with the process.

    Args:
        folder: is there already.

    Raises:
        Refusal: another process has it; it is named.
        BeftError: the folder cannot be written to.
    """
    path = folder.absolute() / LOCK
    with _locked(folder, path) as soft:
        if not soft or not _read(path):  # newer soft locks say by themselves who has them
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        yield


def check_free(folder: Path) -> None:
    """Refuse a folder that another process has.

    Raises:
        Refusal: it has; it is named.
    """
    path = folder.absolute() / LOCK
    if path.exists():
        with _locked(folder, path):
            pass


@contextmanager
def _locked(folder: Path, path: Path) -> Iterator[bool]:
    """Hold the lock; gives whether it is a soft one, as on a disk without flock."""
    from filelock import FileLock, SoftFileLock, Timeout

    said = _read(path)
    if path.is_symlink():
        raise Refusal(f"{path}: is a symbolic link, which is not followed; remove the link")
    try:
        # Many a version of filelock finds a soft lock of others in its own way, and removes it.
        lock = (FileLock if _has_flock(folder) else SoftFileLock)(path, timeout=0)
        lock.acquire()
    except Timeout:
        with suppress(OSError):  # filelock before 3.30 empties the file that it asks for
            if said and not _read(path):
                path.write_text(said)
        raise Refusal(_taken(folder, said or _read(path))) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BeftError(f"{path}: cannot be written ({reason}); give another --output") from None
    _HELD.add(path)
    try:
        yield isinstance(lock, SoftFileLock)
    finally:
        _HELD.discard(path)
        lock.release()


def _has_flock(folder: Path) -> bool:
    """Whether the disk knows flock, or the system another lock of its own (Windows)."""
    import tempfile

    try:
        import fcntl
    except ImportError:
        return True
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
    return True


def _taken(folder: Path, said: str) -> str:
    """In a line: by whom, and what to do."""
    words = said.split()
    if len(words) < 2 or not words[0].isdigit():
        return f"{folder}: another process writes there; wait for its end, or give another --output"
    process, host = int(words[0]), words[1]
    who = f"{folder}: process {process} on {host} writes there"
    if host == socket.gethostname() and lives(process):
        return f"{who}; wait for its end, or give another --output"
    where = "not among the processes here" if host == socket.gethostname() else "another machine"
    return f"{who} ({where}); once it is surely gone, remove {folder / LOCK}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:300]
    except OSError:
        return ""


def _let_go() -> None:
    """In a forked child: a lock lasts as long as any descriptor of it, and is not the child's."""
    for path in _HELD:
        with suppress(OSError):
            wanted = path.stat()
            for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names are numbers
                with suppress(OSError, ValueError):
                    if os.path.samestat(os.fstat(int(name)), wanted):
                        os.close(int(name))
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
