"""Which examples make up which batch: pure functions of lengths, sizes and seeds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: A mega-batch is shuffled examples that are then sorted by length: at most so many batches...
MEGA_BATCHES = 50
#: ... and so few that an epoch has at least so many of them, or small data would always be cut the
#: same way. Both as in transformers' ``group_by_length``.
MEGA_BATCHES_PER_EPOCH = 4


def plan(
    lengths: Tensor, batch_size: int, *, seed: int, epoch: int, grouped: bool = True
) -> list[Tensor]:
    """The training batches of one epoch.

    A pure function of its arguments: the global random state is neither read nor moved, and an
    epoch can be planned without those before it.

    Args:
        lengths: [N] integers, tokens of each example (`Encoded.lengths`).
        batch_size: examples per batch, B.
        seed: of the run, from 0.
        epoch: number of the epoch, from 0.
        grouped: batches of similar length: shuffle, cut into mega-batches, sort each by length,
            cut into batches, shuffle these. Otherwise a plain shuffle.

    Returns:
        Tensors of example numbers, int64 [B]; every example once; only the last may be shorter.
    """
    generator = torch.Generator()
    # Neighbouring seeds and epochs must not give related streams.
    mixed = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    generator.manual_seed(int(mixed))
    order = torch.randperm(len(lengths), generator=generator)
    if not grouped:
        return list(order.split(batch_size))
    mega = min(len(order) // (batch_size * MEGA_BATCHES_PER_EPOCH), MEGA_BATCHES)
    groups = order.split(max(mega, 1) * batch_size)
    order = torch.cat([group[_longest_first(lengths[group])] for group in groups])
    batches = list(order.split(batch_size))
    # What is left over stays last, where accumulated steps expect it.
    whole = len(order) // batch_size
    shuffled = torch.randperm(whole, generator=generator).tolist()
    return [batches[i] for i in shuffled] + batches[whole:]


def plan_evaluation(lengths: Tensor, batch_size: int, *, by_length: bool = False) -> list[Tensor]:
    """Batches for evaluation: every example once, longest first, always the same.

    Longest first shows at once whether the memory suffices. Arguments and result as in `plan`; with
    ``by_length`` only examples of one length share a batch.
    """
    order = _longest_first(lengths)
    if not by_length:
        return list(order.split(batch_size))
    counts = torch.unique_consecutive(lengths[order], return_counts=True)[1].tolist()
    return [batch for group in order.split(counts) for batch in group.split(batch_size)]


def _longest_first(lengths: Tensor) -> Tensor:
    return torch.argsort(lengths, descending=True, stable=True)
