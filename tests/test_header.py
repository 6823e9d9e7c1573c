"""Headers and indices: every way to be wrong is refused by name, in one line."""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from beftkit.checkpoints import TensorInfo, open_checkpoint
from beftkit.checkpoints.header import DTYPE_BITS, MAX_HEADER, parse_header
from beftkit.checkpoints.local import LocalFile, coalesce
from beftkit.errors import BeftError
from tests.builders import layout, model, shard_name, write_file, write_index, write_raw
from tests.builders import write_shards as deal_out

DATA = bytes(range(8))


def entry(
    dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any
) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


def header_of(path: Path) -> dict[str, TensorInfo]:
    return LocalFile(path).header()


def test_a_valid_header_is_read(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [4, 8]},
        "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "empty": {"dtype": "I64", "shape": [3, 0], "data_offsets": [4, 4]},
    }
    path = write_raw(tmp_path / "x.safetensors", header, DATA)
    start = path.stat().st_size - len(DATA)
    assert header_of(path) == {
        "b": TensorInfo("BF16", (1, 2), start + 4, start + 8),
        "a": TensorInfo("F32", (), start, start + 4),
        "empty": TensorInfo("I64", (3, 0), start + 4, start + 4),
    }


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_has_its_size(dtype: str, tmp_path: Path) -> None:
    """Sixteen elements fill whole bytes in any of them; the library agrees in the fuzz test."""
    size = 2 * DTYPE_BITS[dtype]
    path = write_raw(tmp_path / "x.safetensors", entry(dtype, [16], [0, size]), bytes(size))
    assert header_of(path)["a"].dtype == dtype
    path = write_raw(tmp_path / "x.safetensors", entry(dtype, [16], [0, size + 1]), bytes(size + 1))
    with pytest.raises(BeftError, match=f"needs {size} bytes, has {size + 1}"):
        header_of(path)


