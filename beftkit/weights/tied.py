"""Embeddings that a model's head shares: PEFT changes one of the two, and unties them by that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from beftkit.adapters import AdapterInfo, Step, layers_of
from beftkit.adapters.heads import architecture
from beftkit.checkpoints import TensorInfo
from beftkit.errors import BeftError

#: classes with a language model's head; XLM's classifiers have "LM" in their names too
_WITH_HEAD = re.compile(r"LMHead|LM$|ForConditionalGeneration|ForPreTraining")
_HEADS = ("lm_head", "embed_out")


def check_tied(
    step: Step,
    name: str | None,
    tensors: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    info: AdapterInfo,
) -> None:
    """Refuse a step on an embedding that is the head's too, or on a head that is the embedding's.

    Args:
        step: of the adapter.
        name: what it changes, in the base's files; None: they have nothing of that name.
        tensors: in those files.
        config: the result's, a language model's or not.
        info: of the adapter, for messages.

    Raises:
        BeftError: so it is; the files hold one tensor, and with the change there are two.
    """
    if step.kind == "add" or not _WITH_HEAD.search(architecture(config)):
        return
    if name is None:
        if step.parameter.split(".")[-2:-1] in ([head] for head in _HEADS):
            raise shared(step, info)
        return
    shape, text = tensors[name].shape, config.get("text_config")
    sizes = {one.get("vocab_size") for one in (config, text) if isinstance(one, dict)}
    alone = sum(one.shape == shape for one in tensors.values()) == 1
    if len(shape) == 2 and shape[0] in sizes and alone and not layers_of([name]):
        raise shared(step, info)


def shared(step: Step, info: AdapterInfo) -> BeftError:
    """What to say of it."""
    return BeftError(
        f"{info.reference}: {step.tensor} changes {step.parameter}, one of two that are tied in "
        "the base (embeddings and head) and that PEFT keeps apart; load or merge this adapter with "
        "PEFT"
    )
