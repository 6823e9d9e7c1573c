"""Time the Triton kernels against the obvious ways, and against a copy in device memory.

    python bench/gpu_kernels.py
    python bench/gpu_kernels.py --configs [--short]

Needs a CUDA or ROCm device; under 5 minutes, and 2 with --configs, which compares ways through
the data that the kernels could take (kernel_configs.py). Before a way is timed it has to give the
reference's result, in this process. Rows go to bench/results/, a table to the terminal. The cache
of the device is flushed before each run. What counts as moved is every input, once; `fraction` is
that per second over what a copy of 1 GiB moves (read and written) in the same process.
"""

from __future__ import annotations

import csv
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
sys.path[:0] = [str(ROOT / "kernels"), str(ROOT)]

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from beftkit_kernels import (  # noqa: E402
    Pairs,
    SquareSums,
    example_square_sums,
    pack,
    reference,
)

#: widths of biases: of one model, and of many checkpoints of it
BERT = [768] * 36
LISTS = {
    "BERT-base q k v": BERT,
    "BERT-base": [768, 768, 768, 768, 768, 3072, 768, 768] * 12,
    "Qwen2.5-72B q k v": [8192, 1024, 1024] * 80,
    "64 x BERT-base q k v": BERT * 64,
    "1536 x 8192": [8192] * 1536,
    "4096 x BERT-base q k v": BERT * 4096,
}
GRADIENTS = [(8, 32), (32, 128), (128, 128), (128, 512)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FIELDS = (
    "kernel", "case", "vectors", "shape", "dtype", "way", "p20_ms", "p50_ms", "p80_ms", "runs",
    "bytes", "gb_per_s", "copy_gb_per_s", "fraction", "gpu", "driver", "python", "torch", "triton",
    "commit", "command", "date",
)  # fmt: skip
#: seconds: a way that takes longer is run once; after so many no further case is begun
SLOW, BUDGET = 0.1, 270.0
#: most vectors of ways that go through them one by one in Python: 0.2 ms each
LOOPED = 2400
#: relative; the ways differ in the order of float64 sums, and (b) cancels
TOLERANCE = 1e-9
Way = Callable[[], Tensor]


class Case(NamedTuple):
    """Work to be done, and the ways to do it; the first is the one that is judged by."""

    kernel: str
    name: str
    vectors: int
    shape: str
    dtype: str
    moved: int
    ways: dict[str, Way]


def terms(pre: Tensor, post: Tensor) -> Tensor:
    """The batched expression, for rows of one width."""
    a, b = pre.double(), post.double()
    d = b - a
    return torch.stack([x.sum(-1) for x in (a * a, b * b, a * d, b * d, d.abs(), d * d)], -1)


def foreach_terms(pre: list[Tensor], post: list[Tensor]) -> Tensor:
    """`torch._foreach_*` has norms but no dot product: three norms make one."""
    a, b = [x.double() for x in pre], [x.double() for x in post]
    d = torch._foreach_sub(b, a)
    aa, bb, dd = (torch.stack(torch._foreach_norm(x)).square() for x in (a, b, d))
    absolute = torch.stack(torch._foreach_norm(d, 1))
    return torch.stack([aa, bb, (bb - aa - dd) / 2, (bb - aa + dd) / 2, absolute, dd], -1)


def rows(vectors: list[Tensor]) -> Tensor:
    """Vectors as rows, with zeros at the end of the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence(vectors, batch_first=True)


def list_case(name: str, dtype: str) -> Case:
    """`projection_stats` from both entrances."""
    widths, generator = LISTS[name], torch.Generator("cuda").manual_seed(0)
    pre = [torch.randn(n, device="cuda", generator=generator).to(DTYPES[dtype]) for n in widths]
    post = [x + 0.1 * x.roll(1) for x in pre]
    scattered = Pairs(pre, post)
    (values, offsets), (moved, _) = pack(pre), pack(post)
    packed = Pairs(values, moved, offsets)
    out = torch.empty((len(widths), 6), dtype=torch.float64, device="cuda")
    matrices = rows(pre), rows(post)
    compiled = torch.compile(terms, dynamic=False)
    python = {
        "a: loop": lambda: reference.projection_stats(pre, post),
        "b: foreach": lambda: foreach_terms(pre, post),
    }
    # What judges: the loop, or else the batched expression, which `judge` holds to it.
    batched = {"batched, float64": lambda: terms(*matrices)}
    return Case(
        "projection_stats", name, len(widths),
        f"[{widths[0]}]" if len(set(widths)) == 1 else "ragged",
        dtype, 2 * values.itemsize * sum(widths),
        {
            **(python if len(widths) <= LOOPED else batched),
            "c: torch.compile": lambda: compiled(*matrices),
            "ours, scattered": lambda: scattered.stats(out=out),
            "ours, packed": lambda: packed.stats(out=out),
        },
    )  # fmt: skip


def squares(stacked: Tensor) -> Tensor:
    """The batched expression, for gradients of one shape."""
    return stacked.double().sum(2).square().sum(1)


def loop_squares(grads: list[Tensor]) -> Tensor:
    """Tensor after tensor."""
    return torch.stack([g.sum(1, dtype=torch.float64).square().sum(0) for g in grads])


def foreach_squares(grads: list[Tensor]) -> Tensor:
    """`torch._foreach_*` has no sum over a dimension: only the squares are grouped."""
    sums = [g.sum(1, dtype=torch.float64) for g in grads]
    return torch.stack([x.sum(0) for x in torch._foreach_mul(sums, sums)])


def gradient_case(batch: int, tokens: int, dtype: str) -> Case:
    """`example_square_sums` of q, k and v of 12 layers."""
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (36, batch, tokens, 768)
    stacked = torch.empty(shape, dtype=DTYPES[dtype], device="cuda").normal_(generator=generator)
    grads = list(stacked)
    compiled = torch.compile(squares, dynamic=False)
    prepared = SquareSums(grads)
    return Case(
        "example_square_sum", f"B {batch}, T {tokens}", 36, str(list(shape[1:])), dtype,
        stacked.nbytes,
        {
            "a: loop": lambda: loop_squares(grads),
            "b: foreach": lambda: foreach_squares(grads),
            "c: torch.compile": lambda: compiled(stacked),
            "ours": lambda: torch.stack([one.total for one in example_square_sums(grads)]),
            "ours, prepared": lambda: torch.stack([one.total for one in prepared.run(grads)]),
        },
    )  # fmt: skip


def cases() -> Iterator[Callable[[], Case]]:
    """What is timed, from small to large; made when its turn comes."""
    for name in LISTS:
        for dtype in DTYPES:
            yield partial(list_case, name, dtype)
    for batch, tokens in GRADIENTS:
        for dtype in DTYPES:
            yield partial(gradient_case, batch, tokens, dtype)


def judge() -> None:
    """The ways that judge the others below, against the plain reference on small inputs."""
    pre = [torch.randn(n, device="cuda").bfloat16() for n in (1, 3, 4097)]
    post = [1.1 * x for x in pre]
    found, wanted = terms(rows(pre), rows(post)), reference.projection_stats(pre, post)
    same("the batched expression", found, wanted)
    grad = torch.randn(4, 9, 33, device="cuda")
    same("the loop", loop_squares([grad])[0], reference.example_square_sum(grad)[0])


def same(way: str, found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    """No speed without correctness: stop at the first column that is off."""
    found, wanted = found.reshape(len(found), -1), wanted.reshape(len(wanted), -1)
    size = wanted.square().mean(0).sqrt()
    error = (found - wanted).square().mean(0).sqrt()
    if not bool((error <= tolerance * size).all()):
        raise SystemExit(f"{way} is wrong by {(error / size).tolist()}; nothing is reported")


def measure(run: Way) -> tuple[Tensor, list[float]]:
    """What it gives, and milliseconds of runs."""
    from triton.testing import do_bench

    result = run().clone()  # compiles
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    once = time.perf_counter() - begin
    return result, [1e3 * once] if once > SLOW else do_bench(run, 10, 60, return_mode="all")


def copy_speed() -> float:
    """GB/s that a copy of 1 GiB reads and writes."""
    source = torch.empty(2**28, device="cuda").normal_()
    target = torch.empty_like(source)
    _, times = measure(lambda: target.copy_(source))
    return 2 * source.nbytes / 1e6 / quantiles(times)[1]


def quantiles(times: list[float]) -> list[float]:
    """p20, p50, p80."""
    found: list[float] = torch.tensor(times).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
    return found


def output_of(*command: str) -> str:
    """First line a program prints, if it is there."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip().partition("\n")[0]


def surroundings() -> dict[str, str]:
    """Machine and versions, the same in all rows."""
    import triton

    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver or str(torch.version.hip or ""),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": output_of("git", "describe", "--always", "--dirty"),
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).date().isoformat(),
    }


