"""The two files of a survey while it goes: what was added once is there after any end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from beftkit.errors import BeftError
from beftkit.surveys.rows import CHANGES, ROWS, Head, Row, line
from beftkit.surveys.scoring import Done

_BLOCK = 1 << 16


class Ledger:
    """Appends rows and changes; each addition is on the disk whole when `add` returns.

    Args:
        folder: is there already, and nobody else's.
        head: of the survey.
        held: rows that are there, of a survey that is taken up; None: it begins, and what is left
            of one that was killed before its first line was whole is replaced.

    Raises:
        BeftError: a file cannot be written.
    """

    def __init__(self, folder: Path, head: Head, held: Sequence[Row] | None) -> None:
        self._folder, self._length = folder, 4 * head.length
        used = [row.change for row in held or () if row.change is not None]
        self._next = max(used, default=-1) + 1
        self._count = len(held or ())
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._rows = self._changes = -1
        try:
            self._rows = os.open(folder / ROWS, flags, 0o666)
            self._changes = os.open(folder / CHANGES, flags, 0o666)
            self._end = _whole_lines(self._rows) if held is not None else 0
            os.ftruncate(self._rows, self._end)  # half a line is what a kill left
            os.ftruncate(self._changes, self._next * self._length)
            if held is None:
                self._append(line(head))
            _sync_folder(folder)
        except OSError as error:
            self.close()
            raise self._unwritten(error) from None
        except BaseException:
            self.close()
            raise

    def add(self, dones: Sequence[Done]) -> None:
        """Add what came of some models.

        Raises:
            BeftError: the disk is full, or the like; what was there before is untouched.
        """
        number, lines = self._next, []
        try:
            for done in dones:
                row = done.row
                if done.change is not None:
                    data = done.change.astype("<f4", copy=False).tobytes()
                    _write(self._changes, data, number * self._length)
                    row, number = replace(row, change=number), number + 1
                lines.append(line(row))
            if number > self._next:
                os.fsync(self._changes)  # before the rows that speak of it
            self._append(b"".join(lines))
        except OSError as error:
            for descriptor, size in (
                (self._rows, self._end),
                (self._changes, self._next * self._length),
            ):
                try:
                    os.ftruncate(descriptor, size)
                except OSError:  # half a line is left out by readers
                    pass
            raise self._unwritten(error) from None
        self._next, self._count = number, self._count + len(dones)

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (self._rows, self._changes):
            if descriptor >= 0:
                os.close(descriptor)
        self._rows = self._changes = -1

    def _append(self, data: bytes) -> None:
        _write(self._rows, data, self._end)
        os.fsync(self._rows)
        self._end += len(data)

    def _unwritten(self, error: OSError) -> BeftError:
        return BeftError(
            f"{self._folder}: cannot be written ({error.strerror}); {self._count} models are kept "
            "there: make room, then go on with --resume"
        )


def _write(descriptor: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written


def _whole_lines(descriptor: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(end - _BLOCK, 0)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    """A power cut shall not take a new file's name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
