"""How V pairs of vectors are cut into items, and how a launch of `projection` goes through them.

On the CPU, once for all launches: where the vectors lie, which of them are several items, and the
way through them that an H200 found fastest for their length, number, dtype and places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from ._launch import ALIGNMENT, KINDS, WIDE, upload

#: elements of an item: fewest and most, up to SPLITS items a vector; then items grow
CHUNK = 4096, 16384
SPLITS = 1024
#: items that keep a device busy; with fewer, long vectors are cut finer, down to the fewest
BUSY = 2048

#: kernel dtypes; None: several in one launch (or float64), looked up item by item
DTYPES = {0: tl.float32, 1: tl.bfloat16, 2: tl.float16}
Sides = tuple[Tensor, Tensor]  # of pre and of post


class Tiles(NamedTuple):
    """How a program goes through its items.

    Attributes:
        rows: items of a program, a power of two; 1 where vectors are split.
        lanes: threads of an item; with those of all rows at least the threads of the program.
        unroll: loads of a thread, item and side at a time, 128 bits each where aligned.
        warps: of a program, of 32 threads.
        ahead: whether a thread asks for its next loads before it adds up the ones it has.
        even: whether addresses are counted, and not looked up, where vectors lie at equal
            distances (a matrix, views of one tensor): a program then waits for its data alone.
    """

    rows: int
    lanes: int
    unroll: int
    warps: int
    ahead: bool = False
    even: bool = False


#: elements up to which a vector is short; vectors that make programs of several enough for a device
SHORT, FEW = 2048, 1024
#: by bytes of an element: of a few short vectors, of many anywhere, of many at equal distances, of
#: longer ones. What an H200 measured to be fastest, in fractions of a copy of as many bytes, by
#: `python bench/gpu_kernels.py --configs [--short]`: tables in bench/README.md
CHOICES = {
    4: (
        Tiles(1, 128, 2, 4, even=True),  # .874 of 36 x 768, looked up .814
        Tiles(2, 32, 2, 1),  # .950 of 4096 x 36 x 768 in no order
        Tiles(1, 32, 8, 1, even=True),  # 1.004 of the same in order
        Tiles(1, 128, 2, 4),  # .988 of 8192 x 8192
    ),
    2: (
        Tiles(1, 64, 2, 2, even=True),  # .867, looked up .814
        Tiles(2, 32, 1, 1),  # .772
        Tiles(2, 16, 2, 1, even=True),  # .888
        Tiles(1, 64, 2, 2, even=True),  # .905, looked up .878
    ),
}
#: where a vector is several items, of several dtypes in one launch, at any address: one item each
SPLIT, MIXED, UNALIGNED = Tiles(1, 128, 2, 4), Tiles(1, 128, 1, 4), Tiles(1, 128, 4, 4)
#: of vectors that do not lie at equal distances
NOWHERE = (0, 0, 0, 0, 0)


def tiles_for(
    dtype: Any, aligned: bool, longest: int, split: bool, count: int, evenly: bool = False
) -> Tiles:
    """How a launch goes through ``count`` items; ``dtype`` is a value of `DTYPES` or None."""
    if dtype is None or not aligned:
        return MIXED if aligned else UNALIGNED
    if split:
        return SPLIT
    few, many, matrix, long = CHOICES[4 if dtype == tl.float32 else 2]
    if longest > SHORT:
        return long
    return few if count <= FEW else matrix if evenly else many


def constants(dtype: Any, aligned: bool, tiles: Tiles, split: bool) -> dict[str, Any]:
    """What the kernel is compiled for."""
    # The elements of one 128-bit load side by side: a thread has all of them.
    width = (WIDE // 2 if dtype == tl.float32 else WIDE) if aligned else 1
    memory = {"DTYPE": dtype, "ALIGN": ALIGNMENT if aligned else 1, "SPLIT": split}
    shape = {"UNROLL": tiles.unroll, "ROWS": tiles.rows, "LANES": tiles.lanes, "WIDTH": width}
    return memory | shape | {"AHEAD": tiles.ahead, "EVEN": tiles.even}


def depth(length: int, chunk: int, tiles: Tiles, width: int) -> int:
    """Additions that the term of a vector goes through at most."""
    turns = -(-min(length, chunk) // (tiles.unroll * tiles.lanes * width))
    lanes = tiles.lanes.bit_length() - 1
    items = -(-length // chunk)
    together = -(-items // tiles.lanes) + lanes if items > 1 else 0
    return width + tiles.unroll + turns + lanes + 1 + together


@dataclass(frozen=True)
class PairTable:
    """Where V pairs lie on a device, and room for the sums of split vectors.

    One launch at a time: the counts in it are in use until the launch has ended.
    """

    items: Tensor  # [P, 4]
    firsts: Tensor  # [V + 1]
    part: Tensor  # [P, 6]
    counts: Tensor  # [V]
    dtype: Any
    aligned: bool
    split: bool
    tiles: Tiles
    #: addresses of the first vectors and the distances to the next, in bytes, and elements of each;
    #: zeros where vectors do not lie at equal distances
    places: tuple[int, int, int, int, int]


def chunks_for(lengths: Tensor) -> Tensor:
    """Elements of the items of each vector, ``[V]``."""
    least, most = CHUNK
    even = int(lengths.sum()) // BUSY
    chunk = min(most, max(least, 1 << max(0, even - 1).bit_length()))
    return (-(-lengths // SPLITS) + chunk - 1).clamp_min(chunk) // chunk * chunk


def pair_table(addresses: Sides, kinds: Sides, lengths: Tensor, device: torch.device) -> PairTable:
    """Cut V pairs into items; all arguments are ``[V]`` int64 on the CPU.

    Args:
        addresses: of pre and post, in bytes.
        kinds: of pre and post, codes of `KINDS`.
        lengths: elements.
        device: where the vectors lie.
    """
    sizes = torch.tensor([dtype.itemsize for dtype in KINDS])
    chunks = chunks_for(lengths)
    number = (-(-lengths // chunks)).clamp_min(1)
    firsts = torch.cat([torch.zeros(1, dtype=torch.int64), number.cumsum(0)])
    vector = torch.repeat_interleave(torch.arange(len(lengths)), number)
    begin = (torch.arange(len(vector)) - firsts[vector]) * chunks[vector]
    sides = zip(addresses, kinds, strict=True)
    starting = [address[vector] + begin * sizes[kind][vector] for address, kind in sides]
    elements = torch.minimum(chunks[vector], lengths[vector] - begin)
    last = vector * 16 + kinds[0][vector] + 4 * kinds[1][vector]
    items = torch.stack([*starting, elements, last], dim=1)
    split = len(vector) > len(lengths)
    codes = set(torch.cat(kinds).tolist())
    dtype = DTYPES.get(codes.pop()) if len(codes) == 1 else None
    starts = torch.cat(addresses)[lengths.repeat(2) > 0]
    aligned = bool((starts % ALIGNMENT == 0).all())
    longest = int(elements.max()) if len(elements) else 0
    regular = aligned and dtype is not None and not split
    places = evenly(addresses, lengths) if regular else NOWHERE
    how = longest, split, len(lengths), places != NOWHERE
    tiles = tiles_for(dtype, aligned, *how)
    if not split:  # the items of a program take as long as its longest
        items = items[elements.argsort(descending=True, stable=True)]
    part = torch.empty((len(vector) if split else 0, 6), dtype=torch.float64, device=device)
    counts = torch.zeros(len(lengths), dtype=torch.int32, device=device)
    where = upload(items, device), upload(firsts, device)
    table = PairTable(*where, part, counts, dtype, aligned, split, tiles, places)
    return with_tiles(table, tiles)


def evenly(addresses: Sides, lengths: Tensor) -> tuple[int, int, int, int, int]:
    """`PairTable.places` of V pairs."""
    if len(lengths) < 2 or int(lengths[0]) == 0 or bool((lengths != lengths[0]).any()):
        return NOWHERE
    steps = [side.diff() for side in addresses]
    if any(bool((step != step[0]).any()) for step in steps):
        return NOWHERE
    pre, post = ((int(side[0]), int(step[0])) for side, step in zip(addresses, steps, strict=True))
    return pre[0], post[0], pre[1], post[1], int(lengths[0])


def with_tiles(table: PairTable, tiles: Tiles) -> PairTable:
    """The same table for another way through it, to be compared."""
    if table.split and tiles.rows > 1:
        raise ValueError(f"{tiles} for split vectors; expected one row")
    return replace(table, tiles=tiles._replace(even=tiles.even and table.places != NOWHERE))
