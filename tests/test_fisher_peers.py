"""The same per-example gradients by others' means: torch.func, and Opacus and BackPACK if there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from beftkit.gradients import example_squares, sites_of
from tests.fisher_cases import classified, classifier, gap

SAME = 1e-10


def eager(id: str = "bert") -> Any:
    """Nothing to train, attention spelled out: peers see through no kernel."""
    return classifier(id, attn_implementation="eager").requires_grad_(False)


def sums_of(model: Any, names: list[str], one: Callable[[Any], dict[str, Tensor]]) -> Any:
    """Ours, and the sums of what a peer gives for each batch: gradients ``[N, D]``."""
    batches = classified(model)
    ours = example_squares(model, names, batches).sums
    peer: dict[str, Tensor] = {}
    for batch in batches:
        for name, grads in one(batch).items():
            assert len(grads) == len(batch["labels"])
            peer[name] = grads.square().sum(0) + peer.get(name, 0)
    return ours, peer


@pytest.mark.parametrize("id", ["bert", "albert", "deberta", "deberta-v2-share", "opt"])
def test_vmap_of_grad(id: str) -> None:
    model = eager(id)
    names = sites_of(model).names
    biases = {name: dict(model.named_parameters())[name].detach() for name in names}

    def loss(given: dict[str, Tensor], one: dict[str, Tensor]) -> Tensor:
        inputs = {key: value[None] for key, value in one.items() if key != "labels"}
        if id in ("bert", "albert"):  # masks of rows are looked at, which vmap cannot
            mask = 1.0 - inputs["attention_mask"].double()
            inputs["attention_mask"] = mask[:, None, None] * torch.finfo(mask.dtype).min
        logits = torch.func.functional_call(model, given, kwargs=inputs).logits
        return functional.cross_entropy(logits, one["labels"][None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    ours, peer = sums_of(model, names, lambda batch: each(biases, batch))
    assert gap(ours, peer) < SAME


@pytest.mark.parametrize("id", ["bert", "albert"])
def test_opacus(id: str) -> None:
    """Biases of linear layers and of LayerNorm; a layer used several times is added up by it."""
    opacus = pytest.importorskip("opacus")
    model = eager(id)
    names = sites_of(model).names

    def one(batch: Any) -> dict[str, Tensor]:
        other = eager(id).train()  # Opacus looks at models in training mode only
        for module in other.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        for name, parameter in other.named_parameters():
            parameter.requires_grad_(name in names)
        wrapped = opacus.GradSampleModule(other, loss_reduction="sum", strict=False)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        functional.cross_entropy(
            wrapped(**inputs).logits, batch["labels"], reduction="sum"
        ).backward()
        return {name: dict(other.named_parameters())[name].grad_sample for name in names}

    ours, peer = sums_of(model, names, one)
    error = gap(ours, peer)
    print(f"\n{id}: ours and Opacus differ by {error:.1e}")
    assert error < SAME


def test_backpack() -> None:
    """Biases of linear layers, the kind that it knows in any architecture."""
    backpack = pytest.importorskip("backpack")
    from backpack.extensions import BatchGrad

    model = eager()
    linear = {f"{name}.bias" for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    names = [name for name in sites_of(model).names if name in linear]

    def one(batch: Any) -> dict[str, Tensor]:
        extended = eager()
        for name, parameter in extended.named_parameters():
            parameter.requires_grad_(name in names)
        for module in extended.modules():
            if isinstance(module, nn.Linear):
                backpack.extend(module)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        loss = functional.cross_entropy(extended(**inputs).logits, batch["labels"], reduction="sum")
        with backpack.backpack(BatchGrad()):
            loss.backward()
        return {name: dict(extended.named_parameters())[name].grad_batch for name in names}

    ours, peer = sums_of(model, names, one)
    error = gap(ours, peer)
    print(f"\nours and BackPACK differ by {error:.1e}")
    assert error < SAME and len(names) == 12
