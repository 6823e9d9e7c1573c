"""The way through short vectors that the benchmark alone compares, against float64."""

import pytest
import torch

from beftkit_kernels import Pairs, reference
from bench.kernel_streams import stream
from tests.conftest import INTERPRETED, TOLERANCE
from tests.kernels_cases import assert_close, pairs

DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("programs", [1, 3, 16])
def test_against_the_reference(device: str, dtype: str, programs: int) -> None:
    """Vectors in no order, of several lengths, among them none; more and fewer than programs."""
    pre, post = pairs([768] * 5 + [8, 0, 1024, 768, 256, 768], device=device, pre=dtype)
    order = torch.randperm(len(pre), generator=torch.Generator().manual_seed(0)).tolist()
    pre, post = [pre[i] for i in order], [post[i] for i in order]
    table = Pairs(pre, post, backend="triton")._table
    assert table is not None
    out = torch.full((len(pre), 6), torch.nan, dtype=torch.float64, device=device)
    found = stream(table, out, programs)()
    assert_close(found, reference.projection_stats(pre, post), TOLERANCE[dtype].rms)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lengths", [[768, 7], [2**16]], ids=["not whole loads", "split"])
def test_what_it_does_not_take(device: str, lengths: list[int]) -> None:
    pre, post = pairs(lengths, device=device, pre="bfloat16")
    table = Pairs(pre, post, backend="triton")._table
    assert table is not None
    out = torch.empty((len(pre), 6), dtype=torch.float64, device=device)
    with pytest.raises(ValueError, match=r"whole loads|at most one item"):
        stream(table, out, 1)
