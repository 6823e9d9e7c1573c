"""Causal language models: how they are loaded, and the likelihoods of answers they give."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from beftkit.errors import BeftError
from beftkit.models import Architecture, Loaded, load_model, load_skeleton
from beftkit.objectives.fits import settle_padding
from beftkit.objectives.objective import Objective, Use
from beftkit.objectives.prompts import longest_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.settings.resolve import Opening
    from beftkit.tasks import Prompted

#: model type -> id of the token that stands before each text, whatever the tokenizer puts there:
#: OPT as published
FIRST = {"opt": 0}
_CAUSAL = Architecture(
    auto="AutoModelForCausalLM",
    configure=lambda config: None,
    what="a causal language model's head",
    expected="a decoder",
    outputs="a vocabulary",
)


class CausalObjective(Objective):
    """A language model with its own head, of which nothing is drawn and nothing trains."""

    task_type = "CAUSAL_LM"
    pipeline_tag = "text-generation"

    def load(self, settings: Opening, seed: int) -> Loaded:
        s = settings
        loaded = load_model(
            s.model,
            _CAUSAL,
            revision=s.revision,
            tokenizer=s.tokenizer,
            dtype=s.dtype,
            device_map=s.device_map,
            seed=seed,
            trust_remote_code=s.trust_remote_code,
        )
        if loaded.fresh:
            raise BeftError(
                f"{s.model}: holds no {loaded.fresh[0]}, so as a language model it would answer by"
                " lot; give a checkpoint that was trained as one"
            )
        settle_padding(loaded)
        _settle_start(loaded)
        return loaded

    def skeleton(self, settings: Opening) -> Any:
        return load_skeleton(
            settings.model,
            _CAUSAL,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
        )

    def pipeline(self, model: Any, tokenizer: Any, max_length: int) -> Any:
        raise BeftError(
            "transformers has no pipeline that asks a task's prompt; call the predictor itself"
        )

    def alone(self, length: int) -> list[str]:
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        ]

    def check_shots(self, count: int) -> None:
        """They may."""

    def lengths(self, asked: Sequence[Prompted], tokenizer: Any) -> list[int]:
        return longest_rows(asked, tokenizer)

    def snippet(self, use: Use) -> list[str]:
        name = "AutoModelForCausalLM"
        peft = [
            "# PEFT reads the adapter as well, for what you ask yourself:",
            f"#   base = {name}.from_pretrained(BASE)",
            f"#   model = PeftModel.from_pretrained(base, {use.adapter})",
        ]
        return [
            "import beftkit",
            "",
            *(peft if use.by_peft else []),
            f"predictor = beftkit.load({use.base}, adapter={use.adapter})",
            "",
            "",
            "def predict(*texts):",
            '    """The answer to the prompt of one example, from its texts."""',
            f"    return predictor(texts).{self.answer_fields[0]}",
        ]


def _settle_start(loaded: Loaded) -> None:
    """Have every text begin with the token of `FIRST`.

    Setting ``bos_token`` alone changes nothing of what a fast tokenizer puts before a text.
    """
    first = FIRST.get(loaded.model.config.model_type)
    if first is None:
        return
    tokenizer = loaded.tokenizer
    token = tokenizer.convert_ids_to_tokens(first)
    tokenizer.bos_token = token
    if tokenizer.is_fast:
        from tokenizers.processors import TemplateProcessing

        backend = tokenizer.backend_tokenizer
        backend.post_processor = TemplateProcessing(
            single=f"{token} $A", special_tokens=[(token, first)]
        )


def answer_log_likelihoods(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """log p of each token of the rows' answers, float32 [R, A]; 0 where a shorter one has none.

    Only the places before those tokens go through the vocabulary. Float64 of a float64 model.

    Args:
        model: a causal language model.
        inputs: of a `beftkit.tasks.Batch`, with ``answer_at``; padded on either side. On the left
            attention has to be of a kind that gives rows of padding a value (sdpa does, eager
            gives NaN).
    """
    logits, tokens = answer_logits(model, inputs)
    found = -functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return found.view_as(tokens).masked_fill(inputs["answer_at"] < 0, 0.0)


def following_log_likelihoods(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """log p of each of the tokens ``among`` behind its row, float32 [R, C]; float64 likewise."""
    mask = inputs["attention_mask"]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1, keepdim=True)
    logits = exact(logits_at(model, inputs, last))[:, 0]
    return logits.log_softmax(-1).gather(1, inputs["among"])


def answer_logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The logits [R, A, V] for the tokens at ``answer_at``, and these tokens, int64 [R, A].

    Where a row has fewer tokens there stands something that means nothing. As
    `answer_log_likelihoods`.
    """
    at = inputs["answer_at"]
    logits = exact(logits_at(model, inputs, (at - 1).clamp(min=0)))
    return logits, inputs["input_ids"].gather(1, at.clamp(min=0))


def exact(logits: Tensor) -> Tensor:
    """Logits in the precision of log-likelihoods."""
    return logits if logits.dtype == torch.float64 else logits.float()


def logits_at(
    model: nn.Module, inputs: Mapping[str, Tensor], places: Tensor, memory: Any = None
) -> Tensor:
    """The logits [R, A, V] at some places [R, A] of each row.

    Args:
        model: a causal language model.
        inputs: ``input_ids`` [R, T] and ``attention_mask`` [R, places in ``memory`` + T].
        places: among the T.
        memory: a cache of the keys and values of the places before, which those of these are added
            to; None: nothing stands before, and none are wanted.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    taken = inspect.signature(type(model).forward).parameters
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in taken:  # else a model that counts would count padding
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    if "use_cache" in taken:
        given["use_cache"] = memory is not None
    if memory is not None:
        given["past_key_values"] = memory
    with _head_at(model, places, ids.shape) as cut:
        logits: Tensor = model(**given).logits
    return logits if cut else _at(logits, places)


@contextmanager
def _head_at(model: Any, places: Tensor, shape: torch.Size) -> Iterator[list[bool]]:
    """Have the head see hidden states at some places alone; what is yielded fills once it did.

    Through the head itself and not `logits_to_keep`, which keeps the same places of every row.
    Whatever a model does to its logits afterwards stays as it is.
    """
    cut: list[bool] = []

    def before(module: nn.Module, given: tuple[Any, ...]) -> Any:
        if not given or given[0].shape[:-1] != shape:
            return None
        cut.append(True)
        return (_at(given[0], places), *given[1:])

    head = model.get_output_embeddings()
    handle = None if head is None else head.register_forward_pre_hook(before)
    try:
        yield cut
    finally:
        if handle is not None:
            handle.remove()


def _at(states: Tensor, places: Tensor) -> Tensor:
    """[R, A, D] of [R, T, D]."""
    where = places.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
    return states.gather(1, where)
