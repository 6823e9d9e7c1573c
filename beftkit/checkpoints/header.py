"""The header of a safetensors file: parsed, and checked for all that the format promises.

Layout (https://github.com/huggingface/safetensors, section Format): 8 bytes, little-endian
unsigned N; N bytes of JSON that begin with ``{``; then the data, of which every byte belongs to
exactly one tensor.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NamedTuple

from beftkit.errors import BeftError

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # the format's own bound, against absurd allocations
MAX_DEPTH = 127  # of nested JSON, as the format's own reader has it

_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "I64 U64 F64 C64",
}
#: bits per element of every dtype that the format knows
DTYPE_BITS = {name: bits for bits, names in _BY_BITS.items() for name in names.split()}


class TensorInfo(NamedTuple):
    """Where one tensor lies: ``file`` counts a checkpoint's files, offsets are within that file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    file: int = 0


class _DuplicateKey(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return result


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _refuse_number(text)


def parse_json_object(
    raw: bytes, where: str, what: str, *, infinities: bool = False
) -> dict[str, Any]:
    """Decode a JSON object strictly: UTF-8, no duplicate keys, no surprise exceptions.

    Args:
        raw: the bytes.
        where: the file, for messages.
        what: what these bytes are ("header", "index"), for messages.
        infinities: allow NaN and Infinity, which JSON forbids and some ``config.json`` hold.

    Raises:
        BeftError: not UTF-8, not JSON, nested absurdly, a key twice, or not an object.
    """
    hooks: dict[str, Any] = {"object_pairs_hook": _unique}
    if not infinities:
        hooks |= {"parse_constant": _refuse_number, "parse_float": _finite}
    try:
        value = json.loads(raw.decode("utf-8"), **hooks)
        if b"\\ud" in raw or b"\\uD" in raw:  # half a surrogate pair is no text: refuse it here
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        too_deep = isinstance(value, (dict, list)) and _deeper_than(MAX_DEPTH, value)
    except _DuplicateKey as error:
        raise BeftError(f"{where}: {what} holds the key {shorten(str(error))} twice") from None
    except RecursionError:
        too_deep = True
    except ValueError:  # UnicodeError, JSONDecodeError, integers of thousands of digits
        raise BeftError(f"{where}: {what} is not valid JSON; is the file damaged?") from None
    if too_deep:
        raise BeftError(f"{where}: {what} is nested absurdly deep; expected a flat object")
    if not isinstance(value, dict):
        raise BeftError(f"{where}: {what} is a JSON {type(value).__name__}; expected an object")
    return value


def _deeper_than(limit: int, value: Any) -> bool:
    """Whether JSON is nested deeper than that: whoever walks it may then recurse."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def shorten(text: str, limit: int = 80) -> str:
    """Quote a name out of a file for a one-line message, whatever it holds."""
    shown = repr(text[: limit + 1])  # a name may be as long as the file
    return shown if len(shown) <= limit else f"{shown[: limit - 4]}...{shown[-1]}"


def header_length(first: bytes, file_size: int, where: str) -> int:
    """Read N from the first 8 bytes and hold it against the file's size."""
    if file_size == 0:
        raise BeftError(f"{where}: the file is empty; expected a safetensors file")
    if len(first) < LENGTH_BYTES:
        raise BeftError(f"{where}: {file_size} bytes is too short for a safetensors file")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    # A zip's first bytes can be a believable length, so these come first.
    if first.startswith(b"PK\x03\x04") or (length > MAX_HEADER and first[0] == 0x80):
        raise BeftError(
            f"{where}: not a safetensors file but a pickle; convert it to .safetensors first"
        )
    if length > MAX_HEADER:
        raise BeftError(
            f"{where}: not a safetensors file (header length {length} is above the format's "
            f"bound of {MAX_HEADER})"
        )
    if LENGTH_BYTES + length > file_size:
        raise BeftError(
            f"{where}: the header should be {length} bytes, but only {file_size - LENGTH_BYTES} "
            "follow; the file is cut short, fetch it again"
        )
    return length


def parse_header(raw: bytes, data_start: int, file_size: int, where: str) -> dict[str, TensorInfo]:
    """Parse and validate a header.

    Args:
        raw: the header's JSON bytes.
        data_start: offset of the data within the file.
        file_size: size of the whole file in bytes.
        where: the file, for messages.

    Returns:
        Tensor name to its place, offsets counted from the start of the file, in the order of
        the header.

    Raises:
        BeftError: anything that the format forbids; the tensor is named.
    """
    if raw[:1] != b"{":
        raise BeftError(f"{where}: the header does not begin with '{{'; not a safetensors file")
    entries = parse_json_object(raw, where, "header")
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not _is_text_map(metadata):
        raise BeftError(f"{where}: __metadata__ must map text to text")
    data_size = file_size - data_start
    tensors: dict[str, TensorInfo] = {}
    for name, entry in entries.items():
        dtype, shape, begin, end = _entry(name, entry, where)
        if end > data_size:
            raise BeftError(
                f"{where}: tensor {shorten(name)} ends at byte {end} of the data, but the file "
                f"holds {data_size}; the file is cut short, fetch it again"
            )
        tensors[name] = TensorInfo(dtype, shape, data_start + begin, data_start + end)
    _no_holes(tensors, data_start, file_size, where)
    return tensors


def parse_metadata(raw: bytes, where: str) -> dict[str, str]:
    """The text that a header, already found good by `parse_header`, carries besides tensors."""
    return dict(parse_json_object(raw, where, "header").get("__metadata__") or {})


def _entry(name: str, entry: Any, where: str) -> tuple[str, tuple[int, ...], int, int]:
    def bad(why: str) -> BeftError:
        return BeftError(f"{where}: tensor {shorten(name)}: {why}")

    if not isinstance(entry, dict):
        raise bad(f"expected an object, found {type(entry).__name__}")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise bad(f"unknown dtype {shorten(str(dtype), 40)}; expected F32, BF16, F16, F64 or such")
    if not isinstance(shape, list) or not all(_natural(size) for size in shape):
        raise bad("shape must be a list of non-negative integers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_natural, offsets)):
        raise bad("data_offsets must be two non-negative integers")
    begin, end = offsets
    if end < begin:
        raise bad(f"data_offsets run backwards ({begin} to {end})")
    count = 1
    for size in shape:
        count *= size
        if count >= 1 << 64:  # stop before a long list makes huge integers
            raise bad("shape is larger than any file")
    bits = count * DTYPE_BITS[dtype]
    if bits != 8 * (end - begin):
        shown = shorten(str(shape[:8]), 60)
        raise bad(f"shape {shown} of {dtype} needs {bits / 8:g} bytes, has {end - begin}")
    return dtype, tuple(shape), begin, end


def _natural(value: Any) -> bool:
    """Whether this is an integer of 64 bits; True and False are none."""
    return type(value) is int and 0 <= value < 1 << 64


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _no_holes(tensors: dict[str, TensorInfo], start: int, stop: int, where: str) -> None:
    position = start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != position:
            fault = "overlaps the tensor before it" if info.start < position else "leaves a hole"
            raise BeftError(f"{where}: tensor {shorten(name)} {fault} in the data")
        position = info.stop
    if position != stop:
        raise BeftError(f"{where}: {stop - position} bytes at the end belong to no tensor")
