"""Batches packed into one row, their examples kept apart by attention: what `packed.py` compares.

A packed row has a fixed budget of tokens: the examples back to back, each with positions of its
own, then filling tokens as further sequences whose outputs nobody reads. Where sequences begin
stands in a tensor on the device, and the longest that there may be is fixed, so that one CUDA
graph serves every batch which the budget holds.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from beftkit.objectives.causal import exact
from beftkit.tasks import Encoded, plan
from beftkit.tasks.widths import Costs, Widths, choose_widths
from beftkit.training.captured import LOOKED_AT, CapturedStepper
from beftkit.training.course import Course
from beftkit.training.job import Job
from beftkit.training.journal import Meter

#: what transformers calls our attention; it makes no mask for a kind that it does not know
NAME = "beftkit_packed"


class Pack(NamedTuple):
    """B examples in one row of T tokens.

    Attributes:
        ids, positions: int64 [1, T].
        bounds: int32 [B + 1 + fillers], where sequences begin and the last one ends, at T.
        last: int64 [B], the place of each example's last token; of an empty slot anything.
        longest: no sequence is longer, fillers neither.
    """

    ids: Tensor
    positions: Tensor
    bounds: Tensor
    last: Tensor
    longest: int


class Packs:
    """N examples of one row each on a device, cut into packs there; nothing waits."""

    def __init__(self, encoded: Encoded, device: torch.device) -> None:
        assert len(encoded.row_lengths) == len(encoded) and encoded.among is not None
        self.device, self.longest = device, int(encoded.lengths.max())
        pad = encoded.ids.new_tensor([encoded.pad_id])
        self.ids = torch.cat([encoded.ids, pad]).to(device)
        self.starts = encoded.starts[:-1].to(device)
        self.lengths = encoded.row_lengths.to(device)
        self.among, self.targets = encoded.among.to(device), encoded.targets.to(device)

    def cut(self, examples: Tensor, there: Tensor, budget: int) -> Pack:
        """A pack of the examples that are there.

        Args:
            examples: int64 [B] on the device.
            there: bool [B]; where it is False the slot is empty, without a token.
            budget: T, at least the tokens of those that are there.
        """
        lengths = self.lengths.index_select(0, examples) * there
        ends = lengths.cumsum(0)
        # A filler no longer than an example: the kernel's grid ends at the longest, and what lies
        # behind it would never be written.
        count = math.ceil(budget / self.longest)
        steps = torch.arange(1, count + 1, device=self.device) * self.longest
        bounds = torch.cat([ends.new_zeros(1), ends, (ends[-1:] + steps).clamp(max=budget)])
        at = torch.arange(budget, device=self.device)
        sequence = sequences(bounds, budget)
        offset = at - bounds.index_select(0, sequence)
        slot = sequence.clamp(max=len(examples) - 1)
        where = self.starts.index_select(0, examples.index_select(0, slot)) + offset
        where = where.masked_fill(sequence >= len(examples), len(self.ids) - 1)
        ids = self.ids.index_select(0, where).long()
        last = (ends - 1).clamp(min=0)
        return Pack(ids[None], offset[None], bounds.int(), last, self.longest)


def sequences(bounds: Tensor, budget: int) -> Tensor:
    """int64 [T], which sequence each place is of."""
    at = torch.arange(budget, device=bounds.device)
    return (at.unsqueeze(1) >= bounds[1:]).sum(1)


def use_packed_attention(model: Any) -> None:
    """Have a model attend within the sequences of a pack."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    scaling: float, dropout: float = 0.0, cu_seq_lens_q: Tensor, max_length_q: int, **rest: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Causal attention within each sequence, as transformers calls it.

    Args:
        query, key, value: [1, heads, T, D], keys and values of fewer heads perhaps.
        cu_seq_lens_q, max_length_q: `Pack.bounds` and `Pack.longest`, by transformers' names.

    Returns:
        [1, T, heads, D], and nothing.
    """
    assert dropout == 0.0 and attention_mask is None, "torch's kernel knows neither"
    # Rotary positions in float32 have made q and k float32 under autocast; sdpa casts by itself.
    query, key = query.to(value.dtype), key.to(value.dtype)
    way = varlen if query.is_cuda else masked
    return way(query, key, value, cu_seq_lens_q, max_length_q, scaling), None


def masked(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float
) -> Tensor:
    """What stands in where torch's kernel does not run: sdpa under a mask of blocks."""
    sequence = sequences(bounds, query.shape[2])
    mask = (sequence.unsqueeze(1) == sequence).tril()
    made = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
    )
    return made.transpose(1, 2)


def varlen(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float
) -> Tensor:
    """torch's attention over variable lengths: half precision, on CUDA, from torch 2.10 on."""
    from torch.nn.attention.varlen import varlen_attn

    more = options(varlen_attn, query.shape[3], scale)
    repeats = query.shape[1] // key.shape[1]
    q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
    if repeats > 1 and "enable_gqa" in inspect.signature(varlen_attn).parameters:
        more = {**more, "enable_gqa": True}
    elif repeats > 1 and not takes_fewer_heads(varlen_attn, query.device):
        k, v = (one.repeat_interleave(repeats, 1) for one in (k, v))
    found: Tensor = varlen_attn(q, k, v, bounds, bounds, longest, longest, **more)
    return found.unsqueeze(0)


