"""Inputs and yardsticks of the kernel tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tests.conftest import INTERPRETED

#: 0, 1, primes, one less and more than a load, a tile and an item
LENGTHS = [0, 1, 3, 7, 8, 13, 257, 768, 4096, 4097]
DTYPES = ["float32", "bfloat16", "float16", "float64"]
ULP = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
EPS = 2.0**-53
#: hypothesis: the interpreter takes 100 ms a vector
EXAMPLES = 4 if INTERPRETED else 60


def randn(*shape: int, seed: int, dtype: str = "float32", device: str = "cpu") -> Tensor:
    """Normal numbers, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values.to(getattr(torch, dtype)).to(device)


def pairs(
    lengths: Sequence[int], *, device: str, pre: str = "float32", post: str | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Vectors and what they became: moved by a tenth of their size."""
    before = [randn(n, seed=i, dtype=pre, device=device) for i, n in enumerate(lengths)]
    after = [
        (a.double() + 0.1 * randn(len(a), seed=500 + i, dtype="float64", device=device)).to(
            getattr(torch, post or pre)
        )
        for i, a in enumerate(before)
    ]
    return before, after


def one_ulp_moves(length: int, *, dtype: str, device: str) -> tuple[Tensor, Tensor]:
    """A vector, and it with each coordinate left alone or moved by a unit in its last place."""
    a = randn(length, seed=1, dtype=dtype)
    a = torch.where(a.abs() < 2.0**-10, torch.ones_like(a), a)  # 1 ulp of all is a normal number
    way = torch.randint(-1, 2, (length,), generator=torch.Generator().manual_seed(2))
    exponent = torch.frexp(a.double())[1] - 1
    b = a.double() + way * torch.exp2(exponent.double()) * ULP[dtype]
    assert torch.equal(b.to(a.dtype).double(), b)
    return a.to(device), b.to(a.dtype).to(device)


def assert_close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Error as rms(wanted - found) / rms(wanted); what is not finite has to be so in both."""
    found, wanted = found.cpu(), wanted.cpu()
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == torch.float64
    finite = wanted.isfinite()
    torch.testing.assert_close(found[~finite], wanted[~finite], equal_nan=True)
    error = (found - wanted)[finite].square().mean().sqrt()
    size = wanted[finite].square().mean().sqrt()
    if finite.any():
        assert error <= tolerance * size, f"rms error {error:.3e}, rms of reference {size:.3e}"


def as_numpy(vector: Tensor) -> np.ndarray:
    """A vector in float64, exactly."""
    exact: np.ndarray = vector.detach().double().cpu().numpy()
    return exact
