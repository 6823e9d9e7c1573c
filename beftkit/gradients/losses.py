"""-log p(y | x) of each example, from a model's logits and the true labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from beftkit.errors import BeftError
from beftkit.gradients.rows import AnyBatch
from beftkit.tasks import Batch

_DECODER_INPUTS = ("decoder_input_ids", "decoder_inputs_embeds")
#: called with a model and a batch; gives -log p of each example, ``[N]``, differentiable
Losses = Callable[[Any, Any], Tensor]


def negative_log_likelihoods(model: Any, batch: AnyBatch) -> Tensor:
    """-log p of each example's label, ``[N]``, whatever loss the model's own forward would average.

    Logits ``[N, C]`` with class ids: cross entropy. ``[N, 1]``: (y - y_hat)^2 / 2. Float labels
    ``[N, C]``: a sum of C independent binary ones, or of such squares where the configuration's
    ``problem_type`` says ``regression``. Logits ``[N, T, C]`` with labels ``[N, T]``: a
    sum over the tokens whose label is not -100, shifted by one for causal language models.

    Raises:
        BeftError: no labels, no logits, or shapes that fit none of these.
    """
    if isinstance(batch, Batch):
        inputs, labels = dict(batch.inputs), batch.targets
    else:
        inputs = {key: value for key, value in batch.items() if key not in ("labels", "label")}
        found = batch.get("labels", batch.get("label"))
        if found is None:
            raise BeftError(
                f"a batch of {', '.join(map(str, batch))} was given; expected labels as well (or "
                "losses=, a function of model and batch)"
            )
        labels = found
    kind = type(model).__name__
    config = getattr(model, "config", None)
    two_stacks = bool(getattr(config, "is_encoder_decoder", False))
    if labels.dim() == 2 and two_stacks and not {*inputs} & {*_DECODER_INPUTS}:
        inputs |= _decoder_inputs(model, labels)
    logits = getattr(model(**inputs), "logits", None)
    if logits is None:
        raise BeftError(
            f"{kind} gives no logits; expected a model with a head, or losses=, a function of "
            "model and batch"
        )
    causal = kind.endswith(("ForCausalLM", "LMHeadModel")) or (
        kind.endswith("ForConditionalGeneration") and not two_stacks
    )
    problem = getattr(config, "problem_type", None)
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return _by_shape(exact, labels, kind, causal, problem)


def _decoder_inputs(model: Any, labels: Tensor) -> dict[str, Tensor]:
    """What the decoder reads, ``[N, T]``: a start token, then the labels but the last."""
    own = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    config = model.config
    try:
        if own is not None:
            return {"decoder_input_ids": own(labels=labels)}
        if not hasattr(config, "decoder_start_token_id"):
            return {}
        first = labels.new_full((len(labels), 1), config.decoder_start_token_id)
        shifted = torch.cat([first, labels[:, :-1]], dim=1)
        return {"decoder_input_ids": shifted.masked_fill(shifted == -100, config.pad_token_id)}
    except (ValueError, TypeError):
        raise BeftError(
            f"{type(model).__name__}: its decoder's inputs cannot be made from the labels without"
            " decoder_start_token_id and pad_token_id in its configuration; put decoder_input_ids"
            " into the batches"
        ) from None


def _by_shape(
    logits: Tensor, labels: Tensor, kind: str, causal: bool, problem: str | None
) -> Tensor:
    whole = not labels.is_floating_point()
    if logits.dim() == 3 and logits.shape[:2] == labels.shape and whole:
        if causal:
            logits, labels = logits[:, :-1], labels[:, 1:]
        classes_first = logits.transpose(1, 2)  # labels of -100 are left out, as is the default
        return functional.cross_entropy(classes_first, labels, reduction="none").sum(1)
    if logits.dim() == 2 and labels.shape == logits.shape[:1] and logits.shape[1] == 1:
        return 0.5 * (logits.squeeze(1) - labels.to(logits.dtype)).square()
    if logits.dim() == 2 and labels.shape == logits.shape[:1] and whole:
        return functional.cross_entropy(logits, labels, reduction="none")
    if logits.dim() == 2 and labels.shape == logits.shape and not whole:
        if problem == "regression" or (problem is None and logits.shape[1] == 1):
            return 0.5 * (logits - labels.to(logits.dtype)).square().sum(1)
        binary = functional.binary_cross_entropy_with_logits
        return binary(logits, labels.to(logits.dtype), reduction="none").sum(1)
    raise BeftError(
        f"{kind}: logits {list(logits.shape)} with {labels.dtype} labels {list(labels.shape)}; "
        "give losses=, a function of model and batch"
    )
