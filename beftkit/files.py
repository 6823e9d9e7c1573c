"""Files that are written whole or not at all; results as JSON keeps them, typed again."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from types import UnionType
from typing import IO, Any, TypeVar, get_args, get_origin, get_type_hints

from beftkit.errors import BeftError, UsageError

Result = TypeVar("Result")
#: of every JSON of ours; 1 (all_results.json and cell.json had none yet) is still read
SCHEMA = 2
#: how names of files that are being written begin; the number of the process follows
_HALF = ".beftkit-"
_NAMED = re.compile(rf"{re.escape(_HALF)}(\d{{1,9}})-[a-z0-9_]{{8}}")


def check_writable(path: str | Path) -> Path:
    """Refuse an output path before any work is done for it.

    Raises:
        BeftError: its folder is missing or cannot be written to, or it is a folder itself.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise BeftError(f"{path}: is a folder; expected a file to write to")
        if not path.parent.is_dir():
            raise BeftError(f"{path}: its folder does not exist; make it first")
        if path.exists() and not os.access(path, os.W_OK):
            raise BeftError(f"{path}: cannot be written to; choose another place")
        if path.is_file() or not path.exists():
            _try_folder(path.parent)
    except OSError as error:
        raise BeftError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def path_or_name(given: object, what: str) -> str:
    """A path, or a name on the hub, as text; anything else is refused.

    A `Path` is never a name on the hub: of one that is not there the text is no such name either.

    Args:
        given: what a caller gave.
        what: it is meant to be, for the message.

    Raises:
        UsageError: a list, a model in memory, ...
    """
    if isinstance(given, (str, os.PathLike)) and isinstance(path := os.fspath(given), str):
        clear = isinstance(given, str) or os.path.lexists(path) or Path(path).is_absolute()
        return path if clear else f"{os.curdir}{os.sep}{path}"
    kind = type(given).__name__
    each = "; each is given by itself" if isinstance(given, (list, tuple)) else ""
    raise UsageError(f"{what}: a path or owner/name is expected, and {kind} was given{each}")


def same_file(path: Path, other: str) -> bool:
    """Whether both name one existing file or folder."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file that is there whole or not at all.

    Raises:
        BeftError: the path cannot be written; nothing is left behind.
    """
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A temporary file beside ``path``, which is renamed into place when this ends well.

    What a killed process left so, in the same folder, is cleared.

    Raises:
        BeftError: the path cannot be written; nothing is left behind.
    """
    path = check_writable(path)
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: there is no renaming
            with path.open("wb") as file:
                yield file
            return
        _clear_leftovers(path.parent)
        with _locked_beside(path.parent) as (descriptor, name):
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # before the renaming: a power cut leaves one or the other
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask()
            name.chmod(mode)  # mkstemp's 0600 would surprise
            name.replace(path)
    except OSError as error:
        raise BeftError(f"{path}: cannot be written ({error.strerror})") from None


@contextmanager
def _locked_beside(folder: Path) -> Iterator[tuple[int, Path]]:
    """A new file, open, and locked for as long as this lasts; it is gone where this fails."""
    import tempfile

    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=f"{_HALF}{os.getpid()}-")
        # Another may take it for a leftover before it is locked: then there is one more.
        if (locked := _lock(descriptor)) is None or (locked and Path(name).exists()):
            break
        os.close(descriptor)
    lock = os.dup(descriptor) if locked else None  # a file is closed before it is renamed
    try:
        yield descriptor, Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _lock(descriptor: int) -> bool | None:
    """Take a file's lock, which ends with the process; None: disk or system has no such locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _clear_leftovers(folder: Path) -> None:
    """Drop what killed processes left of files that they wrote in a folder, and nothing else.

    That is a plain file under such a name, of a process that is no more (a number that is ours by
    now is not its any more), whose lock can be had: nobody writes it on another machine either.
    Where there are no such locks nothing is dropped.
    """
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            match = _NAMED.fullmatch(path.name)
            if match is None or (int(match[1]) != os.getpid() and lives(int(match[1]))):
                continue
            with suppress(OSError):
                flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW
                descriptor = os.open(path, flags)
                try:
                    if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor):
                        path.unlink()
                finally:
                    os.close(descriptor)


def lives(process: int) -> bool:
    """Whether a process of this number is among those here."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # or no number of a process at all
        return False
    except OSError:
        return True
    return True


def umask() -> int:
    """The rights that new files shall not have."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _try_folder(folder: Path) -> None:
    """Make a file there and drop it: access rights alone say little to root or of /proc."""
    import tempfile

    with tempfile.TemporaryFile(dir=folder):
        pass


def stable_header(data: bytes) -> bytes:
    """A safetensors file with its metadata in order: equal contents are then equal bytes.

    The library writes metadata in an order that differs from process to process.
    """
    import json

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # values stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def headed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON of ours, with what its form is and who wrote it in front."""
    from beftkit import __version__

    return {"schema_version": SCHEMA, "beftkit_version": __version__, **values}


def read_headed(path: Path) -> dict[str, Any]:
    """JSON of ours from a file, of this version or an older one.

    Raises:
        BeftError: of a newer version.
        OSError, ValueError, RecursionError: unreadable, or no JSON object.
    """
    import json

    values = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
    if not isinstance(values, dict):
        raise ValueError("expected an object")
    check_schema(path, values)
    return values


def check_schema(path: Path, values: Mapping[str, Any]) -> None:
    """Refuse JSON that another beftkit wrote in a form of its own.

    Raises:
        BeftError: in one line, with the version and what to do.
    """
    schema = values.get("schema_version", 1)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        writer = f" by beftkit {version}" if (version := values.get("beftkit_version")) else ""
        raise BeftError(
            f"{path}: schema version {schema!r}, written{writer}; this beftkit reads up to "
            f"{SCHEMA}: use the version that wrote it, or a newer one"
        )


def no_number(word: str) -> Any:
    """For ``json.loads``: NaN and infinities are nothing that JSON knows."""
    raise ValueError(f"{word} is no number")


def from_plain(kind: type[Result], values: Mapping[str, Any]) -> Result:
    """A dataclass that ``dataclasses.asdict`` wrote down; keys that it does not know are left out.

    Raises:
        TypeError, AttributeError: something is lacking, or of another shape.
    """
    kinds = get_type_hints(kind)
    known = [one.name for one in fields(kind) if one.name in values]  # type: ignore[arg-type]
    return kind(**{name: _typed(kinds[name], values[name]) for name in known})


def _typed(kind: Any, value: Any) -> Any:
    inner = get_args(kind)
    if isinstance(kind, UnionType):  # ... | None
        return None if value is None else _typed(inner[0], value)
    if hasattr(kind, "model_validate"):  # settings
        return kind.model_validate(value)
    if is_dataclass(kind) and isinstance(kind, type):
        return getattr(kind, "from_dict", partial(from_plain, kind))(value)
    if get_origin(kind) is tuple:
        return tuple(map(_typed, repeat(inner[0]) if inner[-1] is ... else inner, value))
    if get_origin(kind) in (dict, Mapping):
        return {key: _typed(inner[1], one) for key, one in value.items()}
    return value


def plain_of(one: Any, names: str) -> dict[str, Any]:
    """Some attributes, whose names stand between blanks, as plain values in that order."""
    values = {name: getattr(one, name) for name in names.split()}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
