"""Byte ranges of local files: ``pread`` only what is asked for.

No mmap: the read-ahead of a page fault fetches hundreds of times the bytes of a bias from a cold
disk. No torch: its import alone takes longer than a whole score.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from beftkit.checkpoints.header import (
    LENGTH_BYTES,
    TensorInfo,
    header_length,
    parse_header,
    parse_json_object,
    parse_metadata,
)
from beftkit.checkpoints.pickles import PICKLES, PickleFile
from beftkit.errors import BeftError

Span = tuple[int, int]


def coalesce(spans: Iterable[Span], slack: float = 0.04, spare: int = 0) -> list[Span]:
    """Merge neighbouring byte ranges, smallest gaps first.

    Args:
        spans: non-overlapping half-open ranges (start, stop).
        slack: how many bytes may be read in vain, as a share of those wanted.
        spare: so many may be in any case.

    Returns:
        Sorted half-open ranges that cover all of ``spans``.
    """
    ordered = sorted(span for span in spans if span[1] > span[0])
    budget = max(slack * sum(stop - start for start, stop in ordered), spare)
    gaps = [(b[0] - a[1], i + 1) for i, (a, b) in enumerate(pairwise(ordered))]
    joined: set[int] = set()
    for gap, index in sorted(gaps):
        budget -= gap
        if budget < 0:
            break
        joined.add(index)
    merged: list[Span] = []
    for index, (start, stop) in enumerate(ordered):
        if index in joined:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


def cut_out(spans: Iterable[Span], blocks: Iterable[tuple[int, bytes]]) -> dict[Span, bytes]:
    """Each of the spans with its bytes.

    Args:
        spans: non-overlapping half-open ranges.
        blocks: where it begins and its bytes, of each range that `coalesce` made of them.
    """
    wanted = sorted(set(spans))
    result: dict[Span, bytes] = dict.fromkeys(wanted, b"")
    pending = iter([span for span in wanted if span[1] > span[0]])
    span = next(pending, None)
    for start, block in blocks:
        while span is not None and span[1] <= start + len(block):
            result[span] = block[span[0] - start : span[1] - start]
            span = next(pending, None)
    return result


def sift(chunks: Iterable[bytes], start: int, spans: Iterable[Span]) -> Iterator[bytes]:
    """Of bytes that come one after the other those of the spans alone, in order.

    Args:
        chunks: the bytes.
        start: where they begin.
        spans: sorted, non-overlapping half-open ranges.
    """
    pending = [span for span in spans if span[1] > span[0]]
    place = number = 0
    for chunk in chunks:
        place, begin = start + len(chunk), start
        while number < len(pending) and pending[number][0] < place:
            first, last = pending[number]
            yield chunk[max(first - begin, 0) : last - begin]
            if last > place:
                break
            number += 1
        start = place


class File(Protocol):
    """A file of tensors, wherever it lies: a header, and byte ranges when asked."""

    where: str
    bytes_read: int

    def header(self, file: int = 0) -> dict[str, TensorInfo]:
        """Read and check the header; ``file`` is stored in each tensor's info."""
        ...

    def metadata(self) -> dict[str, str]:
        """The text in the header that was read."""
        ...

    def read(self, spans: Iterable[Span]) -> dict[Span, bytes]:
        """Read non-overlapping half-open ranges; each range with its bytes."""
        ...


@runtime_checkable
class RemoteFile(Protocol):
    """A file so far away that requests to it, and to others, should be under way at once."""

    def start_header(self, file: int = 0) -> Callable[[], dict[str, TensorInfo]]:
        """Ask for the header; it comes when the result is called."""
        ...

    def start_read(self, spans: Iterable[Span]) -> Callable[[], dict[Span, bytes]]:
        """Ask for ranges; they come when the result is called."""
        ...


def read_headers(files: Iterable[File]) -> list[dict[str, TensorInfo]]:
    """The headers of files, numbered as they come: far ones at once, local ones in turn."""
    waiting = [
        file.start_header(number) if isinstance(file, RemoteFile) else partial(file.header, number)
        for number, file in enumerate(files)
    ]
    return [answer() for answer in waiting]


def read_spans(wanted: Iterable[tuple[File, Iterable[Span]]]) -> list[dict[Span, bytes]]:
    """Ranges of several files: those of far ones at once, of local ones in turn."""
    waiting = [
        file.start_read(spans) if isinstance(file, RemoteFile) else partial(file.read, spans)
        for file, spans in wanted
    ]
    return [answer() for answer in waiting]


