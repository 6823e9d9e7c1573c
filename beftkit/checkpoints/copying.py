"""Files copied by the system where it can: holes stay holes, and no byte passes through Python.

``copy_file_range`` (Linux) copies in the kernel, on some file systems without any copying; it fills
holes, so that the data between them is looked for first (``SEEK_DATA``, ``SEEK_HOLE``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from beftkit.errors import BeftError

#: bytes in memory at once, where the system does not copy by itself
BLOCK = 4 << 20
#: what copy_file_range says where it cannot work: other disks, old kernels, odd file systems
_CANNOT = (
    errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM,
    errno.EIO, errno.EBADF,
)  # fmt: skip


def copy_file(source: Path, target: Path) -> int:
    """Copy a file's bytes, and nothing of its rights; a symbolic link is read through.

    Args:
        source: what is copied.
        target: is made, and must not be there.

    Returns:
        Bytes written: the holes are none.

    Raises:
        OSError: one of them cannot be read or written.
    """
    with source.open("rb") as given, target.open("xb") as made:
        size = os.fstat(given.fileno()).st_size
        made.truncate(size)
        return copy_range(given.fileno(), made.fileno(), 0, 0, size)


def copy_range(source: int, target: int, start: int, place: int, length: int) -> int:
    """Copy a part of one open file into another whose bytes there are zeros.

    Args:
        source: descriptor of the file that is read.
        target: of the one that is written, long enough already.
        start: where the part begins in the first.
        place: where it goes in the second.
        length: of it, in bytes.

    Returns:
        Bytes written: the holes are none.
    """
    written = 0
    for first, last in _data(source, start, start + length):
        _copy(source, target, first, place + first - start, last - first)
        written += last - first
    return written


def data_bytes(path: Path) -> int:
    """Bytes of a file that are no holes: what its copy takes of a disk."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return sum(stop - start for start, stop in _data(file.fileno(), 0, size))


def link_file(source: Path, target: Path) -> bool:
    """Make a second name of a file, reading through a symbolic link; False where none can be."""
    with suppress(OSError, NotImplementedError):
        os.link(os.path.realpath(source), target)
        return True
    return False


def _data(source: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that are no holes; all of it where the system does not say."""
    if not hasattr(os, "SEEK_DATA"):
        yield start, stop
        return
    while start < stop:
        try:
            first = os.lseek(source, start, os.SEEK_DATA)
            last = os.lseek(source, first, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that is: nothing but a hole is left
                yield start, stop
            return
        if first >= stop:
            return
        yield first, min(last, stop)
        start = last


def _copy(source: int, target: int, start: int, place: int, length: int) -> None:
    by_system = hasattr(os, "copy_file_range")
    while length > 0:
        count = 0
        if by_system:
            try:
                count = os.copy_file_range(source, target, length, start, place)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
            by_system = count > 0
        if not count:
            block = os.pread(source, min(BLOCK, length), start)
            if not block:
                raise BeftError(f"a file ends at byte {start}; was it changed just now?")
            put(target, block, place)
            count = len(block)
        start, place, length = start + count, place + count, length - count


def put(target: int, data: bytes, place: int) -> None:
    """Write bytes at a place of an open file, all of them."""
    view = memoryview(data)
    while view:
        done = os.pwrite(target, view, place)
        view, place = view[done:], place + done
