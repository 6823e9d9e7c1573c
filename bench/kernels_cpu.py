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

from beftkit_kernels import Pairs, example_square_sums, projection_stats, reference

#: widths of BERT-base's biases with head and pooler: 84 vectors
BERT = [768] * 3 * 12 + [768, 3072, 768] * 12 + [768] * 10 + [2, 768]
LISTS = {"36 x 768": [768] * 36, "84 ragged": BERT, "1536 x 8192": [8192] * 1536}
#: how many gradients of one batch, and their shape
GRADIENTS = {
    "16 x 128 x 768": (1, (16, 128, 768)),
    "36 of 16 x 128 x 768": (36, (16, 128, 768)),
    "36 of 16 x 20 x 768": (36, (16, 20, 768)),
    "12 of 16 x 128 x 3072": (12, (16, 128, 3072)),
}
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
@pytest.mark.parametrize("case", GRADIENTS)
def test_example_square_sum(benchmark: Any, case: str, dtype: torch.dtype, way: str) -> None:
    count, shape = GRADIENTS[case]
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]
    run: Run = {
        "loop": lambda: [by_example(g) for g in grads],
        "one expression": lambda: [g.double().sum(1).square().sum(0) for g in grads],
        "one expression, float32": lambda: [
            g.float().sum(1).square().sum(0).double() for g in grads
        ],
        "ours": lambda: [one.total for one in example_square_sums(grads)],
    }[way]
    tolerance = 1e-3 if "float32" in way else 1e-12  # the price of float32
    for found, grad in zip(run(), grads, strict=True):
        torch.testing.assert_close(found, by_example(grad), rtol=tolerance, atol=0)
    benchmark.group = f"example_square_sum, {case}, {str(dtype)[6:]}"
    benchmark.pedantic(run, rounds=30 if count == 1 else 10, warmup_rounds=1)
