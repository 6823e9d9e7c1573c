"""Examples that live on a device, and batches of fixed shapes that are cut there.

Nothing is copied and nothing waits: what a batch holds is a function of tensors on the device, so a
CUDA graph can cut it. To the same examples, `Encoded.batch` gives the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from beftkit.tasks.encoding import Batch, Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence


class Resident:
    """N examples on a device, each of as many rows as the others.

    Args:
        encoded: the examples.
        device: where they are to live.

    Raises:
        ValueError: they have different numbers of rows.
    """

    def __init__(self, encoded: Encoded, device: torch.device) -> None:
        each = rows_each(encoded)
        if each is None:
            raise ValueError("examples of different numbers of rows")
        self.encoded, self.device, self.each = encoded, device, each

        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        # Every cell of padding reads the one pad token behind the last row.
        self._ids = there(torch.cat([encoded.ids, encoded.ids.new_tensor([encoded.pad_id])]))
        self._types = self._learnt = self._answers = self._among = None
        if (types := encoded.type_ids) is not None:
            self._types = there(torch.cat([types, types.new_tensor([encoded.pad_type_id])]))
        if (learnt := encoded.learnt) is not None:
            self._learnt = there(torch.cat([learnt, learnt.new_zeros(1)]))
        if encoded.answers is not None:
            self._answers = there(encoded.answers)
        if encoded.among is not None:
            self._among = there(encoded.among)
        self._starts, self._lengths = there(encoded.starts[:-1]), there(encoded.row_lengths)
        self._targets = there(encoded.targets)
        self._known: dict[int, int] = {}

    def width(self, examples: Tensor) -> int:
        """How wide `Encoded.batch` would make a batch of these, int64 [B] on the CPU."""
        return widths_of(self.encoded, [examples])[0]

    def batch(self, examples: Tensor, width: int) -> Batch:
        """A batch; nothing waits for the device.

        Args:
            examples: int64 [B] on the device, numbers of examples of at most this width.
            width: T.
        """
        encoded, rows, index = self.encoded, examples, None
        if self.each > 1:
            place = torch.arange(self.each, device=self.device)
            rows = (examples.unsqueeze(1) * self.each + place).flatten()
            index = torch.arange(len(examples), device=self.device).unsqueeze(1)
            index = index.expand(-1, self.each).reshape(-1)
        lengths = self._lengths.index_select(0, rows).unsqueeze(1)
        offset = torch.arange(width, device=self.device)
        if encoded.padding_side == "left":
            offset = offset - (width - lengths)
            mask = offset >= 0
        else:
            mask = offset < lengths
        where = self._starts.index_select(0, rows).unsqueeze(1) + offset
        where = where.masked_fill(~mask, len(self._ids) - 1)
        inputs = {"input_ids": self._ids[where].long(), "attention_mask": mask.long()}
        if self._types is not None:
            inputs["token_type_ids"] = self._types[where].long()
        if self._answers is not None:
            counts = self._answers.index_select(0, rows).unsqueeze(1)
            behind = width if encoded.padding_side == "left" else lengths
            place = torch.arange(self._most(width), device=self.device)
            inputs["answer_at"] = (behind - counts + place).masked_fill(place >= counts, -1)
        if self._learnt is not None:
            learnt = self._learnt[where].bool()
            most = self._most(width)
            at = torch.full((len(rows), most + 1), -1, device=self.device)
            slot = (learnt.cumsum(1) - 1).masked_fill(~learnt, most)
            place = torch.arange(width, device=self.device).expand_as(slot)
            inputs["answer_at"] = at.scatter(1, slot, place)[:, :most]
        if self._among is not None:
            inputs["among"] = self._among.index_select(0, examples)
        return Batch(inputs, self._targets.index_select(0, examples), index, encoded.tokenizer)

    def _most(self, width: int) -> int:
        """The most tokens that are learnt of a row that is no wider; found at the first call."""
        if width in self._known:
            return self._known[width]
        encoded = self.encoded
        fits = encoded.row_lengths <= width
        if encoded.learnt is not None:
            sums = torch.cat([torch.zeros(1).long(), encoded.learnt.long().cumsum(0)])
            counts = sums[encoded.starts].diff()
        else:
            assert encoded.answers is not None
            counts = encoded.answers
        self._known[width] = int(counts[fits].max())
        return self._known[width]


def rows_each(encoded: Encoded) -> int | None:
    """How many rows each example has; None: not all have as many."""
    counts = encoded.first_row.diff()
    if not len(counts) or int(counts.min()) != int(counts.max()):
        return None
    return int(counts[0])


def widths_of(encoded: Encoded, batches: Sequence[Tensor]) -> list[int]:
    """How wide `Encoded.batch` makes each of these batches, int64 [B]."""
    if not batches:
        return []
    # Of MNLI's 24,500 batches an epoch, in one go: 16 epochs are looked at before the first update.
    sizes = torch.tensor([len(batch) for batch in batches])
    owners = torch.repeat_interleave(torch.arange(len(batches)), sizes)
    lengths = encoded.lengths[torch.cat([*batches])]
    widest = lengths.new_zeros(len(batches)).scatter_reduce(0, owners, lengths, "amax")
    found: list[int] = (widest + -widest % (encoded.pad_to_multiple_of or 1)).tolist()
    return found
