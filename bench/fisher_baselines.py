"""Other ways to per-example gradients of every bias, and the floor: batches in, sums out.

Each runs in a process of its own, so it imports what it alone needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def loop(model: Any, batches: Sequence[Any]) -> dict[str, Any]:
    """(a) One example at a time, without its padding."""
    import torch

    wanted = trainable(model)
    sums = {name: torch.zeros_like(one) for name, one in wanted.items()}
    for batch in batches:
        for row in range(len(batch["labels"])):
            kept = batch["attention_mask"][row].bool()
            one = {
                key: value[row : row + 1, kept] if value.dim() == 2 else value[row : row + 1]
                for key, value in batch.items()
            }
            grads = torch.autograd.grad(losses(model, one), list(wanted.values()))
            for total, grad in zip(sums.values(), grads, strict=True):
                total += grad.square()
    return sums


def vmap(model: Any, batches: Sequence[Any]) -> dict[str, Any]:
    """(b) Masks are added up by hand: transformers looks at their values, which vmap cannot."""
    import torch

    model.requires_grad_(False)
    parameters = dict(model.named_parameters())
    biases = {name: parameters[name] for name in site_names(model)}

    def loss(given: Any, ids: Any, mask: Any, label: Any) -> Any:
        inputs = {"input_ids": ids[None], "attention_mask": mask[None]}
        logits = torch.func.functional_call(model, given, kwargs=inputs).logits
        return torch.nn.functional.cross_entropy(logits, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))
    sums = {name: torch.zeros_like(one) for name, one in biases.items()}
    for batch in batches:
        hidden = 1.0 - batch["attention_mask"].to(model.dtype)
        mask = hidden[:, None, None] * torch.finfo(model.dtype).min
        for name, grads in each(biases, batch["input_ids"], mask, batch["labels"]).items():
            sums[name] += grads.square().sum(0)
    return sums


def opacus(model: Any, batches: Sequence[Any]) -> dict[str, Any]:
    """(c) It looks at models in training mode only."""
    import opacus as peer
    import torch

    wanted = trainable(model)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.0
    wrapped = peer.GradSampleModule(model, loss_reduction="sum", strict=False)
    sums = {name: torch.zeros_like(one) for name, one in wanted.items()}
    for batch in batches:
        losses(wrapped, batch).backward()
        for name, one in wanted.items():
            sums[name] += one.grad_sample.square().sum(0)
            one.grad_sample = one.grad = None
    wrapped.remove_hooks()
    return sums


def backpack(model: Any, batches: Sequence[Any]) -> dict[str, Any]:
    """(c) It knows no LayerNorm; linear layers it knows in any architecture."""
    import backpack as peer
    import torch
    from backpack.extensions import BatchGrad

    linear = {f"{n}.bias" for n, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
    wanted = trainable(model, linear)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and not hasattr(module, "input0"):
            peer.extend(module)
    sums = {name: torch.zeros_like(one) for name, one in wanted.items()}
    for batch in batches:
        with peer.backpack(BatchGrad()):
            losses(model, batch).backward()
        for name, one in wanted.items():
            sums[name] += one.grad_batch.square().sum(0)
            one.grad_batch = one.grad = None
    return sums


def floor(model: Any, batches: Sequence[Any]) -> dict[str, Any]:
    """(d) The same biases require gradients; nothing is done with these."""
    wanted = trainable(model)
    for batch in batches:
        losses(model, batch).backward()
        for one in wanted.values():
            one.grad = None
    return {}


def site_names(model: Any) -> list[str]:
    """Parameters that are measured."""
    from beftkit.gradients import sites_of

    return sites_of(model).names


def trainable(model: Any, only: Any = None) -> dict[str, Any]:
    """Let these biases alone require gradients, and return them."""
    model.requires_grad_(False)
    parameters = dict(model.named_parameters())
    names = [name for name in site_names(model) if only is None or name in only]
    return {name: parameters[name].requires_grad_(True) for name in names}


def losses(model: Any, batch: Any) -> Any:
    """Their sum."""
    from torch.nn import functional

    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return functional.cross_entropy(model(**inputs).logits, batch["labels"], reduction="sum")
