"""What every launcher needs: the choice of backend, codes of dtypes, tables on the device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

BACKENDS = ("auto", "triton", "torch")
#: the code of each input dtype in the tables
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
#: bytes; 128-bit loads want addresses that divide by it
ALIGNMENT = 16
#: elements per thread and side: two 128-bit loads of float32, one of a 16-bit dtype
WIDE = 8


@cache
def is_installed(module: str) -> bool:
    """Whether a module could be imported; looked up once."""
    return find_spec(module) is not None


def choose(backend: str, device: torch.device) -> str:
    """Settle on "triton" or "torch" for tensors on ``device``.

    Raises:
        ValueError: no such backend, or Triton asked for where there is none.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    there = is_installed("triton")
    if backend == "auto":
        return "triton" if there and device.type == "cuda" else "torch"
    if backend == "triton" and not there:
        raise ValueError("backend 'triton' is not installed; use 'auto' or 'torch'")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" and device.type == "cpu"
    if backend == "triton" and device.type != "cuda" and not interpreted:
        raise ValueError(
            f"backend 'triton' needs tensors on a CUDA or ROCm device, these are on {device}; "
            "move them, or use 'auto' or 'torch'"
        )
    return backend


def common_device(tensors: Iterable[Tensor]) -> torch.device:
    """The one device of all tensors (the CPU of none), each of a dtype in `KINDS`."""
    device = None
    for tensor in tensors:
        if tensor.dtype not in KINDS:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in KINDS)
            raise TypeError(f"a tensor of {tensor.dtype}; expected {known}")
        if device is not None and tensor.device != device:
            raise ValueError(f"tensors on {device} and on {tensor.device}; expected one device")
        device = tensor.device
    return device if device is not None else torch.device("cpu")


def warps(of_32: int = 4) -> int:
    """Warps of a program with as many threads as ``of_32`` warps of 32."""
    return max(1, of_32 // 2) if torch.version.hip else of_32


def upload(table: Tensor, device: torch.device) -> Tensor:
    """A small table built on the CPU, where the kernel reads it."""
    return table.contiguous().to(device, non_blocking=True)


def on(device: torch.device) -> AbstractContextManager[object]:
    """Make ``device`` the current one: Triton launches there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
