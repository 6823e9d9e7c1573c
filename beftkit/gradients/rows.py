"""Batches as they come, ours or a mapping in transformers' manner, and parts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from beftkit.errors import BeftError
from beftkit.tasks import Batch

#: `beftkit.tasks.Batch`, or a mapping such as a data loader of transformers gives
AnyBatch = Batch | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch on its device, and what its rows are.

    Attributes:
        given: what a loss is called with.
        rows: how many rows, R.
        examples: how many examples they belong to.
        index: int64 [R] on the CPU, the example of each row; None: row i is example i.
    """

    given: AnyBatch
    rows: int
    examples: int
    index: Tensor | None

    def take(self, wanted: Sequence[int]) -> Rows:
        """Only these examples, in this order; one may come several times. Padding stays."""
        if self.index is None:
            rows, index = torch.tensor(wanted), None
        else:
            found = [(self.index == example).nonzero().flatten() for example in wanted]
            rows = torch.cat(found)
            counts = torch.tensor([len(one) for one in found])
            index = torch.repeat_interleave(torch.arange(len(wanted)), counts)
        examples = torch.tensor(wanted)

        def pick(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != self.rows:
                return value
            return value[rows.to(value.device)]

        if isinstance(self.given, Batch):
            targets = self.given.targets
            inputs = {key: pick(value) for key, value in self.given.inputs.items()}
            owners = None if index is None else index.to(targets.device)
            cut: AnyBatch = Batch(inputs, targets[examples.to(targets.device)], owners)
        else:
            cut = {key: pick(value) for key, value in self.given.items()}
        return Rows(cut, len(rows), len(wanted), index)


def as_batch(given: Any, device: Any) -> Rows:
    """A batch of either kind, moved to a device.

    Args:
        given: a `beftkit.tasks.Batch`, or a mapping of tensors whose first dimension counts rows,
            which are examples.
        device: where the model is.

    Raises:
        BeftError: neither of them, or empty.
    """
    if isinstance(given, Batch):
        inputs = {key: _moved(value, device) for key, value in given.inputs.items()}
        # Looked at on the CPU, read on the device: one that lies there already is waited for.
        there = None if given.index is None else _moved(given.index, device)
        moved = Batch(inputs, _moved(given.targets, device), there)
        rows = len(next(iter(inputs.values())))
        index = None if given.index is None else given.index.cpu()
        return Rows(moved, rows, moved.examples, index)
    if not isinstance(given, Mapping):
        raise BeftError(
            f"a batch of type {type(given).__name__} was given; expected a mapping of tensors with "
            "input_ids, attention_mask and labels, or a beftkit.tasks.Batch"
        )
    plain = {
        key: _moved(value, device) if isinstance(value, Tensor) else value
        for key, value in given.items()
    }
    sizes = [len(v) for v in plain.values() if isinstance(v, Tensor) and v.dim()]
    if not sizes or not sizes[0]:
        raise BeftError("a batch without rows was given; expected tensors [rows, ...]")
    return Rows(plain, sizes[0], sizes[0], None)


def _moved(value: Tensor, device: Any) -> Tensor:
    """On the device; a GPU is not waited for, which takes pinned memory."""
    if value.device.type == "cpu" and torch.device(device).type == "cuda":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
