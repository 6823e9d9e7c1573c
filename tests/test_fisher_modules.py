"""Modules of our own: what a measurement finds out about them, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from beftkit.errors import BeftError
from beftkit.gradients import example_squares
from beftkit.gradients.taps import layouts_of
from tests.fisher_cases import gap

WIDTH = 6


class Layouts(nn.Module):
    """Outputs ``[R, T, D]``, ``[T, R, D]``, ``[T*R, D]`` and ``[R*T, D]``, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        for name in ("plain", "turned", "by_token", "by_row", "pooled", "head"):
            self.add_module(name, nn.Linear(WIDTH, WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        """Scores ``[R, D]``."""
        rows, tokens = ids.shape
        x = self.embedding(ids).double()
        x = self.plain(x).tanh().transpose(0, 1)
        x = self.turned(x).tanh().flatten(0, 1)
        x = self.by_token(x).tanh().view(tokens, rows, -1).transpose(0, 1).flatten(0, 1)
        x = self.by_row(x).tanh().view(rows, tokens, -1)
        places = torch.arange(1.0, tokens + 1, dtype=x.dtype).unsqueeze(-1)
        out: Tensor = self.head(self.pooled((x * places).sum(1)).tanh())
        return out


class Odd(nn.Module):
    """Biases that one pass cannot give: without rows, of two modules, free, unused, in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        for name in ("table", "first", "second", "idle", "twice", "once", "head"):
            self.add_module(name, nn.Linear(WIDTH, WIDTH))
        self.pair = Pair(WIDTH, WIDTH)
        self.second.bias = self.first.bias
        self.free = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        """Scores ``[R, D]``."""
        x = self.embedding(ids).double() + self.table(
            self.embedding.weight.double()[: ids.shape[1]]
        )
        x = self.second(self.first(x).tanh()).tanh() + self.free.square()
        x = self.twice(self.twice(x).tanh()).tanh()
        with torch.no_grad():
            aside = self.once(x)
        x = self.once(x) * aside.tanh()
        out: Tensor = self.head(self.pair(x)[0].sum(1))
        return out


class Pair(nn.Linear):
    """Gives two things."""

    def forward(self, x: Tensor) -> Any:
        """The output, and nothing."""
        return super().forward(x).tanh(), None


def drawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def likelihoods(model: Any, batch: Any) -> Tensor:
    return -model(batch["ids"]).log_softmax(-1).gather(1, batch["labels"].unsqueeze(1)).squeeze(1)


def token_batches(*shapes: tuple[int, int]) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"ids": torch.randint(0, 20, shape, generator=generator),
         "labels": torch.randint(0, WIDTH, shape[:1], generator=generator)}
        for shape in shapes
    ]  # fmt: skip


def plain_loop(model: nn.Module, names: list[str], batches: Any) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    sums = {name: torch.zeros(WIDTH, dtype=torch.float64) for name in names}
    for batch in batches:
        for row in range(len(batch["ids"])):
            one = {key: value[row : row + 1] for key, value in batch.items()}
            wanted = [parameters[name].requires_grad_(True) for name in names]
            loss = likelihoods(model, one).sum()
            grads = torch.autograd.grad(loss, wanted, allow_unused=True)
            for name, grad in zip(names, grads, strict=True):
                sums[name] += 0 if grad is None else grad.square()
    return sums


@pytest.mark.parametrize("budget", [0, 64 << 20])
def test_outputs_may_count_rows_in_other_places(budget: int) -> None:
    model = drawn(Layouts())
    names = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    batches = token_batches((4, 3), (3, 3), (2, 5), (1, 4), (5, 2), (3, 1))
    found = example_squares(model, names, batches, likelihoods, budget=budget)
    assert found.alone == () and found.examples == 18
    assert gap(found.sums, plain_loop(model, names, batches)) < 1e-12


def test_what_one_pass_cannot_tell_apart_is_measured_alone() -> None:
    model = drawn(Odd())
    names = ["table.bias", "first.bias", "idle.bias", "twice.bias", "once.bias", "head.bias",
             "pair.bias", "free"]  # fmt: skip
    batches = token_batches((4, 3), (2, 5))
    for budget in (0, 64 << 20):
        found = example_squares(model, names, batches, likelihoods, budget=budget)
        expected = plain_loop(model, names, batches)
        assert not found.sums["idle.bias"].any() and not expected["idle.bias"].any()
        assert gap(found.sums, expected) < 1e-12
        assert set(found.alone) >= {"table.bias", "first.bias", "pair.bias", "free"}
        assert not {"twice.bias", "once.bias", "head.bias"} & set(found.alone)


def test_all_may_be_measured_alone() -> None:
    model, batches = drawn(Odd()), token_batches((4, 3), (2, 5))
    names = ["table.bias", "free"]
    found = example_squares(model, names, batches, likelihoods)
    assert set(found.alone) == set(names) and found.examples == 6
    assert gap(found.sums, plain_loop(model, names, batches)) < 1e-12


def test_an_output_that_counts_rows_elsewhere_later_is_refused() -> None:
    class Fickle(Layouts):
        def forward(self, ids: Tensor) -> Tensor:
            if ids.shape[1] == 5:
                return self.head(self.embedding(ids).double().flatten(0, 1)).view(*ids.shape, -1)[
                    :, :, :
                ].sum(1)  # fmt: skip
            out: Tensor = self.head(self.embedding(ids).double().transpose(0, 1)).sum(0)
            return out

    model = drawn(Fickle())
    with pytest.raises(BeftError, match=r"head.bias: its output \[10, 6\] does not count the 2"):
        example_squares(model, ["head.bias"], token_batches((4, 3), (2, 5)), likelihoods)
    assert not model.head._forward_hooks


@pytest.mark.parametrize(
    "shapes, expected",
    [
        ([(2, [(2, 5, 6)]), (3, [(3, 5, 6)])], ["[R, ..., D]"]),
        ([(2, [(2, 6)]), (3, [(3, 6)])], ["[R, ..., D]"]),
        ([(2, [(5, 2, 6)]), (3, [(5, 3, 6)])], ["[T, R, D]"]),
        ([(2, [(10, 6)]), (3, [(15, 6)])], ["[R*T, D]", "[T*R, D]"]),
        ([(2, [(2, 2, 6)]), (3, [(3, 3, 6)])], ["[R, ..., D]", "[T, R, D]"]),
        ([(2, [(7, 6)]), (3, [(7, 6)])], []),  # no rows
        ([(2, [(10, 6)]), (3, [(12, 6)])], []),  # routed
        ([(2, [(2, 5, 6), (7, 6)]), (3, [(3, 5, 6), (7, 6)])], []),  # two uses, one without rows
        ([(2, []), (3, [])], []),  # never used
        ([(2, [()]), (3, [()])], []),  # no tensor
    ],
)
def test_layouts(shapes: Any, expected: list[str]) -> None:
    assert layouts_of(shapes) == expected


def test_a_layer_used_twice_and_run_again() -> None:
    """Gradient checkpointing of a shared layer."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    class Layer(GradientCheckpointingLayer):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.dense(x.sin()).tanh()
            return out

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.layer = nn.Embedding(20, WIDTH), Layer()

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embedding(ids)
            for _ in range(3):
                x = x + self.layer(x)
            out: Tensor = x.sum(1)
            return out

    model, batches = drawn(Shared()), token_batches((4, 3), (2, 5))
    expected = plain_loop(model, ["layer.dense.bias"], batches)
    for budget in (0, 64 << 20):
        for again in (False, True):
            found = example_squares(model, list(expected), batches, likelihoods, budget=budget,
                                    gradient_checkpointing=again)  # fmt: skip
            assert gap(found.sums, expected) < 1e-12 and found.alone == ()
