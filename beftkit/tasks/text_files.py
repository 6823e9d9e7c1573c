"""The text of a file, plain or gzip: UTF-8. What is something else is named for what it is."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from beftkit.errors import BeftError

_GZIP = b"\x1f\x8b"
#: a gzip file that unpacks to more bytes than this, and to so many times its size, is no text:
#: text packs to a fifth, deflate can do a thousandth
UNPACKED, TIMES = 1 << 30, 100
#: How files begin that are no text of ours -> what they are, and what to do.
_OTHERS = (
    (rb"\xff\xfe|\xfe\xff", "UTF-16, not UTF-8 text; convert the file"),
    (rb"PK\x03\x04", "a zip archive or Excel file; give what is in it, a sheet as CSV UTF-8"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file; save the sheet as CSV UTF-8"),
    (rb"(?s)PAR1.*PAR1\Z", "a Parquet file; give it a name in .parquet"),
    (rb"BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd", "packed; unpack it, or pack it with gzip"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file; get that with git lfs pull"),
    (rb"(?i)\s*<(!doctype html|html)", "an HTML page, not the file; download it again"),
)


def suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case: that before ``.gz``, where there is one."""
    return Path(bare_name(path)).suffix.lower()


def bare_name(path: Path) -> str:
    """The file's name without ``.gz``."""
    return path.stem if path.suffix.lower() == ".gz" else path.name


