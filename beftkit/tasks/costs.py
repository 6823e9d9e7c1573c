"""What batches cost on a GPU, roughly: enough to choose widths by."""

from __future__ import annotations

from typing import Any

from beftkit.tasks.widths import Costs

# Measured on an H200: BERT-base, 201 tensors, batches of 16 at SST-2's lengths, float32: 22.3 ms
# an eager update; 6.7 ms a replayed one, of which 2 are what its tokens cost by the rates below;
# 57 ms a recording and its trial, an eager update; 110 ms more for the first, tried three times.

#: seconds: a recording without its trial; the first one besides; each tensor of a model whose work
#: is launched eagerly, beyond what a replay takes to launch
CAPTURE, FIRST, LAUNCH = 0.04, 0.11, 9e-5
#: floating-point operations a second, in float32 and in half precision
RATES = (4e13, 2.5e14)


def costs_of(model: Any, *, half: bool, trains: bool = True) -> Costs:
    """What batches of a model cost on a GPU, roughly: enough to choose widths by.

    Args:
        model: whose tensors are counted.
        half: whether it computes faster than in float32: half precision, TF32. A model that is kept
            in half precision does in any case.
        trains: forward and backward; else forward alone, half of what launches cost (14 batches of
            an evaluation took .14 s where tokens cost .09).
    """
    held = [p for p in model.parameters() if p.dim() > 1]
    matrices = sum(p.numel() for p in held)
    half = half or 2 * sum(p.numel() for p in held if p.dtype.itemsize < 4) > matrices
    try:  # looked up, not multiplied
        table = model.get_input_embeddings()
        matrices -= table.weight.numel()
    except (AttributeError, NotImplementedError):
        pass
    part = 1.0 if trains else 0.5
    launch = part * LAUNCH * sum(1 for _ in model.parameters())
    token = (4 if trains else 2) * max(matrices, 1) / RATES[half]
    return Costs(launch=launch, token=token, capture=CAPTURE + launch, first=part * FIRST)