HUGE = 1 << 64
BAD_HEADERS = {
    "not JSON": (b"{nonsense", "not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', "not valid JSON"),
    "cut JSON": (b'{"a": {"dtype"', "not valid JSON"),
    "something after the JSON": (b"{}\0", "not valid JSON"),
    "a NaN": (entry(note=float("nan")), "not valid JSON"),
    "an infinity": (b'{"a": 1e999}', "not valid JSON"),
    "half a surrogate pair": (b'{"\\ud800": {}}', "not valid JSON"),
    "digits without end": (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    "a list": (b"[]", "does not begin with '{'"),
    "empty": (b"", "does not begin with '{'"),
    "a space first": (b" {}", "does not begin with '{'"),
    "nested": (b'{"a": ' + b"[" * 9000 + b"]" * 9000 + b"}", "nested absurdly"),
    "nested past the reader": (b'{"a":' + b"[" * 127 + b"]" * 127 + b"}", "nested absurdly"),
    "nested objects": (b'{"a": ' * 9000 + b"1" + b"}" * 9000, "nested absurdly"),
    "a name twice": (b'{"a": {}, "a": {}}', "key 'a' twice"),
    "a field twice": (b'{"a": {"dtype": "F32", "dtype": "F16"}}', "key 'dtype' twice"),
    "metadata a list": ({"__metadata__": []}, "__metadata__ must map text to text"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "__metadata__ must map text to text"),
    "an entry of the wrong kind": ({"a": ["F32", [2], [0, 8]]}, "'a': expected an object.* list"),
    "an entry that is null": ({"a": None}, "'a': expected an object"),
    "dtype unknown": (entry("F33"), "'a': unknown dtype 'F33'"),
    "dtype a number": (entry(5), "unknown dtype"),
    "dtype an object": (entry({"F32": None}), "unknown dtype"),
    "dtype missing": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, "unknown dtype 'None'"),
    "shape missing": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, "shape must be a list"),
    "shape a number": (entry(shape=2), "shape must be a list"),
    "shape negative": (entry(shape=[-2]), "shape must be a list of non-negative"),
    "shape of floats": (entry(shape=[2.0]), "shape must be a list"),
    "shape of truth": (entry(shape=[True, 2]), "shape must be a list"),
    "shape of text": (entry(shape=["2"]), "shape must be a list"),
    "shape beyond 64 bits": (entry(shape=[HUGE]), "shape must be a list"),
    "shape that overflows": (entry(shape=[1 << 32, 1 << 32]), "larger than any file"),
    "shape that wraps to its size": (entry(shape=[(1 << 62) + 2, 4]), "larger than any file"),
    "shape that overflows, then 0": (
        entry(shape=[1 << 40, 1 << 40, 0], offsets=[0, 0]),
        "larger than any file",
    ),
    "shape and size disagree": (entry(shape=[3]), "needs 12 bytes, has 8"),
    "half a byte": (entry("F4", [3], [0, 1]), "needs 1.5 bytes, has 1"),
    "offsets missing": ({"a": {"dtype": "F32", "shape": [2]}}, "two non-negative integers"),
    "offsets three": (entry(offsets=[0, 4, 8]), "two non-negative integers"),
    "offsets negative": (entry(offsets=[-8, 0]), "two non-negative integers"),
    "offsets of floats": (entry(offsets=[0.0, 8.0]), "two non-negative integers"),
    "offsets of truth": (entry(offsets=[False, 8]), "two non-negative integers"),
    "offsets beyond 64 bits": (entry(offsets=[HUGE, HUGE + 8]), "two non-negative integers"),
    "offsets backwards": (entry(offsets=[8, 0]), r"run backwards \(8 to 0\)"),
    "offsets past the end": (
        entry(shape=[3], offsets=[0, 12]),
        "ends at byte 12 of the data, but the file holds 8; the file is cut short",
    ),
    "offsets far past the end": (
        entry("U8", [0], [1 << 63, 1 << 63]),
        f"ends at byte {1 << 63}",
    ),
    "overlap": (
        entry() | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        "'b' overlaps the tensor before it",
    ),
    "the same bytes twice": (
        entry() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
        "'b' overlaps the tensor before it",
    ),
    "a hole in front": (entry("U8", [4], [4, 8]), "'a' leaves a hole"),
    "a hole between": (
        entry("U8", [2], [0, 2]) | {"b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}},
        "'b' leaves a hole",
    ),
    "bytes nobody owns": (entry("F32", [1], [0, 4]), "4 bytes at the end belong to no tensor"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_bad_header_is_refused(case: str, tmp_path: Path) -> None:
    header, message = BAD_HEADERS[case]
    path = write_raw(tmp_path / "x.safetensors", header, DATA)  # type: ignore[arg-type]
    with pytest.raises(BeftError, match=message) as caught:
        header_of(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert len(said) < len(str(path)) + 200


BAD_FILES = {
    "empty": (b"", "the file is empty"),
    "a few bytes": (b"\x02\0\0\0", "4 bytes is too short"),
    "a length alone": (struct.pack("<Q", 2), "should be 2 bytes, but only 0 follow.*cut short"),
    "a length beyond the file": (struct.pack("<Q", 99) + b"{}", "should be 99 bytes, but only 2"),
    "an absurd length": (b"\xff" * 8 + b"{}", f"header length {HUGE - 1} is above"),
    "one above the bound": (struct.pack("<Q", MAX_HEADER + 1), "not a safetensors file"),
    "a zip of pickles": (b"PK\x03\x04" + bytes(60), "file but a pickle"),
    "a pickle": (b"\x80\x02}q\x00(X\x01\x00\x00\x00" + bytes(60), "file but a pickle"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "not a safetensors file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused(case: str, tmp_path: Path) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BeftError, match=message):
        header_of(path)


@pytest.mark.parametrize("kept", [7, 8, 40, -1])
def test_a_cut_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = write_file(tmp_path / "x.safetensors", model("bert"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BeftError, match=r"cut short|too short"):
        header_of(path)


def test_long_names_are_shortened(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "x.safetensors", {"a\n" * 9999: {"dtype": "?"}})
    with pytest.raises(BeftError, match=r"a\\na\\n.*\.\.\.'") as caught:
        header_of(path)
    assert len(str(caught.value)) < len(str(path)) + 200


NUMBERS = ",".join(["18446744073709551615"] * 5000)
CLAIMS = {
    "a header as long as allowed": struct.pack("<Q", MAX_HEADER) + b"{" + bytes(100_000),
    "a shape without end": b'{"a":{"dtype":"F32","shape":[' + NUMBERS.encode() + b"]}}",
    "a tensor of exabytes": json.dumps(entry(shape=[1 << 60], offsets=[0, 1 << 62])).encode(),
    "nesting": b'{"a":' + b"[" * 100_000,
    "one long name": b'{"' + b"a" * 100_000 + b'":{}}',
    "empty entries": b"{" + b",".join(b'"%d":{}' % n for n in range(9000)) + b"}",
}


@pytest.mark.parametrize("case", CLAIMS)
def test_memory_is_bounded_by_the_file(case: str, tmp_path: Path) -> None:
    """A file may claim what it likes: what is allocated follows what is there."""
    path, claim = tmp_path / "x.safetensors", CLAIMS[case]
    if claim.startswith(b"{"):
        write_raw(path, claim, bytes(100_000))
    else:
        path.write_bytes(claim)
    tracemalloc.start()
    try:
        with pytest.raises(BeftError):
            header_of(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * path.stat().st_size


def test_parsing_needs_no_file() -> None:
    """The hub's byte ranges go through the same door."""
    raw = json.dumps(entry()).encode()
    assert parse_header(raw, 100, 108, "x") == {"a": TensorInfo("F32", (2,), 100, 108)}
    with pytest.raises(BeftError, match=r"^x: .*belong to no tensor"):
        parse_header(raw, 100, 109, "x")


BAD_MAPS: dict[str, tuple[Any, str]] = {
    "missing": (None, "no weight_map"),
    "a list": ([], "no weight_map"),
    "empty": ({}, "no weight_map"),
    "a number": ({"a": 3}, "'a' is said to lie in '3'"),
    "above": ({"a": "../x.safetensors"}, "inside the index's own folder"),
    "above, later": ({"a": "sub/../../x.safetensors"}, "inside the index's own folder"),
    "absolute": ({"a": "/etc/passwd"}, "inside the index's own folder"),
    "backslashes": ({"a": "..\\x.safetensors"}, "inside the index's own folder"),
    "NUL": ({"a": "x\0.safetensors"}, "inside the index's own folder"),
    "nothing": ({"a": ""}, "inside the index's own folder"),
    "the folder": ({"a": "."}, "inside the index's own folder"),
    "a folder": ({"a": "sub"}, "not a regular file"),
    "half a surrogate pair": ({"a": "\ud800"}, "not valid JSON"),
    "no such shard": ({"a": "x.safetensors"}, "its shard 'x.safetensors' is missing"),
    "a name too long": ({"a": "x" * 9999}, "its shard 'xxx.* is missing"),
}


@pytest.mark.parametrize("case", BAD_MAPS)
def test_a_bad_weight_map_is_refused(case: str, tmp_path: Path) -> None:
    weight_map, message = BAD_MAPS[case]
    (tmp_path / "in" / "sub").mkdir(parents=True)
    write_file(tmp_path / "x.safetensors", model("bert"))  # what ../ would reach
    path = write_index(tmp_path / "in", weight_map)
    with pytest.raises(BeftError, match=message) as caught:
        open_checkpoint(path)
    assert len(str(caught.value)) < len(str(path)) + 250


def test_an_index_must_agree_with_its_shards(tmp_path: Path) -> None:
    path = deal_out(tmp_path, model("bert"), 2)
    assert set(open_checkpoint(path).tensors) == set(model("bert"))
    index = json.loads(path.read_text())
    write_index(tmp_path, index["weight_map"] | {"lost.bias": shard_name(2, 2)})
    with pytest.raises(BeftError, match=r"puts tensor 'lost.bias' into 'model-00002-of-00002"):
        open_checkpoint(path)


def test_a_folder_without_its_index_must_be_complete(tmp_path: Path) -> None:
    deal_out(tmp_path, model("bert"), 3).unlink()
    assert set(open_checkpoint(tmp_path).tensors) == set(model("bert"))
    (tmp_path / shard_name(2, 3)).unlink()
    with pytest.raises(BeftError, match=re.escape(f"shard {shard_name(2, 3)} is missing")):
        open_checkpoint(tmp_path)
    write_file(tmp_path / shard_name(2, 3), model("bert"))
    with pytest.raises(BeftError, match="is in two shards"):
        open_checkpoint(tmp_path)


def test_reading_joins_neighbours_only() -> None:
    assert coalesce([(0, 100), (101, 200), (5000, 5100)]) == [(0, 200), (5000, 5100)]
    assert coalesce([(9, 9), (5, 7), (0, 5)]) == [(0, 7)]
    assert coalesce([]) == []


def test_reading_notices_a_file_that_shrank(tmp_path: Path) -> None:
    path = write_file(tmp_path / "x.safetensors", model("bert"))
    checkpoint = open_checkpoint(path)
    write_raw(path, layout({}), b"")
    with pytest.raises(BeftError, match="was it changed just now"):
        checkpoint.read(list(checkpoint.tensors))
