"""Ways through the data that a launch could take, compared: what `CHOICES` in the kernels rests on.

    python bench/gpu_kernels.py --configs [--short]

Under two minutes, or 45 s for what is still open (kernel_configs_short.py). First every
configuration, from the most valuable case on, each held to float64 before it counts; then copies
that move as many bytes, torch.compile and plain loops, as far as the time goes. A row is printed,
and written to bench/results/, when it is measured: `fraction` is of the copy of its case. Compile
time is counted apart.

Timed is the device alone, by events around a run: before each the cache is flushed, and a wait puts
the host far enough ahead that what it takes to launch is over. Of what takes the host longer (ours
not prepared, loops of small tensors) it is the host that is timed.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, TextIO

import torch
from gpu_kernels import DTYPES, loop_squares, rows, same, squares, terms
from kernel_streams import stream
from torch import Tensor

from beftkit_kernels import Pairs, example_square_sums, layout
from beftkit_kernels import squares as gradients
from beftkit_kernels.layout import Tiles as P
from beftkit_kernels.squares import Tiles as S

#: seconds: after so many no further row is begun
BUDGET = 112.0
#: cycles of the device, about .1 ms, in which the host gets ahead of it
WAIT = 200_000
FIELDS = ("kernel", "case", "dtype", "config", "p50_ms", "gb_per_s", "fraction", "compile_s", "gpu")
Way = Callable[[], Tensor]

#: rows, lanes, loads at a time, warps
SHORT = {
    "float32": (
        P(4, 32, 2, 4), P(4, 32, 4, 4), P(4, 32, 8, 4), P(8, 32, 2, 4), P(1, 32, 8, 1),
        P(2, 64, 4, 4), P(1, 128, 2, 4), P(1, 64, 4, 2), P(8, 32, 2, 8),
    ),
    "bfloat16": (
        P(8, 32, 1, 4), P(4, 32, 1, 4), P(4, 32, 2, 4), P(4, 32, 4, 4), P(1, 32, 4, 1),
        P(2, 32, 1, 1), P(8, 32, 2, 8), P(1, 64, 2, 2), P(16, 32, 1, 8),
    ),
}  # fmt: skip
LONG = {
    "float32": (
        P(1, 128, 4, 4), P(1, 128, 2, 4), P(1, 128, 8, 4), P(1, 256, 4, 8), P(4, 32, 4, 4),
        P(1, 256, 2, 8), P(1, 64, 4, 2),
    ),
    "bfloat16": (
        P(1, 128, 2, 4), P(1, 128, 1, 4), P(1, 128, 4, 4), P(1, 256, 2, 8), P(4, 32, 2, 4),
        P(1, 256, 1, 8), P(1, 64, 2, 2),
    ),
}  # fmt: skip
#: columns, tokens, loads at a time, warps, float32 within a step, bytes of a load
GRADIENT = {
    "float32": (
        S(64, 2, 8, 4), S(64, 2, 8, 4, True), S(64, 2, 4, 4), S(64, 4, 8, 8), S(64, 4, 4, 8),
        S(64, 4, 8, 8, True), S(64, 1, 8, 2), S(32, 4, 8, 4), S(32, 1, 8, 1),
    ),
    "bfloat16": (
        S(32, 4, 4, 4), S(32, 4, 4, 4, True), S(32, 2, 8, 2, True), S(32, 8, 4, 8, True),
        S(32, 2, 4, 2), S(32, 4, 2, 4), S(64, 2, 8, 4, False, 8), S(64, 2, 8, 4, True, 8),
        S(64, 4, 8, 8, False, 8), S(64, 1, 8, 2, True, 8),
    ),
}  # fmt: skip

BERT = [768] * 36
#: widths of the vectors; SHORT ones and LONG ones are gone through differently
LISTS = {
    "4096 x 36 x 768": (BERT * 4096, SHORT),
    "8192 x 8192": ([8192] * 8192, LONG),
    "1536 x 8192": ([8192] * 1536, LONG),
    "64 x 36 x 768": (BERT * 64, SHORT),
    "Qwen2.5-72B q k v": ([8192, 1024, 1024] * 80, LONG),
    "36 x 768": (BERT, SHORT),
}
CHUNKS = 2048, 8192, 16384
GRADIENTS = ((32, 128), (128, 128), (128, 512), (8, 32))


class Case(NamedTuple):
    """Inputs of one shape and dtype, and what is right."""

    kernel: str
    name: str
    dtype: str
    moved: int
    wanted: Tensor
    configs: list[tuple[str, Way]]
    baselines: list[tuple[str, Way]]


def label(tiles: P | S) -> str:
    """As the tables have it."""
    if isinstance(tiles, S):
        return str(tuple(tiles))
    return str(tuple(tiles[:4])) + ", ahead" * tiles.ahead + ", even" * tiles.even


def pair_case(
    name: str,
    widths: list[int],
    dtype: str,
    tiles: Sequence[P],
    chunks: Sequence[int] = CHUNKS,
    programs: Sequence[int] = (),
) -> Case:
    """`projection_stats`; of vectors in no order where the name says "anywhere"."""
    generator = torch.Generator("cuda").manual_seed(0)
    whole = torch.empty(sum(widths), device="cuda").normal_(generator=generator)
    moved = whole + 0.1 * whole.roll(1)
    flat = [x.to(DTYPES[dtype]) for x in (whole, moved)]
    del whole, moved
    pre, post = (list(x.split(widths)) for x in flat)
    order = torch.arange(len(widths))
    if "anywhere" in name:
        order = torch.randperm(len(widths), generator=torch.Generator().manual_seed(0))
        pre, post = ([side[i] for i in order.tolist()] for side in (pre, post))
    table = Pairs(pre, post)
    out = torch.empty((len(widths), 6), dtype=torch.float64, device="cuda")
    first = table._table

    def way(config: P | None, chunk: int | None = None) -> Way:
        made = first
        if chunk is not None:
            usual, layout.CHUNK = layout.CHUNK, (chunk, chunk)
            made = Pairs(pre, post)._table
            layout.CHUNK = usual
        assert made is not None
        through = made if config is None else layout.with_tiles(made, config)

        def run() -> Tensor:
            table._table = through
            return table.stats(out=out)

        return run

    assert first is not None
    some = [one for one in tiles if one.rows == 1 or not first.split]
    configs = [("chosen", way(None)), *((label(one), way(one)) for one in some)]
    if first.split:
        configs += [(f"chunk {chunk}", way(None, chunk)) for chunk in chunks]
    configs += [(f"stream, {many} programs", stream(first, out, many)) for many in programs]
    equal = len(set(widths)) == 1
    matrices = [x.view(-1, widths[0]) for x in flat] if equal else [rows(pre), rows(post)]
    pieces = zip(*(x.split(4096) for x in matrices), strict=True)
    wanted = torch.cat([terms(*piece) for piece in pieces])[order.to("cuda")]
    compiled = torch.compile(terms, dynamic=False)
    nbytes = 2 * sum(widths) * pre[0].itemsize
    # What is anywhere would have to be gathered for it first.
    rowed = "anywhere" not in name
    baselines = [("torch.compile", lambda: compiled(*matrices))] if rowed else []
    return Case("projection_stats", name, dtype, nbytes, wanted, configs, baselines)


def gradient_case(batch: int, tokens: int, dtype: str, tiles: Sequence[S]) -> Case:
    """`example_square_sums` of q, k and v of 12 layers."""
    generator = torch.Generator("cuda").manual_seed(0)
    stacked = torch.empty((36, batch, tokens, 768), dtype=DTYPES[dtype], device="cuda")
    grads = list(stacked.normal_(generator=generator))
    launch = gradients.Launch(grads, None, batch, False)

    def way(config: S) -> Way:
        def run() -> Tensor:
            launch.tiles = config
            launch.run(grads)
            return launch.total.view(36, -1)

        return run

    def unprepared() -> Tensor:
        return torch.stack([one.total for one in example_square_sums(grads)])

    def narrow() -> Tensor:
        return torch.stack([x.sum(1, dtype=torch.float32).square().sum(0) for x in grads])

    chosen = launch.tiles
    configs = [("chosen", way(chosen)), *((label(one), way(one)) for one in tiles)]
    compiled = torch.compile(squares, dynamic=False)
    baselines = [
        ("loop, float32", narrow),
        ("ours, not prepared", unprepared),
        ("torch.compile", lambda: compiled(stacked)),
    ]
    name = f"36 x [{batch}, {tokens}, 768]"
    what = "example_square_sums", name, dtype, stacked.nbytes, loop_squares(grads)
    return Case(*what, configs, baselines)


def cases() -> Iterator[Callable[[], Case]]:
    """From the most valuable on."""

    def pair(name: str, dtype: str) -> Callable[[], Case]:
        widths, tiles = LISTS[name]
        return lambda: pair_case(name, widths, dtype, tiles[dtype])

    def gradient(shape: tuple[int, int], dtype: str) -> Callable[[], Case]:
        return lambda: gradient_case(*shape, dtype, GRADIENT[dtype])

    names = list(LISTS)
    for name in names[:2]:
        yield from (pair(name, dtype) for dtype in DTYPES)
    for shape in GRADIENTS[:2]:
        yield from (gradient(shape, dtype) for dtype in DTYPES)
    for name in names[2:]:
        yield from (pair(name, dtype) for dtype in DTYPES)
    for shape in GRADIENTS[2:]:
        yield from (gradient(shape, dtype) for dtype in DTYPES)


@cache
def room() -> Tensor:
    """More than any cache holds."""
    return torch.empty(2**28, dtype=torch.int8, device="cuda")


def median(run: Way) -> float:
    """Milliseconds that the device takes; see above."""

    def times(count: int) -> list[float]:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for start, end in events:
            room().zero_()
            torch.cuda._sleep(WAIT)
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    run()
    once = min(times(3))
    return statistics.median(times(min(80, max(10, int(20 / once)))))


def compare(
    where: dict[str, str],
    file: TextIO,
    cases: Callable[[], Iterator[Callable[[], Case]]] = cases,
    budget: float = BUDGET,
) -> None:
    """Time all, most valuable first; print rows and write them to an open CSV file."""
    begin = time.perf_counter()
    table = csv.DictWriter(file, FIELDS, lineterminator="\n")
    table.writeheader()
    copies: dict[int, float] = {}
    best: dict[tuple[str, ...], dict[str, tuple[float, str]]] = {}

    def left() -> bool:
        return time.perf_counter() - begin < budget

    def copy_ms(moved: int) -> float:
        if moved not in copies:
            source = torch.ones(moved // 8, device="cuda").normal_()
            target = torch.empty_like(source)
            copies[moved] = median(lambda: target.copy_(source))
        return copies[moved]

    def timed(case: Case, ways: Sequence[tuple[str, Way]], tolerance: float) -> None:
        for config, run in ways:
            if not left():
                return
            start = time.perf_counter()
            try:
                found = run().clone()
                torch.cuda.synchronize()
            except Exception as error:  # one that does not fit the device is a finding, too
                print(f"{case.kernel},{case.name},{case.dtype},{config}: {error!r:.200}")
                continue
            compiling = time.perf_counter() - start
            narrow = "True" in config  # float32 within a step
            loose = 1e-2 if "float32" in config else 1e-4 if narrow else tolerance
            same(f"{case.kernel}, {case.name}, {case.dtype}, {config}", found, case.wanted, loose)
            ms = median(run)
            fraction = copy_ms(case.moved) / ms
            values = f"{ms:.5f}", f"{case.moved / 1e6 / ms:.0f}", f"{fraction:.3f}"
            what = case.kernel, case.name, case.dtype, config
            row = dict(zip(FIELDS, (*what, *values, f"{compiling:.1f}", where["gpu"]), strict=True))
            table.writerow(row)
            file.flush()
            kind = config if case.baselines and config in dict(case.baselines) else "ours"
            of_case = best.setdefault(what[:3], {})
            of_case[kind] = max(of_case.get(kind, (0.0, "")), (fraction, config))
            print(",".join(row[name] for name in FIELDS[:-1]), flush=True)

    print(",".join(FIELDS[:-1]))
    for part in ("configs", "baselines"):
        for make in cases():
            if not left():
                print(f"stopped after {budget:.0f} s: the rest is not measured")
                break
            if part == "baselines":
                torch._dynamo.reset()
            case = make()
            ways: list[tuple[str, Any]] = getattr(case, part)
            if part == "baselines":
                copy = copy_ms(case.moved)
                speed = f"{case.moved / 1e6 / copy:.0f}"
                print(f"{case.kernel},{case.name},{case.dtype},copy,{copy:.5f},{speed},1.000,")
            timed(case, ways, 1e-9)
            del case, ways
            with suppress(RuntimeError):
                torch.cuda.empty_cache()
    for named, kinds in best.items():
        found = [f"{kind} {part:.3f}" for kind, (part, _) in kinds.items()]
        ours = f" by {kinds['ours'][1]}" if "ours" in kinds else ""
        print(f"best: {', '.join(named)}: {'; '.join(found)}{ours}")
