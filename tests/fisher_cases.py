"""Tiny models with batches and labels, and the judge: autograd on one example at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from beftkit.gradients import example_squares, sites_of
from tests import tiny_models
from tests.tiny_models import BY_ID, Case

#: rows of each batch with their lengths: padding, uneven batches, one of a single row
LENGTHS = ((7, 3, 5, 6), (4, 4, 2), (5,))
#: what one backward pass cannot tell apart: no module's bias, or a module without example dimension
ALONE = {"deberta": ("q_bias", "v_bias"), "deberta-v2-share": ("query_proj.bias", "key_proj.bias")}


def classifying(id: str) -> Case:
    """A case of the table with a classification head."""
    case = BY_ID[id]
    family = case.config.removesuffix("Config")
    return replace(case, model=f"{family}ForSequenceClassification")


def classified(
    model: Any, lengths: Sequence[Sequence[int]] = LENGTHS, left: bool = False, seed: int = 5
) -> list[dict[str, Tensor]]:
    """Padded batches with a label for each row."""
    generator = torch.Generator().manual_seed(seed)
    config, batches = model.config, []
    for sizes in lengths:
        width = max(sizes)
        ids = torch.randint(3, config.vocab_size, (len(sizes), width), generator=generator)
        places = torch.arange(width)
        mask = torch.stack([places < size for size in sizes])
        if left:
            mask = mask.flip(1)
        pad = config.pad_token_id if config.pad_token_id is not None else 0
        ids = torch.where(mask, ids, pad)
        if config.model_type == "bart":  # pools at the end token, and wants as many in every row
            ids[torch.arange(len(sizes)), torch.tensor(sizes) - 1] = config.eos_token_id
        labels = torch.randint(0, config.num_labels, (len(sizes),), generator=generator)
        batches.append({"input_ids": ids, "attention_mask": mask.long(), "labels": labels})
    return batches


def generated(model: Any, lengths: Sequence[Sequence[int]] = LENGTHS) -> list[dict[str, Tensor]]:
    """Padded batches whose labels are some of their tokens."""
    batches = classified(model, lengths)
    for batch in batches:
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[:, 0] = -100
        batch["labels"] = labels
    return batches


def singles(batch: Mapping[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """Its rows alone, without padding."""
    for row in range(len(batch["input_ids"])):
        kept = batch["attention_mask"][row].bool()
        yield {
            key: value[row : row + 1, kept] if value.dim() == 2 else value[row : row + 1]
            for key, value in batch.items()
        }


def build(case: Case, dtype: torch.dtype, **options: Any) -> Any:
    """The case's model with 3 labels and a padding token; dropout is on in training mode."""
    if "SequenceClassification" in case.model:
        options = {"num_labels": 3, **options}
    model = tiny_models.build(case, dtype, **options)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = 0
    return model


def classifier(id: str = "bert", dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A case's model with a classification head."""
    return build(classifying(id), dtype, **options)


def names_of(model: Any) -> list[str]:
    """The biases that are measured."""
    return sites_of(model).names


def loop(
    model: Any, names: Sequence[str], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The judge: sum over examples of the squared gradient of log p, float64.

    The logits are the model's own, the loss is not: some models compute it in float32.
    """
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(parameters[name], dtype=torch.float64) for name in names}
    wanted = [parameters[name].requires_grad_(True) for name in names]
    for batch in batches:
        for one in singles(batch):
            labels = one.pop("labels")
            if type(model).__name__.endswith("ForConditionalGeneration"):
                one["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
            logits = model(**one).logits
            if type(model).__name__.endswith(("CausalLM", "LMHeadModel")):
                logits, labels = logits[:, :-1], labels[:, 1:]
            scores = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1))
            score = scores.squeeze(-1)[labels != -100].sum()
            grads = torch.autograd.grad(score, wanted, allow_unused=True)
            for name, grad in zip(names, grads, strict=True):
                if grad is not None:
                    sums[name] += grad.double().square()
    for parameter in wanted:
        parameter.requires_grad_(False)
    return sums


def gap(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest relative error of the sums, apart from what is rounding noise throughout."""
    largest = max(float(one.sum()) for one in expected.values())
    errors = [
        float((found[name] - one).norm() / one.norm())
        for name, one in expected.items()
        if float(one.sum()) > 1e-12 * largest
    ]
    return max(errors)


def judged(
    model: Any, batches: Sequence[Mapping[str, Tensor]], judge: Any = None, **settings: Any
) -> float:
    """How far the sums are from the judge's; padding is left out of the judge's batches."""
    names = names_of(model)
    found = example_squares(model, names, batches, **settings)
    assert found.examples == sum(len(batch["input_ids"]) for batch in batches)
    assert all(one.dtype == torch.float64 for one in found.sums.values())
    assert all(parameter.grad is None for parameter in model.parameters())
    return gap(found.sums, loop(judge or model, names, batches))
