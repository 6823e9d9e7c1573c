"""What batches cost on a GPU, roughly: enough to choose widths by."""

from __future__ import annotations

from typing import Any

from beftkit.tasks.widths import Costs

#: seconds: the recording of one width; each tensor of a model whose work is launched eagerly;
#: floating-point operations a second, in float32 and in half precision (measured on an H200)
CAPTURE, LAUNCH, RATES = 0.04, 1e-4, (4e13, 2.5e14)


def costs_of(model: Any, *, half: bool, trains: bool = True) -> Costs:
    """What batches of a model cost on a GPU, roughly: enough to choose widths by.

    Args:
        model: whose tensors are counted.
        half: whether it computes in half precision.
        trains: forward and backward; else forward alone, a third of the launches.
    """
    matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    try:  # looked up, not multiplied
        table = model.get_input_embeddings()
        matrices -= table.weight.numel()
    except (AttributeError, NotImplementedError):
        pass
    launch = LAUNCH * sum(1 for _ in model.parameters()) * (1 if trains else 1 / 3)
    token = (4 if trains else 2) * max(matrices, 1) / RATES[half]
    return Costs(launch=launch, token=token, capture=CAPTURE + launch)
