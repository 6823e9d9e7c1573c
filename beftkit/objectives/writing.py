"""Answers that a causal model writes: prompts alone as tokens, and the likeliest token after token.

One prompt's tokens and keys and values are read once; each further token goes through the model by
itself. Rows of a batch are filled up on the left, where a model can tell padding from a text; else
only rows of one length share a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from beftkit.errors import BeftError, option
from beftkit.objectives.causal import exact, logits_at
from beftkit.objectives.prefixes import hands_on
from beftkit.objectives.prompts import prompt_tokens
from beftkit.tasks import Encoded

if TYPE_CHECKING:
    from torch import Tensor, nn

#: most tokens that are written
MOST = 50
#: what ends an answer, as it ends those that are trained
STOP = "\n"
#: kinds of attention that give rows of padding a value; eager gives NaN
_PADDED = ("sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def encode_alone(
    prompts: Sequence[str], targets: Tensor, tokenizer: Any, max_length: int
) -> Encoded:
    """N prompts without answers, one row each, filled up on the left.

    One that leaves no room for `MOST` tokens loses its beginning, but not what the tokenizer puts
    before a text.

    Raises:
        BeftError: ``max_length`` is no more than these, or nothing stands in a prompt.
    """
    room = max_length - MOST
    ids: list[int] = []
    lengths: list[int] = []
    truncated = 0
    for number, (own, start) in enumerate(prompt_tokens(prompts, tokenizer), 1):
        if room <= start:
            place = option("max_length", max_length)
            raise BeftError(
                f"{place}: leaves no room for a prompt and {MOST} tokens of an answer; raise it"
            )
        if not own:
            raise BeftError(f"example {number} of {len(prompts)}: an empty prompt; leave it out")
        over = max(0, len(own) - room)
        truncated += over > 0
        ids += own[:start] + own[start + over :]
        lengths.append(len(own) - over)
    return Encoded(
        ids=torch.tensor(ids, dtype=torch.int32),
        type_ids=None,
        starts=torch.tensor([0, *lengths]).cumsum(0),
        first_row=torch.arange(len(prompts) + 1),
        targets=targets,
        truncated=truncated,
        pad_id=int(tokenizer.pad_token_id),
        padding_side="left",
    )


def written(
    model: nn.Module, inputs: Mapping[str, Tensor], tokenizer: Any, *, most: int = MOST
) -> list[str]:
    """What a model writes behind each of B prompts: always the likeliest token.

    Up to an end token, the first `STOP` in the text, or ``most`` tokens; without blanks around it.

    Args:
        model: a causal language model in evaluation mode; what its generation settings say of
            sampling, penalties or forced tokens is not heeded.
        inputs: with ``prompt_input_ids`` and ``prompt_attention_mask``, int64 [B, P], filled up on
            the left.
        tokenizer: the model's.
    """
    ids, mask = (inputs[f"prompt_{name}"] for name in ("input_ids", "attention_mask"))
    found = [""] * len(ids)
    for rows in _together(model, mask):
        part = _part(model, tokenizer, ids[rows], mask[rows])
        for row, text in zip(rows.tolist(), part.run(most), strict=True):
            found[row] = text
    return found


def read_once(
    model: nn.Module, inputs: Mapping[str, Tensor], tokenizer: Any
) -> tuple[Tensor, list[str]] | None:
    """Losses [B] and texts as `answer_log_likelihoods` and `written` give them, prompts read once.

    To rounding the same. None: the rows of ``inputs`` are not their prompts with answers behind
    them (a token over the border, a row that is cut elsewhere), or the model cannot do so.

    Args:
        model, inputs, tokenizer: as of `written`, under inference mode.
    """
    ids, mask = (inputs[f"prompt_{name}"] for name in ("input_ids", "attention_mask"))
    at = inputs["answer_at"]
    if not torch.is_inference_mode_enabled() or at.shape[1] == 0 or not hands_on(model):
        return None
    sizes, whole = mask.sum(1), inputs["attention_mask"]
    # Where a row's prompt begins, and with it the prompt alone, which stands at the right.
    first = at[:, 0] - sizes
    places = torch.arange(ids.shape[1], device=ids.device) - ids.shape[1] + at[:, :1]
    own = inputs["input_ids"].gather(1, places.clamp(min=0))
    same = ((own == ids) | (mask == 0)).all() & (first == whole.argmax(1)).all()
    if len(_together(model, mask)) > 1 or not bool(same):
        return None
    part = _part(model, tokenizer, ids, mask)
    there = at >= 0
    answers = inputs["input_ids"].gather(1, at.clamp(min=0)).where(there, tokenizer.pad_token_id)
    return part.losses(answers, there), part.run(MOST)


def _part(model: nn.Module, tokenizer: Any, ids: Tensor, mask: Tensor) -> _Rows:
    width = int(mask.sum(1).max())
    return _Rows(model, tokenizer, ids[:, -width:], mask[:, -width:])


def _together(model: Any, mask: Tensor) -> list[Tensor]:
    """Numbers of rows that may share a batch: all, or those of one length."""
    attention = getattr(model.config, "_attn_implementation", None)
    known = "position_ids" in inspect.signature(type(model).forward).parameters
    lengths = mask.sum(1)
    if known and attention in _PADDED:
        return [torch.arange(len(mask), device=mask.device)]
    return [(lengths == one).nonzero().flatten() for one in lengths.unique().tolist()]


@dataclass
class _Rows:
    """Rows that are written at once; finished ones are dropped."""

    model: Any
    tokenizer: Any
    ids: Tensor
    mask: Tensor
    begun: tuple[Tensor, Any] | None = None

    def losses(self, answers: Tensor, there: Tensor) -> Tensor:
        """-log p of answers, int64 [B, A] where ``there``, behind the prompts; these are read."""
        self.begun = logits, cache = self._next(self.ids, None)
        logs = exact(logits)[:, None]
        if answers.shape[1] > 1:
            # Its layers get new tensors, and leave those of the prompts as they are.
            memory = copy(cache)
            memory.layers = [copy(layer) for layer in cache.layers]
            mask = torch.cat([self.mask, there[:, :-1].long()], 1)
            inputs = {"input_ids": answers[:, :-1], "attention_mask": mask}
            places = torch.arange(answers.shape[1] - 1, device=answers.device)
            behind = logits_at(self.model, inputs, places.expand(len(answers), -1), memory)
            logs = torch.cat([logs, exact(behind)], 1)
        lost = functional.cross_entropy(logs.flatten(0, 1), answers.flatten(), reduction="none")
        return lost.view_as(answers).masked_fill(~there, 0.0).sum(1)

    def run(self, most: int) -> list[str]:
        made: list[list[int]] = [[] for _ in self.ids]
        live = [*range(len(self.ids))]
        ends, cache, given = self._ends(), None, self.ids
        for _ in range(most):
            logits, cache = self.begun or self._next(given, cache)
            self.begun = None
            tokens = logits.argmax(-1)
            for row, token in zip(live, tokens.tolist(), strict=True):
                made[row].append(token)
            going = [n for n, row in enumerate(live) if not self._ended(made[row], ends)]
            if not going:
                break
            if len(going) < len(live) and (cache is None or hasattr(cache, "batch_select_indices")):
                kept = torch.tensor(going, device=tokens.device)
                live = [live[n] for n in going]
                tokens, self.mask, self.ids = tokens[kept], self.mask[kept], self.ids[kept]
                if cache is not None:
                    cache.batch_select_indices(kept)
            given = tokens.unsqueeze(1)
            self.mask = torch.cat([self.mask, torch.ones_like(given)], 1)
            if cache is None:  # a model that keeps nothing reads all of it again
                given = self.ids = torch.cat([self.ids, given], 1)
        return [self._text(one, ends) for one in made]

    def _next(self, given: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits [B, V] behind the last tokens of the rows, and what is kept of the rows."""
        taken = inspect.signature(type(self.model).forward).parameters
        options: dict[str, Any] = {"input_ids": given, "attention_mask": self.mask}
        if "position_ids" in taken:
            places = (self.mask.cumsum(1) - 1).clamp(min=0)
            options["position_ids"] = places[:, -given.shape[1] :]
        if "past_key_values" in taken:
            options |= {"past_key_values": cache, "use_cache": True}
        if "logits_to_keep" in taken:
            options["logits_to_keep"] = 1
        made = self.model(**options)
        return made.logits[:, -1], getattr(made, "past_key_values", None)

    def _ends(self) -> frozenset[int]:
        own = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        listed = own if isinstance(own, list) else [own]
        return frozenset(one for one in (*listed, self.tokenizer.eos_token_id) if one is not None)

    def _ended(self, ids: list[int], ends: frozenset[int]) -> bool:
        return not ends.isdisjoint(ids) or STOP in self._decoded(ids)

    def _text(self, ids: list[int], ends: frozenset[int]) -> str:
        # A row that was done while others went on wrote more, none of which counts.
        end = next((at for at, one in enumerate(ids) if one in ends), len(ids))
        return self._decoded(ids[:end]).partition(STOP)[0].strip()

    def _decoded(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
