"""What a run was begun with, in a few characters: nothing is gone on with that has changed since.

Examples and biases are hashed whole. Of the weights every byte counts as well, in checksums of 32
bits (gigabytes a second): a change is missed once in four billion, or where it was made to be.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.errors import Refusal

if TYPE_CHECKING:
    import torch
    from torch import nn

    from beftkit.tasks import Encoded

UNKNOWN = "saved by an older version: whether data and base are still the same was not checked"
BIASES, WEIGHTS = "the base's biases", "the base's weights"


def examples_digest(encoded: Encoded, labels: Sequence[str]) -> str:
    """Of token ids, token types, targets, right answers, their order, and the names of classes."""
    import torch

    found = blake2b(repr([*labels]).encode(), digest_size=16)
    for field in fields(encoded):
        value = getattr(encoded, field.name)
        if isinstance(value, torch.Tensor):
            found.update(f"{field.name} {value.dtype} {[*value.shape]}".encode())
            found.update(_raw(value))
    for one in encoded.asked:
        if one.gold:
            found.update(repr((one.gold, one.bags)).encode())
    return found.hexdigest()


def base_digests(model: nn.Module, fresh: Collection[str]) -> dict[str, str]:
    """Of a model as it was loaded: biases and other vectors exactly, and the rest.

    Args:
        model: on any device, untrained.
        fresh: parameters that were drawn here, and are none of the base's.
    """
    with digesting(model, fresh) as found:
        return found()


@contextmanager
def digesting(model: nn.Module, fresh: Collection[str]) -> Iterator[Callable[[], dict[str, str]]]:
    """As `base_digests`, beside other work: gives what waits for them.

    Threads read the weights where they lie when this begins; a model may be brought to another
    device meanwhile, but no value is to change before they were waited for. As many threads as
    torch may have, four at most: memory gives no more.
    """
    import torch

    values = [
        (name, value.detach())
        for name, value in sorted(model.named_parameters())
        if name not in fresh
    ]
    exact = blake2b(digest_size=16)
    for name, value in values:
        if value.dim() < 2:
            exact.update(_about(name, value))
            exact.update(_raw(value))
    pool = ThreadPoolExecutor(min(torch.get_num_threads(), 4))
    sums = [
        (_about(name, value), pool.submit(_sum_of, value))
        for name, value in values
        if value.dim() >= 2
    ]
    del values

    def found() -> dict[str, str]:
        rest = blake2b(digest_size=16)
        for about, one in sums:
            rest.update(about + one.result().to_bytes(4, "little"))
        return {BIASES: exact.hexdigest(), WEIGHTS: rest.hexdigest()}

    try:
        yield found
    finally:
        pool.shutdown(cancel_futures=True)


def check_same(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with what a run was not begun with.

    Raises:
        Refusal: it names what has changed.
    """
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        raise Refusal(
            f"{folder}: {' and '.join(changed)} differ from those the run was begun with; put them "
            "back, or start afresh with --overwrite"
        )


def _about(name: str, value: torch.Tensor) -> bytes:
    return f"{name} {value.dtype} {[*value.shape]}".encode()


def _sum_of(value: torch.Tensor) -> int:
    return zlib.crc32(_raw(value))


def _raw(value: torch.Tensor) -> Any:
    """A tensor's bytes, without a copy where it lies in the CPU's memory."""
    import torch

    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
