"""A merged model's files of tensors: shards copied, linked, patched in a copy, or written anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

from beftkit.checkpoints import Checkpoint, TensorInfo
from beftkit.checkpoints.copying import data_bytes, link_file
from beftkit.checkpoints.local import LocalFile
from beftkit.checkpoints.shards import (
    Part,
    cast_part,
    copied_part,
    fetch_file,
    opened_for_patches,
    size_of,
    tensor_bytes,
    write_shard,
)
from beftkit.scores.statistics import PRECISION, decode
from beftkit.weights.plan import Plan
from beftkit.weights.values import encode

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
How = Literal["same", "patched", "anew"]


@dataclass(frozen=True)
class Shard:
    """One file of tensors of the result.

    Attributes:
        name: of it.
        source: its number among the base's files; None: it holds added tensors alone.
        how: ``same``, ``patched`` in a copy, ``anew``.
        parts: what changes in it, by name in the base.
        new: tensors that the base has not, which it holds.
        tensors: names of the result in it -> bytes and elements.
    """

    name: str
    source: int | None
    how: How
    parts: Mapping[str, Part]
    new: Sequence[Part]
    tensors: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        linked: files that are second names of the base's.
        copied: files that are copies, with or without patches.
        anew: files whose header is another.
        bytes: how many; holes are none.
        unlinked: files that a link was asked for and that were copied, as none can be made.
    """

    linked: tuple[str, ...]
    copied: tuple[str, ...]
    anew: tuple[str, ...]
    bytes: int
    unlinked: tuple[str, ...]


def shards_of(base: Checkpoint, plan: Plan) -> list[Shard]:
    """The files of the result, in order.

    A base that is one file of the usual name, and an index beside it, would be loaded alone and
    what the index adds be missing, silently: so with a file more all are named by number.
    """
    held: list[dict[str, TensorInfo]] = [{} for _ in base.files]
    for name, info in base.tensors.items():
        if name not in plan.dropped:
            held[info.file][name] = info
    hows: list[How] = [_how(base, plan, tensors, n) for n, tensors in enumerate(held)]
    kept = [n for n, tensors in enumerate(held) if tensors]
    own = bool(plan.new) and not (len(kept) == 1 and hows[kept[0]] == "anew")
    total = len(kept) + own
    names = _names(base, kept, total, renamed=own)
    found = []
    for name, n in zip(names, kept, strict=False):
        new = [] if own else plan.new
        parts = {one: plan.parts[one] for one in held[n] if one in plan.parts}
        tensors = {plan.prefix + one: _size(plan, one, info) for one, info in held[n].items()}
        tensors |= {one.name: (one.size, prod(one.shape)) for one in new}
        found.append(Shard(name, n, hows[n], parts, new, tensors))
    if own:
        tensors = {one.name: (one.size, prod(one.shape)) for one in plan.new}
        found.append(Shard(names[-1], None, "anew", {}, plan.new, tensors))
    return found


def bytes_needed(base: Checkpoint, shards: Sequence[Shard], *, link: bool) -> int:
    """Bytes that a disk must have for them, about: holes of copies take none."""
    total = 0
    for shard in shards:
        if shard.source is None or shard.how == "anew":
            total += sum(size for size, _ in shard.tensors.values())
            continue
        file = base.files[shard.source]
        if isinstance(file, LocalFile):
            total += 0 if link and shard.how == "same" else data_bytes(file.path)
        else:
            total += size_of(file)
    return total


