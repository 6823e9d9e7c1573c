"""Conversations and texts to tokens, and which of these are learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from beftkit.errors import BeftError
from beftkit.objectives.prompts import CHUNK
from beftkit.objectives.templates import Rendered, render_turns, system_of_template
from beftkit.tasks import Encoded
from beftkit.tasks.conversations import Conversation
from beftkit.tasks.table import shortened


@dataclass(frozen=True)
class Passage:
    """Tokens, and which of them are learnt: as many truth values."""

    ids: list[int]
    learnt: list[bool]


def encode_texts(texts: Sequence[str], targets: Any, tokenizer: Any, max_length: int) -> Encoded:
    """One row for each text, as the tokenizer makes it; every token but the first is learnt.

    Rows that are too long keep their beginning, so that every token is learnt behind all that
    stands before it.

    Args:
        texts: N.
        targets: [N], what the objective hands on.
        tokenizer: of transformers, with a pad token.
        max_length: most tokens of a row.

    Raises:
        BeftError: a text of fewer than two tokens.
    """

    def rows() -> Iterator[Passage]:
        for begin in range(0, len(texts), CHUNK):
            some = list(texts[begin : begin + CHUNK])
            made = tokenizer(
                some, return_attention_mask=False, return_token_type_ids=False, verbose=False
            )
            for number, ids in enumerate(made["input_ids"], begin + 1):
                if len(ids) < 2:
                    raise BeftError(
                        f"example {number} of {len(texts)}: {shortened(texts[number - 1])} gives"
                        f" {len(ids)} token{'s' * (len(ids) != 1)}, of which none can be learnt; "
                        "leave it out"
                    )
                yield Passage(ids, [False, *[True] * (len(ids) - 1)])

    where = [f"example {number} of {len(texts)}" for number in range(1, len(texts) + 1)]
    return _packed(rows(), where, targets, tokenizer, max_length)


def encode_conversations(
    told: Sequence[Conversation], targets: Any, tokenizer: Any, max_length: int
) -> Encoded:
    """One row for each conversation in the tokenizer's chat template; the assistant's turns are
    learnt.

    Which tokens these are the template seldom tells: what it makes of the turns before, with its
    invitation to the assistant, is where a turn begins, and what it makes of the turns up to this
    one where it ends. A token that reaches over one of these borders is the turn's. Rows that are
    too long keep their beginning.

    Args:
        told: N.
        targets, tokenizer, max_length: as in `encode_texts`.

    Raises:
        BeftError: the tokenizer has no template or tells no places, the template refuses a
            conversation or renders its beginning otherwise than the whole, or nothing of what is
            learnt is left within ``max_length``; with file and row.
    """
    if tokenizer.chat_template is None:
        raise BeftError(
            f"{told[0].where}: messages, and the tokenizer has no chat template to write them in; "
            "give a chat model's (--tokenizer), or prompt and completion instead of messages"
        )
    if not tokenizer.is_fast:
        raise BeftError(
            f"{told[0].where}: messages, and the tokenizer does not tell which letters its tokens "
            "hold; give a fast one (tokenizer.json), or prompt and completion instead of messages"
        )
    rendered = [render_turns(tokenizer, one.turns, one.where) for one in told]
    notes = _notes(tokenizer, told, rendered)
    rows = (_passage(tokenizer, one) for one in rendered)
    where = [one.where for one in told]
    return _packed(rows, where, targets, tokenizer, max_length, notes)


def _passage(tokenizer: Any, one: Rendered) -> Passage:
    # The template writes the special tokens itself.
    made = tokenizer(
        one.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False,
        return_attention_mask=False, return_token_type_ids=False,
    )  # fmt: skip
    places = np.asarray(made["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    learnt = np.zeros(len(places), dtype=bool)
    for begin, end in one.spans:
        learnt |= (places[:, 0] < end) & (places[:, 1] > begin)
    learnt[:1] = False  # nothing stands before it
    return Passage(made["input_ids"], learnt.tolist())


def _notes(
    tokenizer: Any, told: Sequence[Conversation], rendered: Sequence[Rendered]
) -> tuple[str, ...]:
    notes = []
    bare = [one for one in told if one.turns[0][0] != "system"]
    if bare and (system := system_of_template(tokenizer, bare[0].turns)):
        count = len(bare)
        notes.append(
            f"the chat template begins {count} of {len(told)} conversations with a system message "
            f"of its own: {shortened(system)}"
        )
    if not any(one.invites for one in rendered):
        notes.append(
            "the chat template has no invitation to the assistant (add_generation_prompt): what it "
            "puts before the assistant's words is learnt too"
        )
    return tuple(notes)


def _packed(
    rows: Iterator[Passage],
    where: Sequence[str],
    targets: Any,
    tokenizer: Any,
    max_length: int,
    notes: tuple[str, ...] = (),
) -> Encoded:
    ids, learnt, lengths = list[int](), list[bool](), list[int]()
    truncated = 0
    for row, place in zip(rows, where, strict=True):
        if not any(row.learnt[:max_length]):
            raise BeftError(
                f"{place}: within {max_length} tokens (--max-length) of {len(row.ids)} none is to "
                "be learnt; raise that, or leave the row out"
            )
        truncated += len(row.ids) > max_length
        ids += row.ids[:max_length]
        learnt += row.learnt[:max_length]
        lengths.append(min(len(row.ids), max_length))
    return Encoded(
        ids=torch.tensor(ids, dtype=torch.int32),
        type_ids=None,
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])),
        first_row=torch.arange(len(lengths) + 1),
        targets=torch.as_tensor(np.asarray(targets)),
        truncated=truncated,
        pad_id=int(tokenizer.pad_token_id),
        padding_side=tokenizer.padding_side,
        notes=notes,
        learnt=torch.tensor(learnt, dtype=torch.uint8),
    )
