"""Products with a base's matrices, read and written block by block."""

from __future__ import annotations

import numpy as np

from beftkit.checkpoints import Checkpoint, TensorInfo
from beftkit.checkpoints.copying import put
from beftkit.checkpoints.local import File
from beftkit.checkpoints.shards import blocks_of
from beftkit.errors import BeftError
from beftkit.scores.statistics import PRECISION, decode, rounded
from beftkit.weights.values import Array, encode


def output_product(base: Checkpoint, name: str, values: Array, heads: int) -> Array:
    """W_o b_v in float64, block by block; b_v is repeated for the queries that share a value.

    Args:
        base: the checkpoint.
        name: of the weight W_o, ``[out, heads x width]``.
        values: b_v, ``[value heads x width]``.
        heads: how many the queries have.

    Returns:
        ``[out]``.
    """
    info = base.tensors.get(name)
    if info is None or info.dtype not in PRECISION or len(info.shape) != 2:
        raise BeftError(f"{base.reference}: {name} is no matrix of floats; nothing can be folded")
    columns = info.shape[1]
    width = columns // heads
    if columns % heads or values.size % width or heads % (groups := values.size // width):
        raise BeftError(f"{base.reference}: {name} {list(info.shape)} fits no {heads} heads")
    whole = np.repeat(values.reshape(groups, width), heads // groups, axis=0).reshape(-1)
    row = (info.stop - info.start) // info.shape[0]
    found = [
        decode(block, info.dtype).reshape(-1, columns) @ whole
        for _, block in blocks_of(base.files[info.file], info.start, info.stop, row)
    ]
    return np.concatenate(found)


def fill_product(
    file: File,
    info: TensorInfo,
    dtype: str,
    a: Array,
    b: Array,
    scale: float,
    target: int,
    place: int,
) -> None:
    """Write ``W + scale b @ a`` in blocks of rows; ``W`` is ``[rows, columns]``."""
    rows, columns = info.shape
    row = (info.stop - info.start) // rows
    first = 0
    like = np.float64 if dtype == "F64" else np.float32
    for _, block in blocks_of(file, info.start, info.stop, row):
        weight = rounded(decode(block, info.dtype), dtype).reshape(-1, columns).astype(like)
        last = first + len(weight)
        change = (b[first:last].astype(like) @ a.astype(like)) * like(scale)
        data = encode((weight + change).astype(np.float64), dtype)
        put(target, data, place)
        place, first = place + len(data), last