def write_shards(
    base: Checkpoint, plan: Plan, shards: Sequence[Shard], folder: Path, *, link: bool = False
) -> Written:
    """Write them, and the index where there is one.

    Args:
        base: the model's files.
        plan: what every tensor of the result is.
        shards: by `shards_of`.
        folder: in which none of them is yet.
        link: make those that stay the same second names of the base's, where the disk can.

    Raises:
        OSError: the disk is full, say.
    """
    linked, copied, anew, unlinked = list[str](), list[str](), list[str](), list[str]()
    written = 0
    for shard in shards:
        path = folder / shard.name
        file = None if shard.source is None else base.files[shard.source]
        if file is None or shard.how == "anew":
            written += write_shard(path, _parts(base, plan, shard), _metadata(file))
            anew.append(shard.name)
            continue
        if link and shard.how == "same":
            if isinstance(file, LocalFile) and link_file(file.path, path):
                linked.append(shard.name)
                continue
            unlinked.append(shard.name)
        written += fetch_file(file, path)
        copied.append(shard.name)
        if shard.parts:
            with opened_for_patches(path) as descriptor:
                for name, part in shard.parts.items():
                    part.fill(descriptor, base.tensors[name].start)
                    written += part.size
    if index := index_of(base, plan, shards):
        data = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
        (folder / INDEX).write_bytes(data)
        written += len(data)
    return Written(tuple(linked), tuple(copied), tuple(anew), written, tuple(unlinked))


def index_of(base: Checkpoint, plan: Plan, shards: Sequence[Shard]) -> dict[str, Any] | None:
    """The index of the result: the base's own where nothing in it changes; None: one file."""
    if [shard.name for shard in shards] == [SINGLE]:
        return None
    places = {name: shard.name for shard in shards for name in shard.tensors}
    size = sum(one for shard in shards for one, _ in shard.tensors.values())
    metadata: dict[str, Any] = {}
    if base.index and base.folder:
        held = base.folder.json(base.index, "index")
        said = held.get("metadata")
        metadata = dict(said) if isinstance(said, dict) else {}
        if held.get("weight_map") == places and not plan.dtype:
            return held
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(n for shard in shards for _, n in shard.tensors.values())
    return {
        "metadata": {**metadata, "total_size": size},
        "weight_map": dict(sorted(places.items())),
    }


def _how(base: Checkpoint, plan: Plan, tensors: Mapping[str, TensorInfo], number: int) -> How:
    dropped = any(base.tensors[name].file == number for name in plan.dropped)
    cast = plan.dtype is not None and any(
        info.dtype in PRECISION and info.dtype != plan.dtype for info in tensors.values()
    )
    other = any(
        (part := plan.parts.get(name)) and (part.dtype, part.shape) != (info.dtype, info.shape)
        for name, info in tensors.items()
    )
    if plan.prefix or dropped or cast or other:
        return "anew"
    return "patched" if any(name in plan.parts for name in tensors) else "same"


def _names(base: Checkpoint, kept: Sequence[int], total: int, *, renamed: bool) -> list[str]:
    if total == 1:
        return [SINGLE]
    if renamed or not base.index or len(kept) < len(base.files):
        return [f"model-{n:05d}-of-{total:05d}.safetensors" for n in range(1, total + 1)]
    return [base.shards[n] for n in kept]


def _size(plan: Plan, name: str, info: TensorInfo) -> tuple[int, int]:
    part = plan.parts.get(name)
    shape = part.shape if part else info.shape
    dtype = plan.dtype if plan.dtype and info.dtype in PRECISION else info.dtype
    return tensor_bytes(dtype, shape), prod(shape)


def _parts(base: Checkpoint, plan: Plan, shard: Shard) -> list[Part]:
    """Every tensor of a file that is written anew."""
    found = [*shard.new]
    for name, info in base.tensors.items():
        if shard.source is None or info.file != shard.source or name in plan.dropped:
            continue
        file = base.files[info.file]
        called = plan.prefix + name
        part = plan.parts.get(name)
        if part is not None:
            found.append(Part(called, part.dtype, part.shape, part.fill))
        elif plan.dtype and info.dtype in PRECISION and info.dtype != plan.dtype:
            cast = partial(_cast, info.dtype, plan.dtype)
            found.append(cast_part(called, info, file, plan.dtype, cast))
        else:
            found.append(copied_part(called, info, file))
    return found


def _cast(given: str, wanted: str, block: bytes) -> bytes:
    return encode(decode(block, given), wanted)


def _metadata(file: Any) -> dict[str, str]:
    return {"format": "pt", **(file.metadata() if file is not None else {})}