def timed(case: Case, copy: float) -> list[dict[str, Any]]:
    """Rows of one case; every way has to agree with the first."""
    wanted, found_rows = None, []
    for way, run in case.ways.items():
        result, times = measure(run)
        wanted = result if wanted is None else wanted
        same(f"{case.kernel}, {case.name}, {case.dtype}: {way}", result, wanted)
        p20, p50, p80 = quantiles(times)
        speed = case.moved / 1e6 / p50
        found_rows.append({
            "kernel": case.kernel, "case": case.name, "vectors": case.vectors,
            "shape": case.shape, "dtype": case.dtype, "way": way,
            "p20_ms": f"{p20:.5f}", "p50_ms": f"{p50:.5f}", "p80_ms": f"{p80:.5f}",
            "runs": len(times), "bytes": case.moved, "gb_per_s": f"{speed:.1f}",
            "copy_gb_per_s": f"{copy:.1f}", "fraction": f"{speed / copy:.3f}",
        })  # fmt: skip
    return found_rows


def main() -> None:
    """Check, time, write the rows and print a table."""
    if not torch.cuda.is_available():
        raise SystemExit("gpu_kernels needs a CUDA or ROCm device; there is none, nothing timed")
    begin = time.perf_counter()
    judge()
    where = surroundings()
    slug = re.sub(r"\W+", "-", where["gpu"].lower()).strip("-")
    if "--configs" in sys.argv[1:]:
        # Under its own name, so that the module is not executed a second time.
        sys.modules["gpu_kernels"] = sys.modules[__name__]
        import kernel_configs as every

        name, more = "kernel_configs", ()
        if "--short" in sys.argv[1:]:
            import kernel_configs_short as short

            name, more = "kernel_configs_short", (short.cases, short.BUDGET)
        with (RESULTS / f"{name}-{slug}.csv").open("w", newline="") as file:
            print(where)
            every.compare(where, file, *more)
        return
    copy = copy_speed()
    target = RESULTS / f"gpu_kernels-{slug}.csv"
    print(f"{where}\ncopy: {copy:.0f} GB/s\n")
    print("| kernel | case | dtype | MB | way | p50 ms | GB/s | of copy |")
    print("|---|---|---|---|---|---|---|---|")
    found = []
    for make in cases():
        if time.perf_counter() - begin > BUDGET:
            print(f"\nStopped after {BUDGET:.0f} s: the remaining cases are not measured.")
            break
        torch._dynamo.reset()
        for row in timed(make(), copy):
            found.append(row | where)
            print(
                f"| {row['kernel']} | {row['case']} | {row['dtype']} | {row['bytes'] / 1e6:.2f} "
                f"| {row['way']} | {row['p50_ms']} | {row['gb_per_s']} | {row['fraction']} |",
                flush=True,
            )
        torch.cuda.empty_cache()
    with target.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(found)
    print(f"\n{target.relative_to(ROOT)}: {len(found)} rows, {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