def plain_or_gzip(path: Path) -> Path:
    """This file, or the same name with ``.gz`` where only that is there."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


def check_regular(path: Path) -> None:
    """Raises BeftError unless it is a file."""
    try:
        if path.is_file():  # opening a pipe would wait for ever
            return
        what = "not a file" if path.exists() else "no such file"
    except (OSError, ValueError):  # a name that no file system takes
        what = "no such file"
    raise BeftError(f"{path}: {what}")


def read_text(path: Path) -> str:
    """All text of a file, without a byte order mark (MRPC's dev.tsv begins with one).

    Raises:
        BeftError: it cannot be read, is empty, damaged, or no UTF-8 text.
    """
    raw = _unpacked(path)
    if not raw.strip():
        raise BeftError(f"{path}: empty")
    _check_kind(path, raw)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BeftError(f"{path}:{line}: not UTF-8 text; convert the file") from None
    if (at := text.find("\0")) >= 0:
        raise BeftError(
            f"{path}:{text.count(chr(10), 0, at) + 1}: a NUL character, as UTF-16 and binary files"
            " hold; expected UTF-8 text"
        )
    return text


def read_lines(path: Path) -> list[str]:
    """Lines without their ends: line feeds, or carriage returns where there is no line feed.

    Texts may hold any other separator of Unicode.
    """
    return split_lines(read_text(path))


class Text:
    """The text of a file in memory, read in lines as often as wanted."""

    def __init__(self, text: str) -> None:
        self.text = text

    def raw(self) -> Iterator[str]:
        """Lines with their ends, of whatever kind, as csv readers want them."""
        return iter(io.StringIO(self.text, newline=""))

    def lines(self) -> Iterator[str]:
        """Lines as by `read_lines`."""
        return iter(split_lines(self.text))


class TextOnDisk:
    """The same of a file that is not kept in memory: each reading opens it anew.

    Raises:
        BeftError: as by `read_text`; of what stands further behind, when that is read.
    """

    def __init__(self, path: Path) -> None:
        check_regular(path)
        self.path = path
        with self._opened() as file:
            start = self._told(file.read, 1 << 16)
        if not start.strip():
            raise BeftError(f"{path}: empty")
        _check_kind(path, start)

    def raw(self) -> Iterator[str]:
        """As of `Text`."""
        return self._decoded("")

    def lines(self) -> Iterator[str]:
        """As of `Text`; a file without line feeds is one line, and read whole."""
        first = True
        for line in self._decoded("\n"):
            if first and not line.endswith("\n"):
                yield from split_lines(line)
                return
            first = False
            yield line.removesuffix("\n").removesuffix("\r")

    def count(self) -> int:
        """Line feeds in it: about as many as there are rows."""
        with self._opened() as file:
            blocks = iter(lambda: self._told(file.read, 1 << 16), b"")
            return sum(block.count(b"\n") for block in blocks)

    def _decoded(self, newline: str) -> Iterator[str]:
        with io.TextIOWrapper(self._opened(), encoding="utf-8-sig", newline=newline) as file:
            number = 0
            while line := self._told(file.readline, -1):
                number += 1
                if "\0" in line:
                    raise BeftError(
                        f"{self.path}:{number}: a NUL character, as UTF-16 and binary files hold; "
                        "expected UTF-8 text"
                    )
                yield line

    def _opened(self) -> BinaryIO:
        return _opened(self.path)

    def _told(self, read: Callable[[int], Any], size: int) -> Any:
        """What is read, or in one line what is wrong with it."""
        try:
            return read(size)
        except UnicodeDecodeError:
            where = f"{self.path}:{self._undecodable()}"
            raise BeftError(f"{where}: not UTF-8 text; convert the file") from None
        except (EOFError, OSError, zlib.error) as error:
            raise _bad_gzip(self.path, error) from None

    def _undecodable(self) -> int:
        """The first line that is no UTF-8; decoders read ahead of the line they are asked for."""
        with self._opened() as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return number
        return 1


def split_lines(text: str) -> list[str]:
    """As `read_lines`."""
    lines = text.split("\n" if "\n" in text else "\r")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _check_kind(path: Path, raw: bytes) -> None:
    """Raises BeftError for what begins as no text of ours does."""
    for begins, what in _OTHERS:
        if re.match(begins, raw):
            raise BeftError(f"{path}: {what}")


class _Unpacked(io.RawIOBase):
    """A gzip file as it unpacks, block by block; no more than is likely of a text."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.packed = path, path.stat().st_size
        self.file, self.gzip, self.seen = file, gzip.GzipFile(fileobj=file), 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, into: Any) -> int:
        """The next bytes.

        Raises:
            BeftError: they are too many.
        """
        found = self.gzip.read1(len(into))
        into[: len(found)] = found
        self.seen += len(found)
        if self.seen > max(UNPACKED, TIMES * self.packed):
            raise BeftError(
                f"{self.path}: unpacks to more than {self.seen >> 20:,} MiB, over {TIMES} times "
                f"its {self.packed:,} bytes, as no text does; unpack it yourself if it is one"
            )
        return len(found)

    def close(self) -> None:
        """The file too."""
        super().close()
        self.file.close()


def _opened(path: Path) -> BinaryIO:
    """A file, unpacked where it is gzip.

    Raises:
        BeftError: it cannot be read, or is called gzip and is none.
    """
    try:
        file = path.open("rb")
        packed = file.read(2) == _GZIP
        file.seek(0)
        if packed:
            return cast("BinaryIO", io.BufferedReader(_Unpacked(path, file), 1 << 16))
        if path.suffix.lower() == ".gz" and path.stat().st_size:
            raise _no_gzip(path)
    except OSError as error:
        raise BeftError(f"{path}: cannot be read ({error.strerror})") from None
    return file


def _no_gzip(path: Path) -> BeftError:
    return BeftError(f"{path}: not gzip, though it is called so; expected a whole .gz file")


def _bad_gzip(path: Path, error: Exception) -> BeftError:
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return BeftError(f"{path}: cannot be read ({error.strerror or error})")
    if isinstance(error, EOFError):
        return BeftError(f"{path}: gzip cut off before its end; get the file again")
    return BeftError(f"{path}: damaged gzip ({error}); get the file again")


def _unpacked(path: Path) -> bytes:
    check_regular(path)
    with _opened(path) as file:
        try:
            return file.read()
        except (EOFError, OSError, zlib.error) as error:
            raise _bad_gzip(path, error) from None
