"""Files of tensors written: a file anew from parts, parts of a copied file, and the index.

Nothing is held in memory but headers and one block; a part says by itself how its bytes come.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beftkit.checkpoints.copying import BLOCK, copy_file, copy_range, put
from beftkit.checkpoints.header import DTYPE_BITS, LENGTH_BYTES, TensorInfo
from beftkit.checkpoints.local import File, LocalFile

#: bytes that one request to a hub asks for: hubs count requests
FAR_BLOCK = 32 << 20


@dataclass(frozen=True)
class Part:
    """A tensor that is to be written.

    Attributes:
        name: on disk.
        dtype: as a header says it.
        shape: its shape.
        fill: writes all its bytes into an open file, from a place on.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    fill: Callable[[int, int], object]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return tensor_bytes(self.dtype, self.shape)


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor."""
    count = 1
    for size in shape:
        count *= size
    return count * DTYPE_BITS[dtype] // 8


def bytes_part(name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> Part:
    """A tensor whose bytes are here."""
    return Part(name, dtype, shape, lambda target, place: put(target, data, place))


def copied_part(name: str, info: TensorInfo, file: File) -> Part:
    """A tensor as it lies in another file."""

    def fill(target: int, place: int) -> None:
        if isinstance(file, LocalFile):
            with file.path.open("rb") as source:
                copy_range(source.fileno(), target, info.start, place, info.stop - info.start)
            return
        for start, block in blocks_of(file, info.start, info.stop):
            put(target, block, place + start - info.start)

    return Part(name, info.dtype, info.shape, fill)


def cast_part(
    name: str, info: TensorInfo, file: File, dtype: str, cast: Callable[[bytes], bytes]
) -> Part:
    """A tensor of another file in another dtype.

    Args:
        name: what it is called here.
        info: where it lies.
        file: in which file.
        dtype: the new one.
        cast: makes bytes of the new dtype from those of the old; of any whole elements.
    """

    def fill(target: int, place: int) -> None:
        for _, block in blocks_of(file, info.start, info.stop):
            made = cast(block)
            put(target, made, place)
            place += len(made)

    return Part(name, dtype, info.shape, fill)


def blocks_of(file: File, start: int, stop: int, multiple: int = 8) -> Iterator[tuple[int, bytes]]:
    """A range of a file block by block, each of a multiple of so many bytes but the last."""
    block = BLOCK if isinstance(file, LocalFile) else FAR_BLOCK
    step = max(block // multiple, 1) * multiple
    while start < stop:
        span = start, min(start + step, stop)
        yield start, file.read([span])[span]
        start = span[1]


def write_shard(path: Path, parts: Sequence[Part], metadata: Mapping[str, str]) -> int:
    """Write a file of tensors; returns its size.

    Args:
        path: the file, which must not be there.
        parts: wide dtypes come first in it, as safetensors' own writer has them; then by name.
        metadata: text for the header.
    """
    ordered = sorted(parts, key=lambda one: (-DTYPE_BITS[one.dtype], one.name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for part in ordered:
        places = [at, at + part.size]
        header[part.name] = {"dtype": part.dtype, "shape": [*part.shape], "data_offsets": places}
        at = places[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # values stay aligned
    start = LENGTH_BYTES + len(text)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        file.flush()
        file.truncate(start + at)
        for part in ordered:
            part.fill(file.fileno(), start)
            start += part.size
    return start


def fetch_file(file: File, target: Path) -> int:
    """Copy a whole file of tensors, wherever it lies; returns bytes written."""
    if isinstance(file, LocalFile):
        return copy_file(file.path, target)
    with target.open("xb") as made:
        for _, block in blocks_of(file, 0, size_of(file)):
            made.write(block)
        return made.tell()


def size_of(file: File) -> int:
    """Size of a file whose header was read, in bytes."""
    return int(getattr(file, "size", 0))


@contextmanager
def opened_for_patches(path: Path) -> Iterator[int]:
    """A descriptor of a copied file, whose tensors are then filled anew where they lie."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
