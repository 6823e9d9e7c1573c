"""What a measurement leaves behind, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import beftkit
from beftkit.errors import BeftError, UsageError
from beftkit.gradients import batch_mean_squares, example_squares, negative_log_likelihoods
from tests import fisher_cases as cases
from tests.fisher_cases import classified, classifier, gap, names_of

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