class Folder(Protocol):
    """A folder of such files, wherever it lies."""

    where: str

    def names(self) -> list[str]:
        """Names of the files in it, sorted."""
        ...

    def has(self, name: str) -> bool:
        """Whether a file of that name is in it."""
        ...

    def open(self, name: str) -> File:
        """A file in it; nothing is read yet."""
        ...

    def json(self, name: str, what: str, *, infinities: bool = False) -> dict[str, Any]:
        """A small JSON object file in it."""
        ...

    def whole(self, name: str) -> bytes:
        """A file of some megabytes in it, whole."""
        ...


class LocalFolder:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)

    def names(self) -> list[str]:
        """Names of the files in it, sorted."""
        try:
            return sorted(entry.name for entry in self.path.iterdir())
        except OSError as error:
            raise BeftError(f"{self.path}: cannot be listed ({error.strerror})") from None

    def has(self, name: str) -> bool:
        """Whether a file of that name is in it."""
        try:
            return (self.path / name).exists()
        except (OSError, ValueError):  # a name that no file system takes
            return False

    def open(self, name: str) -> File:
        """A file in it; nothing is read yet."""
        path = self.path / name
        return PickleFile(path) if path.suffix in PICKLES else LocalFile(path)

    def json(self, name: str, what: str, *, infinities: bool = False) -> dict[str, Any]:
        """A small JSON object file in it."""
        return read_json_file(self.path / name, what, infinities=infinities)

    def whole(self, name: str) -> bytes:
        """A file of some megabytes in it, whole."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise BeftError(f"{self.path / name}: cannot be read ({error.strerror})") from None


class LocalFile:
    """One safetensors file on disk. ``bytes_read`` counts what was read from it so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self.bytes_read = 0
        self.size = 0
        self._header = b"{}"

    def header(self, file: int = 0) -> dict[str, TensorInfo]:
        """Read and check the header; ``file`` is stored in each tensor's info."""
        with self._open() as descriptor:
            first = self._pread(descriptor, 0, min(self.size, LENGTH_BYTES))
            length = header_length(first, self.size, self.where)
            raw = self._pread(descriptor, LENGTH_BYTES, length)
        tensors = parse_header(raw, LENGTH_BYTES + length, self.size, self.where)
        self._header = raw
        return {name: info._replace(file=file) for name, info in tensors.items()}

    def metadata(self) -> dict[str, str]:
        """The text in the header that was read."""
        return parse_metadata(self._header, self.where)

    def read(self, spans: Iterable[Span]) -> dict[Span, bytes]:
        """Read byte ranges, neighbours together.

        Args:
            spans: non-overlapping half-open ranges within the file.

        Returns:
            Each range with its bytes.

        Raises:
            BeftError: the file is gone, unreadable or shorter than it was.
        """
        wanted = set(spans)
        with self._open() as descriptor:
            places = coalesce(wanted)
            blocks = ((a, self._pread(descriptor, a, b - a)) for a, b in places)
            return cut_out(wanted, blocks)

    def _open(self) -> _Descriptor:
        descriptor = _Descriptor(self.path)
        self.size = descriptor.size
        return descriptor

    def _pread(self, descriptor: _Descriptor, start: int, length: int) -> bytes:
        blocks = []
        while length > 0:
            try:
                block = os.pread(descriptor.number, length, start)
            except OSError as error:
                raise BeftError(f"{self.path}: cannot be read ({error.strerror})") from None
            if not block:
                raise BeftError(f"{self.path}: ends at byte {start}; was it changed just now?")
            blocks.append(block)
            start += len(block)
            length -= len(block)
            self.bytes_read += len(block)
        return b"".join(blocks)


class _Descriptor:
    """An open file descriptor with read-ahead switched off, where the system can do that."""

    def __init__(self, path: Path) -> None:
        try:
            if not path.is_file():  # opening a pipe would wait for ever
                raise BeftError(f"{path}: not a regular file; expected a .safetensors file")
            self.number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise BeftError(f"{path}: cannot be opened ({error.strerror})") from None
        self.size = os.fstat(self.number).st_size
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_RANDOM)

    def __enter__(self) -> _Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


def read_json_file(
    path: Path, what: str, limit: int = 100_000_000, *, infinities: bool = False
) -> dict[str, Any]:
    """Read a small JSON object file (``config.json``, an index), bounded in size."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait, a device would never end
            raise BeftError(f"{path}: not a regular file; expected a {what} in JSON")
        if path.stat().st_size > limit:
            raise BeftError(f"{path}: {what} is larger than {limit} bytes; not believable")
        raw = path.read_bytes()
    except BeftError:
        raise
    except OSError as error:
        raise BeftError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:  # a NUL in the name
        raise BeftError(f"{str(path)!r}: not a usable path") from None
    return parse_json_object(raw, str(path), what, infinities=infinities)
