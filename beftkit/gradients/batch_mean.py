"""The published code's quantity: squares of a batch's mean gradient after clipping.

It is not the per-example Fisher (facts behind the method, section 1); it is here to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from beftkit.accelerator import steady_attention
from beftkit.errors import BeftError
from beftkit.gradients.exact import Autocast, check_finite
from beftkit.gradients.losses import Losses, negative_log_likelihoods
from beftkit.gradients.modes import frozen
from beftkit.gradients.rows import as_batch


def batch_mean_squares(
    model: nn.Module,
    names: Sequence[str],
    trained: Sequence[str],
    batches: Iterable[Any],
    losses: Losses = negative_log_likelihoods,
    *,
    clip: float = 1.0,
    autocast: Autocast = nullcontext,
) -> tuple[dict[str, Tensor], int, int]:
    """Sum over batches of (d mean loss / d b)^2, each batch's gradient clipped to a norm first.

    Args:
        model: on its device; in evaluation mode meanwhile.
        names: parameters whose squares are wanted, 1-D.
        trained: parameters whose gradients make up the norm: all that a probe trains, the head and
            the pooler's bias included.
        batches: see `as_batch`; the published code has 8 examples in each.
        losses: losses of the examples of a batch, ``[N]``.
        clip: largest norm.
        autocast: entered around the forward pass.

    Returns:
        Sums by parameter, float64 ``[D]``; how many batches and how many examples there were.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    device = next(model.parameters()).device
    wanted = list(dict.fromkeys([*names, *trained]))
    sums = {name: torch.zeros_like(parameters[name], dtype=torch.float64) for name in names}
    count = examples = 0
    with frozen(model), steady_attention(device):
        leaves = [parameters[name].requires_grad_(True) for name in wanted]
        for given in batches:
            rows = as_batch(given, device)
            with autocast():
                loss = losses(model, rows.given).mean()
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
            grads = {n: g.double() for n, g in zip(wanted, found, strict=True) if g is not None}
            norms = [grads[name].norm() for name in dict.fromkeys(trained) if name in grads]
            norm = torch.stack([one.to(device) for one in norms]).norm() if norms else 0.0
            factor = torch.as_tensor(clip / (norm + 1e-6)).clamp(max=1.0)  # as torch clips
            for name in names:
                if name in grads:
                    sums[name] += (grads[name] * factor.to(grads[name].device)).square()
            count, examples = count + 1, examples + rows.examples
    if not count:
        raise BeftError("no batches were given; expected at least one example")
    check_finite(sums)
    return sums, count, examples
