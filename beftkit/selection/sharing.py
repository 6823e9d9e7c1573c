"""Several processes of one selection: what each is, and one thing that they do together."""

from __future__ import annotations

import os
from collections.abc import Callable

from beftkit.accelerator import make_accelerator, told_by_main


def place() -> tuple[int, int, int]:
    """Our rank, how many we are, our rank on this machine."""
    names = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    rank, world, local = (int(os.environ.get(name, default)) for name, default in names)
    return rank, world, local


def together(call: Callable[[], None]) -> None:
    """What a call on the first process comes to, told to all; the runs shall know of no others."""
    from torch import distributed

    try:
        told_by_main(make_accelerator("cpu"), call)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT"
        for name in names.split():
            os.environ.pop(name, None)


def own_gpu(local: int) -> str | None:
    """The GPU of this process, where there are some."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{local % count}" if count else None
