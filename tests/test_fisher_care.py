"""What a measurement leaves behind, refuses, and finds out about a model's modules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import beftkit
from beftkit.errors import BeftError, UsageError
from beftkit.gradients import batch_mean_squares, example_squares, negative_log_likelihoods
from beftkit.gradients import sites_of as measured_of
from beftkit.gradients.taps import layouts_of
from tests import fisher_cases as cases
from tests.fisher_cases import classified, classifier, gap

WIDTH = 6


def names_of(model: Any) -> list[str]:
    return measured_of(model).names


# --- modules of our own


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


# --- what is left behind


def state_of(model: Any) -> Any:
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [len(module._forward_hooks) for module in model.modules()],
        [dict(vars(module)).get("forward") for module in model.modules()],
        [parameter.grad for parameter in model.parameters()],
        [parameter.detach().clone().sum().item() for parameter in model.parameters()],
        model.config.use_cache,
    )


def mixed_model(id: str) -> Any:
    """Some modules in training mode, some parameters frozen, a hook of the user's."""
    model = classifier(id)
    model.train()
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 1
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    for module in list(model.modules())[::4]:
        module.register_forward_hook(lambda *_: None)
    model.config.use_cache = True
    return model


@pytest.mark.parametrize("again", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("id", ["bert", "gpt2", "deberta"])
def test_everything_is_put_back(id: str, again: bool) -> None:
    model = mixed_model(id)
    before, batches = state_of(model), classified(model)
    found = example_squares(model, names_of(model), batches, gradient_checkpointing=again)
    assert state_of(model) == before
    same = example_squares(classifier(id), names_of(model), batches)
    assert gap(found.sums, same.sums) < 1e-12, "dropout was off"
    batch_mean_squares(model, names_of(model), names_of(model), batches)
    assert state_of(model) == before


@pytest.mark.parametrize("id", ["bert", "deberta"])
@pytest.mark.parametrize("stage", range(1, 8))
def test_everything_is_put_back_after_an_error(id: str, stage: int) -> None:
    """In a forward pass or in a backward one, of the trial or of a batch."""
    model = mixed_model(id)
    before, batches = state_of(model), classified(model)
    calls: list[int] = []

    def fail(grad: Tensor) -> None:
        raise ValueError("in the backward pass")

    def losses(model: Any, batch: Any) -> Tensor:
        calls.append(1)
        if len(calls) == stage:
            raise ValueError("in the forward pass")
        found = negative_log_likelihoods(model, batch)
        if len(calls) == stage + 1 and found.requires_grad:
            found.register_hook(fail)
        return found

    def backward(model: Any, batch: Any) -> Tensor:
        found = negative_log_likelihoods(model, batch)
        calls.append(1)
        if len(calls) >= stage and found.requires_grad:
            found.register_hook(fail)
        return found

    for one, where in ((losses, "forward"), (backward, "backward")):
        calls.clear()
        with pytest.raises(ValueError, match=f"in the {where} pass"):
            example_squares(model, names_of(model), batches, one, gradient_checkpointing=True)
        assert state_of(model) == before
    good = example_squares(model, names_of(model), batches)
    assert gap(good.sums, example_squares(classifier(id), names_of(model), batches).sums) < 1e-12


# --- what is refused


def test_a_loss_that_depends_on_other_examples() -> None:
    model = classifier()
    model.classifier.register_forward_hook(lambda _, given, output: output - output.mean(0))
    batches = classified(model)
    with pytest.raises(
        BeftError,
        match=r"^BertForSequenceClassification: the loss of an example "
        "depends on the others of its batch .* use batches of one example$",
    ):
        beftkit.fisher(model, batches)  # fmt: skip
    singles = [{k: v[row : row + 1] for k, v in batches[0].items()} for row in range(4)]
    beftkit.fisher(model, singles)


@pytest.mark.parametrize("kind", ["mean", "sum", "tokens"])
def test_losses_that_are_not_one_each(kind: str) -> None:
    model = classifier()

    def losses(model: Any, batch: Any) -> Tensor:
        found = negative_log_likelihoods(model, batch)
        return {"mean": found.mean(), "sum": found.sum(), "tokens": found[:, None]}[kind]

    shape = {"mean": r"\[\]", "sum": r"\[\]", "tokens": r"\[2, 1\]"}[kind]
    with pytest.raises(BeftError, match=f"have shape {shape}, expected one for each of 2 examples"):
        beftkit.fisher(model, classified(model), losses=losses)


def test_batches_that_are_none() -> None:
    model = classifier()
    ids = torch.ones(2, 3, dtype=torch.int64)
    for given, message in (
        ([], "no batches were given; expected at least one example"),
        ([ids], "a batch of type Tensor was given; expected a mapping"),
        ([{}], "a batch without rows"),
        ([{"input_ids": ids[:0]}], "a batch without rows"),
        ([{"input_ids": ids}], "a batch of input_ids was given; expected labels as well"),
        ([{"input_ids": ids, "labels": ids}], r"logits \[2, 3\] with torch.int64 labels \[2, 3\]"),
    ):
        with pytest.raises(BeftError, match=message):
            beftkit.fisher(model, given)
    with pytest.raises(BeftError, match="no batches were given"):
        batch_mean_squares(model, names_of(model), [], [])
    with pytest.raises(UsageError, match="without batches"):
        beftkit.fisher(model)
    with pytest.raises(UsageError, match="are for a model in memory"):
        beftkit.fisher("folder", classified(model))
    with pytest.raises(BeftError, match="reduce 'max': expected one of mean, sum"):
        beftkit.fisher(model, classified(model), reduce="max")
    bare = cases.build(cases.BY_ID["bert-bare"], torch.float64)
    with pytest.raises(BeftError, match="BertModel gives no logits"):
        beftkit.fisher(bare, classified(model))
    with pytest.raises(BeftError, match="AlbertForSequenceClassification has no layers that grad"):
        beftkit.fisher(classifier("albert"), classified(model), gradient_checkpointing=True)


def test_values_that_are_not_finite() -> None:
    """One line that names the bias, from the start or as soon as a batch meets it."""
    model = classifier()
    name = "bert.encoder.layer.1.attention.self.value.bias"
    with torch.no_grad():
        dict(model.named_parameters())[name][3] = float("nan")
    with pytest.raises(BeftError, match=rf"^{name}: holds values that are not finite; .*$"):
        beftkit.fisher(model, classified(model))
    with pytest.raises(BeftError, match=r"^bert\.\S+bias: its gradient is not finite; did the"):
        batch_mean_squares(model, names_of(model), names_of(model), classified(model))
    model = classifier()
    batches = classified(model)
    with torch.no_grad():
        unused = (set(range(3, 50)) - set(batches[0]["input_ids"].flatten().tolist())).pop()
        batches[1]["input_ids"][0, 1] = unused
        model.bert.embeddings.word_embeddings.weight[unused] = float("inf")
    with pytest.raises(BeftError, match=r"^bert\.\S+bias: its gradient is not finite; did the"):
        beftkit.fisher(model, batches)
    infinite = classifier(dtype=torch.float16)
    with pytest.raises(BeftError, match="the loss of an example is not finite; did the model div"):
        beftkit.fisher(
            infinite, batches, losses=lambda m, b: negative_log_likelihoods(m, b) * float("inf")
        )


def test_language_models_by_what_their_configuration_says() -> None:
    """Shifted by one where the model predicts the next token, and not where it has a decoder."""
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[1, 2, -100, 3], [4, -100, -100, 0]])

    class Stub(SimpleNamespace):
        def __call__(self, **inputs: Any) -> Any:
            return SimpleNamespace(logits=logits)

    each = -logits.log_softmax(-1)
    shifted = torch.stack([each[0, 0, 2] + each[0, 2, 3], each[1, 2, 0]])
    plain = torch.stack(
        [each[0, 0, 1] + each[0, 1, 2] + each[0, 3, 3], each[1, 0, 4] + each[1, 3, 0]]
    )
    for kind, stacks, expected in (
        ("FooForCausalLM", False, shifted), ("FooLMHeadModel", False, shifted),
        ("FooForConditionalGeneration", False, shifted), ("FooForMaskedLM", False, plain),
        ("FooForConditionalGeneration", True, plain), ("FooForTokenClassification", False, plain),
    ):  # fmt: skip
        model = type(kind, (Stub,), {})(config=SimpleNamespace(is_encoder_decoder=stacks))
        found = negative_log_likelihoods(model, {"labels": labels})
        torch.testing.assert_close(found, expected)
