"""Time the torch path of the kernels, which the CPU runs, against the obvious ways.

    python -m pytest bench/kernels_cpu.py --benchmark-json=kernels_cpu.json

Each contestant first has to give the reference's result. See bench/README.md for results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from beftkit_kernels import Pairs, example_square_sum, projection_stats, reference

#: widths of BERT-base's biases with head and pooler: 84 vectors
BERT = [768] * 3 * 12 + [768, 3072, 768] * 12 + [768] * 10 + [2, 768]
LISTS = {"36 x 768": [768] * 36, "84 ragged": BERT, "1536 x 8192": [8192] * 1536}
Run = Callable[[], Any]


def vectors(widths: list[int], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Two lists of vectors wherever the allocator put them."""
    generator = torch.Generator().manual_seed(0)
    pre = [torch.randn(width, generator=generator).to(dtype) for width in widths]
    return pre, [(1.01 * x.float()).to(dtype) for x in pre]


def contestants(pre: list[Tensor], post: list[Tensor]) -> dict[str, Run]:
    """Ways to all six sums of every pair."""
    table = Pairs(pre, post)
    return {
        "loop": lambda: reference.projection_stats(pre, post),
        "ours": lambda: projection_stats(pre, post),
        "ours, looked up before": table.stats,
    }


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What is compared is work, not how many cores happen to be free."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("way", ["loop", "ours", "ours, looked up before"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda x: str(x)[6:])
@pytest.mark.parametrize("case", LISTS)
def test_projection_stats(benchmark: Any, case: str, dtype: torch.dtype, way: str) -> None:
    pre, post = vectors(LISTS[case], dtype)
    run = contestants(pre, post)[way]
    torch.testing.assert_close(run(), reference.projection_stats(pre, post), rtol=1e-12, atol=0)
    benchmark.group = f"projection_stats, {case}, {str(dtype)[6:]}"
    benchmark.pedantic(run, rounds=5 if "8192" in case else 50, warmup_rounds=1)


def by_example(grad: Tensor) -> Tensor:
    """A loop over examples in float64."""
    total = torch.zeros(grad.shape[2], dtype=torch.float64)
    for example in grad:
        total += example.double().sum(0).square()
    return total


@pytest.mark.parametrize("way", ["loop", "one expression", "one expression, float32", "ours"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda x: str(x)[6:])
def test_example_square_sum(benchmark: Any, dtype: torch.dtype, way: str) -> None:
    grad = torch.randn(16, 128, 768, generator=torch.Generator().manual_seed(0)).to(dtype)
    run: Run = {
        "loop": lambda: by_example(grad),
        "one expression": lambda: grad.double().sum(1).square().sum(0),
        "one expression, float32": lambda: grad.float().sum(1).square().sum(0).double(),
        "ours": lambda: example_square_sum(grad).total,
    }[way]
    tolerance = 1e-4 if "float32" in way else 1e-12  # the price of float32
    torch.testing.assert_close(run(), by_example(grad), rtol=tolerance, atol=0)
    benchmark.group = f"example_square_sum, 16 x 128 x 768, {str(dtype)[6:]}"
    benchmark.pedantic(run, rounds=30, warmup_rounds=1)
