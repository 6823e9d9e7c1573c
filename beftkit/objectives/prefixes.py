"""Likelihoods of answers whose rows begin alike: what is common is computed once.

For evaluation alone: nothing here is differentiated. A batch is a tree. All its rows may begin
with the same demonstrations, and the answers of an example with its prompt; the keys and values of
such a beginning serve every row behind it. An answer of one token needs no row at all: how likely
it is, the prompt's last place tells.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import DynamicCache

from beftkit.objectives.causal import answer_log_likelihoods, exact, logits_at

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.tasks import Batch

#: tokens that all rows of a batch have to begin with before they are computed apart
LEAST_COMMON = 32
#: of the keys and values that are held at once
MOST_BYTES = 2**29
#: the longest prompt of a group is longer than its shortest by this share of it at most
_SPREAD = 1 / 8


def log_likelihoods(model: nn.Module, batch: Batch) -> Tensor:
    """`answer_log_likelihoods` of a batch, with what rows have in common computed once.

    To rounding the same. Outside inference mode every row goes through whole, for whoever takes
    gradients or watches modules (the Fisher's trial does so without gradients); likewise where a
    model's keys and values cannot be handed on.
    """
    if not torch.is_inference_mode_enabled() or model.training or not hands_on(model):
        return answer_log_likelihoods(model, batch.inputs)
    rows = _Rows.of(batch)
    if rows is None:
        return answer_log_likelihoods(model, batch.inputs)
    return _Shared(model, rows, batch.inputs["input_ids"]).found(batch.inputs["answer_at"])


def hands_on(model: nn.Module) -> bool:
    """Whether a model of transformers takes keys and values of places before, and only those."""
    config: Any = getattr(model, "config", None)
    if not type(model).__module__.startswith("transformers.") or config is None:
        return False
    taken = inspect.signature(type(model).forward).parameters
    if not {"past_key_values", "use_cache", "attention_mask"} <= {*taken}:
        return False
    text = config.get_text_config()
    kinds = {*(getattr(text, "layer_types", None) or ())}
    window = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    # What remembers by states, windows or chunks has memories of kinds of their own.
    return not (
        config.is_encoder_decoder
        or getattr(model, "_is_stateful", False)
        or kinds - {"full_attention"}
        or (window and not kinds)
    )


@dataclass(frozen=True)
class _Rows:
    """R rows of E examples, on the CPU.

    Attributes:
        index: [R], which example each is of.
        sizes: [R], its tokens.
        prompts: [R], how many of them stand before its answer.
        first: [E], the first row of each example.
        common: [E], how many tokens its rows begin with alike, none of them of an answer.
        everywhere: the same of all rows of the batch, where that is worth while; else 0.
    """

    index: Tensor
    sizes: Tensor
    prompts: Tensor
    first: Tensor
    common: Tensor
    everywhere: int

    @classmethod
    def of(cls, batch: Batch) -> _Rows | None:
        """None where rows are padded on the left, or nothing is shared."""
        ids, mask, at = (
            batch.inputs[name].cpu() for name in ("input_ids", "attention_mask", "answer_at")
        )
        if not bool(mask[:, 0].all()):
            return None
        index = torch.arange(len(ids)) if batch.index is None else batch.index.cpu()
        sizes = mask.sum(1)
        prompts = sizes - (at >= 0).sum(1)
        fresh = torch.ones_like(index, dtype=torch.bool)
        fresh[1:] = index[1:] != index[:-1]
        first = fresh.nonzero().flatten()
        alike = torch.minimum(_alike(ids, ids[first][index]), prompts)
        common = torch.full_like(first, ids.shape[1]).scatter_reduce(0, index, alike, "amin")
        everywhere = int(torch.minimum(_alike(ids, ids[:1]).min(), common.min() - 1))
        if everywhere < LEAST_COMMON or len(first) == 1:
            everywhere = 0
        if not bool(common.all()) or (not everywhere and len(first) == len(ids)):
            return None
        return cls(index, sizes, prompts, first, common, everywhere)


def _alike(rows: Tensor, others: Tensor) -> Tensor:
    """[R], how many tokens rows [R, T] begin with as others do."""
    return (rows == others).long().cumprod(1).sum(1)


class _Shared:
    """One batch's way through a model.

    What is found comes as rows, numbers of tokens of their answers, and log-likelihoods of these.
    """

    def __init__(self, model: nn.Module, rows: _Rows, ids: Tensor) -> None:
        self.model, self.rows, self.ids = model, rows, ids
        self.before: DynamicCache | None = None

    def found(self, at: Tensor) -> Tensor:
        """log p of the answers' tokens, [R, A]; ``at``: their places."""
        rows = self.rows
        if rows.everywhere:
            none = torch.tensor([0])
            self.before = DynamicCache()
            self._logits(none, 0, none + rows.everywhere, none[:, None], self.before)
        # A row that goes on behind its beginning by one token alone needs no place of its own.
        lone = torch.ones_like(rows.first, dtype=torch.bool)
        lone[rows.index[rows.sizes - 1 > rows.common[rows.index]]] = False
        parts = [part for examples in self._groups(lone) for part in self._prompts(examples)]
        parts += [part for examples in self._groups(~lone) for part in self._answers(examples)]
        row, number, value = (torch.cat(one) for one in zip(*parts, strict=True))
        made = value.new_zeros(at.shape)
        made[row.to(made.device), number.to(made.device)] = value
        return made

    def _groups(self, chosen: Tensor) -> Iterator[Tensor]:
        """Numbers of examples that go through together: of like length, and not too many."""
        rows = self.rows
        common, counts = rows.common.tolist(), torch.bincount(rows.index).tolist()
        widest = torch.zeros_like(rows.common)
        widths = widest.scatter_reduce(0, rows.index, rows.sizes, "amax").tolist()
        most = MOST_BYTES // _bytes_a_token(self.model)
        group: list[int] = []
        held = width = 0
        for one in sorted(chosen.nonzero().flatten().tolist(), key=lambda n: -common[n]):
            held, width = held + counts[one], max(width, widths[one])
            unlike = group and common[group[0]] - common[one] > _SPREAD * common[group[0]]
            if group and (unlike or held * width > most):
                yield torch.tensor(group)
                group, held, width = [], counts[one], widths[one]
            group.append(one)
        if group:
            yield torch.tensor(group)

    def _prompts(self, examples: Tensor) -> Iterator[_Part]:
        """Where all answers are one token: prompts alone, padded."""
        ends = self.rows.common[examples]
        memory = self._memory(len(examples)) if self.before else None
        yield self._at_end(examples, ends, self._ends(examples, ends, memory))

    def _answers(self, examples: Tensor) -> Iterator[_Part]:
        """Prompts up to where the shortest ends, so that no padding lies within; then each row."""
        rows = self.rows
        end = int(rows.common[examples].min())
        ends = torch.full_like(examples, end)
        memory = self._memory(len(examples)) if self.before else DynamicCache()
        yield self._at_end(examples, ends, self._ends(examples, ends, memory))
        place = _places(examples, len(rows.first))[rows.index]
        mine = ((place >= 0) & (rows.sizes - 1 > end)).nonzero().flatten()
        numbers = torch.arange(int((rows.sizes - rows.prompts)[mine].max()))
        tokens = rows.prompts[mine, None] + numbers
        there = (tokens < rows.sizes[mine, None]) & (tokens > end)
        tokens = tokens.where(there, end + 1)
        memory = _selected(memory, place[mine])
        logits = self._logits(mine, end, rows.sizes[mine] - 1, tokens - 1, memory)
        wanted = self._tokens(mine[:, None], tokens).to(logits.device)
        values = -functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), reduction="none"
        ).view_as(wanted)
        row, number = there.nonzero(as_tuple=True)
        yield mine[row], number, values[there.to(values.device)]

    def _ends(self, examples: Tensor, ends: Tensor, memory: DynamicCache | None) -> Tensor:
        """The logits [E, V] at the last places of what examples begin with."""
        first, begin = self.rows.first[examples], self.rows.everywhere
        return self._logits(first, begin, ends, (ends - 1)[:, None], memory)[:, 0]

    def _at_end(self, examples: Tensor, ends: Tensor, logits: Tensor) -> _Part:
        """The first token of each answer that begins where its example's logits [E, V] stand."""
        rows = self.rows
        place = _places(examples, len(rows.first))[rows.index]
        mine = ((place >= 0) & (rows.prompts == ends[place])).nonzero().flatten()
        tokens = self._tokens(mine, ends[place[mine]])
        logs = logits.log_softmax(-1)
        at = place[mine].to(logs.device)
        return mine, torch.zeros_like(mine), logs[at, tokens.to(logs.device)]

    def _tokens(self, rows: Tensor, places: Tensor) -> Tensor:
        return self.ids[rows.to(self.ids.device), places.to(self.ids.device)]

    def _memory(self, count: int) -> DynamicCache:
        assert self.before is not None
        return _selected(self.before, torch.zeros(count, dtype=torch.int64))

    def _logits(
        self, rows: Tensor, begin: int, ends: Tensor, places: Tensor, memory: DynamicCache | None
    ) -> Tensor:
        """The logits [n, A, V] at places [n, A] of rows [n], in the precision of likelihoods.

        Args:
            rows: whose tokens from ``begin`` to ``ends`` [n] go through.
            begin: so many places are in ``memory``.
            ends, places: counted from the rows' own beginnings.
            memory: the keys and values before; is given those that come. None: not wanted.
        """
        end = int(ends.max())
        ids = self.ids[rows.to(self.ids.device), begin:end]
        mask = (torch.arange(end) < ends[:, None]).long().to(ids.device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        return exact(logits_at(self.model, inputs, (places - begin).to(ids.device), memory))


#: rows [n], numbers of tokens of their answers [n], log-likelihoods of these [n]
_Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _places(examples: Tensor, count: int) -> Tensor:
    """[count], where among these examples each one is; -1: it is not."""
    return torch.full((count,), -1).index_put((examples,), torch.arange(len(examples)))


def _selected(memory: DynamicCache, index: Tensor) -> DynamicCache:
    """The keys and values of these rows."""
    made = DynamicCache()
    layers: list[Any] = memory.layers
    for number, layer in enumerate(layers):
        at = index.to(layer.keys.device)
        made.update(layer.keys[at], layer.values[at], number)
    return made


def _bytes_a_token(model: Any) -> int:
    """Of the keys and values of one place."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    held = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * held * size * model.dtype.itemsize)