@cache
def options(function: Callable[..., Any], width: int, scale: float) -> Mapping[str, Any]:
    """Causality and scale in the words of this torch.

    2.10 has ``is_causal`` and no scale, 2.11 a window and a scale, 2.12 ``enable_gqa`` besides.
    """
    taken = inspect.signature(function).parameters
    more: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in taken else {}
    if not more:
        more["is_causal"] = True
    if "scale" in taken:
        more["scale"] = scale
    elif not math.isclose(scale, width**-0.5):
        raise ValueError(f"attention scaled by {scale}, which this torch's varlen_attn cannot")
    return more


@cache
def takes_fewer_heads(function: Callable[..., Any], device: torch.device) -> bool:
    """Whether keys may have fewer heads where this torch has no word for it: found by trying.

    Up to 2.11 nothing is said of it; the kernel below it shares heads, forward and backward.
    """
    how = options(function, 64, 0.125)
    bounds = torch.tensor([0, 3, 8], dtype=torch.int32, device=device)
    numbers = torch.arange(3 * 8 * 2 * 64, device=device)  # no lots are drawn on the way
    made = numbers.sin().view(3, 8, 2, 64).to(torch.bfloat16)

    def called(times: int) -> list[Tensor]:
        q, k, v = (one.clone() for one in made)
        k, v = k[:, :1].clone(), v[:, :1].clone()
        leaves = [one.requires_grad_() for one in (q, k, v)]
        with torch.enable_grad():
            wide = (one.repeat_interleave(times, 1) for one in (k, v))
            out = function(q, *wide, bounds, bounds, 5, 5, **how)
            return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]

    try:
        found = called(1)
    except (RuntimeError, ValueError):
        return False
    pairs = zip(found, called(2), strict=True)
    return all(torch.allclose(one, other, rtol=0.05, atol=0.05) for one, other in pairs)


def scores(model: Any, pack: Pack, among: Tensor) -> Tensor:
    """log p of each of the tokens ``among`` [B, C] behind its example, float32 [B, C].

    As `beftkit.objectives.causal.following_log_likelihoods` of a padded batch; float64 likewise.
    """
    states = model.base_model(
        input_ids=pack.ids, position_ids=pack.positions, use_cache=False,
        cu_seq_lens_q=pack.bounds, cu_seq_lens_k=pack.bounds,
        max_length_q=pack.longest, max_length_k=pack.longest,
    ).last_hidden_state  # fmt: skip
    logits = model.get_output_embeddings()(states[0].index_select(0, pack.last))
    return exact(logits).log_softmax(-1).gather(1, among)


class PackedStepper(CapturedStepper):
    """Replays updates of packed batches, one graph a budget; all else is the product's.

    Args:
        job, course, meter: as `CapturedStepper`.
        one: one budget, which holds the largest batch; else at most twelve, chosen as widths are.
    """

    def __init__(self, job: Job, course: Course, meter: Meter, *, one: bool) -> None:
        self.one = one
        super().__init__(job, course, meter)
        self.packs = Packs(job.train, self.device)

    def _widths(self) -> Widths:
        from beftkit.tasks.costs import costs_of

        s = self.job.settings
        epochs = math.ceil(self.course.updates / max(self.course.per_epoch, 1))
        totals = planned_totals(
            self.job.train.lengths, s.examples_a_batch, epochs, self.job.seed, s.group_by_length
        )
        costs = costs_of(self.job.model, half=s.precision != "fp32")
        return choose_budgets(totals, costs, one=self.one, everything=s.graphs == "on")

    def planned(self, batches: Sequence[Tensor], begin: int) -> None:
        super().planned(batches, begin)
        self.upcoming = totals_of(self.job.train.lengths, batches)

    def losses(self, examples: Tensor, there: Tensor, budget: int) -> Tensor:
        """float32 [B]; of an empty slot something finite."""
        packs = self.packs
        pack = packs.cut(examples, there, budget)
        found = scores(self.job.model, pack, packs.among.index_select(0, examples))
        targets = packs.targets.index_select(0, examples)
        return functional.cross_entropy(found, targets, reduction="none")

    def _batch(self, width: int) -> None:
        examples = self.plan.index_select(0, self.at).squeeze(0)
        shares = self.shares.index_select(0, self.at).squeeze(0)
        with self.job.accelerator.autocast():
            losses = self.losses(examples, shares > 0, width)
        loss = (losses * shares).sum()
        loss.backward()
        self.loss += loss.detach()
        self.at += self.stride


def totals_of(lengths: Tensor, batches: Sequence[Tensor]) -> list[int]:
    """Tokens of each batch."""
    return [int(lengths[batch].sum()) for batch in batches]


def planned_totals(
    lengths: Tensor, batch: int, epochs: int, seed: int, grouped: bool
) -> list[list[int]]:
    """The same by epoch, of those that the product looks at for its widths."""
    how: dict[str, Any] = {"seed": seed, "grouped": grouped}
    looked_at = range(min(epochs, LOOKED_AT))
    return [totals_of(lengths, plan(lengths, batch, epoch=e, **how)) for e in looked_at]


def choose_budgets(
    totals: Sequence[Sequence[int]], costs: Costs, *, one: bool, everything: bool
) -> Widths:
    """Budgets in the place of widths, of rows of one: the same choice, or the largest alone."""
    flat = [total for epoch in totals for total in epoch]
    if one:
        top = max(flat)
        return Widths((top,), (True,), top * len(flat) / sum(flat) - 1)
    counts: dict[int, float] = {}
    for total in flat:
        counts[total] = counts.get(total, 0.0) + 1
    return choose_widths(counts, 1, costs, everything=everything)
