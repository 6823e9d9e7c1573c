"""Ways of computing Fisher sums: checkpointing, buffers, half precision, batch means."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import beftkit_kernels
from beftkit.gradients import batch_mean_squares, example_squares, negative_log_likelihoods
from tests.fisher_cases import ALONE, classified, classifier, gap, judged, loop, names_of


@pytest.mark.parametrize("id", ["bert", "gpt2"])
def test_gradient_checkpointing(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers run twice, which counts as one use."""
    model = classifier(id)
    batches = classified(model)
    projection = {"bert": "bert.encoder.layer.0.attention.self.query",
                  "gpt2": "transformer.h.0.attn.c_attn"}[id]  # fmt: skip
    runs: list[int] = []
    asked: list[bool] = []
    model.get_submodule(projection).register_forward_hook(lambda *_: runs.append(1))

    class Asked(beftkit_kernels.SquareSums):
        def __init__(self, *given: Any, **named: Any) -> None:
            asked.append(named["per_example"])
            super().__init__(*given, **named)

    monkeypatch.setattr(beftkit_kernels, "SquareSums", Asked)
    counts = []
    for again in (False, True):
        runs.clear()
        assert judged(model, batches, gradient_checkpointing=again) < 1e-10
        counts.append(len(runs))
    # Each pass of a batch, of the pair, and of its two examples alone runs them again.
    assert counts[1] - counts[0] == len(batches) + 1 + 2
    assert asked and not any(asked), "one use needs no gradients of each example"
    assert not any("forward" in vars(module) for module in model.modules())


def test_gradient_checkpointing_leaves_the_forward_of_a_device_map() -> None:
    model = classifier()
    layer = model.bert.encoder.layer[0]
    mine = layer.forward = partial(type(layer).forward, layer)
    assert judged(model, classified(model), gradient_checkpointing=True) < 1e-10
    assert vars(layer)["forward"] is mine


@pytest.mark.parametrize("id", ["bert", "albert"])
@pytest.mark.parametrize("budget", [0, 3000, 1 << 30])
def test_the_buffer_changes_launches_and_nothing_else(
    id: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(id)
    batches = classified(model)
    expected = example_squares(model, names_of(model), batches).sums
    launches = []

    class Launched(beftkit_kernels.SquareSums):
        def run(self, grads: Any) -> Any:
            launches.append(sum(grad.numel() * grad.element_size() for grad in grads))
            return super().run(grads)

    monkeypatch.setattr(beftkit_kernels, "SquareSums", Launched)
    found = example_squares(model, names_of(model), batches, budget=budget).sums
    assert gap(found, expected) < 1e-14
    passes = len(batches) + 1  # and the pair
    taken = (len(names_of(model)) * (3 if id == "albert" else 1)) * passes
    if budget == 3000:
        assert passes < len(launches) < taken
        assert sum(size > 3000 + 4 * 7 * 40 * 8 for size in launches) == 0
    else:
        assert len([size for size in launches if size]) == (passes if budget else taken)


def test_bfloat16_models_and_autocast() -> None:
    """Gradients are bfloat16, sums are not."""
    model = classifier(dtype=torch.bfloat16)
    batches = classified(model)
    assert judged(model, batches, classifier(dtype=torch.bfloat16).double()) < 0.1
    single = classifier(dtype=torch.float32)
    cast = {"autocast": lambda: torch.autocast("cpu", torch.bfloat16), "half": torch.bfloat16}
    assert 1e-4 < judged(single, batches, **cast) < 0.1


@pytest.mark.parametrize("id", ["bert", "deberta"])
def test_float16_is_scaled_and_the_scale_undone(id: str) -> None:
    """A batch that overflows is taken again at half the scale, and no other is lost."""
    model = classifier(id, torch.float16)
    batches: list[Any] = [*classified(model), *classified(model, seed=6)]
    for number, batch in enumerate(batches):
        factor = 300.0 if number in (1, 4) else 1.0
        batch["factor"] = torch.full((len(batch["labels"]),), factor)

    def losses(model: Any, batch: Any) -> Tensor:
        plain = {key: value for key, value in batch.items() if key != "factor"}
        return negative_log_likelihoods(model, plain) * batch["factor"]

    judge = classifier(id, torch.float16).double()
    names = names_of(model)
    expected = {name: torch.zeros(1).double() for name in names}
    for batch in batches:
        plain = {key: value for key, value in batch.items() if key != "factor"}
        for name, one in loop(judge, names, [plain]).items():
            expected[name] = expected[name] + one * float(batch["factor"][0]) ** 2
    found = example_squares(model, names, batches, losses)
    assert gap(found.sums, expected) < 0.05
    assert len(found.alone) == 2 * len(ALONE.get(id, ())), "one pass was good enough"
    tame = example_squares(model, names, batches[:1], losses).sums
    assert gap(tame, loop(judge, names, [dict(classified(model)[0])])) < 0.05


def test_sum_of_losses_is_n_squared_times_their_mean() -> None:
    model = classifier()
    [batch] = classified(model, [(7, 3, 5, 6)])
    names = names_of(model)
    found, count, examples = batch_mean_squares(model, names, names, [batch], clip=float("inf"))
    parameters = dict(model.named_parameters())
    wanted = [parameters[name].requires_grad_(True) for name in names]
    grads = torch.autograd.grad(negative_log_likelihoods(model, batch).sum(), wanted)
    expected = {name: grad.square() for name, grad in zip(names, grads, strict=True)}
    assert (count, examples) == (1, 4)
    assert gap({name: 16 * one for name, one in found.items()}, expected) < 1e-10


@pytest.mark.parametrize("clip", [0.05, 1.0])
def test_batch_means_are_clipped_as_torch_clips(clip: float) -> None:
    """Head and pooler are part of the norm."""
    model = classifier()
    batches = classified(model)
    names = names_of(model)
    trained = [n for n, p in model.named_parameters() if n.endswith("bias") or "classifier" in n]
    found, count, examples = batch_mean_squares(model, names, trained, batches, clip=clip)
    assert (count, examples) == (3, 8)
    parameters = dict(model.named_parameters())
    expected = {name: torch.zeros_like(parameters[name]) for name in names}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    clipped = []
    for batch in batches:
        model.zero_grad()
        model(**batch).loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([parameters[name] for name in trained], clip)
        clipped.append(float(norm) > clip)
        for name in names:
            grad = parameters[name].grad
            expected[name] += 0 if grad is None else grad.square()
    model.zero_grad()
    assert any(clipped)
    assert gap(found, expected) < 1e-10
    without, *_ = batch_mean_squares(model, names, names, batches, clip=clip)
    assert gap(without, expected) > 1e-3
