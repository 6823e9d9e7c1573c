"""Conversations in a tokenizer's chat template, which is a program of others.

`apply_chat_template` runs it in a sandbox of Jinja's, where it reaches nothing but what it is
given. What it makes is measured afterwards: until then a template that writes without end takes
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beftkit.errors import BeftError
from beftkit.tasks.conversations import ASSISTANT
from beftkit.tasks.table import shortened

#: letters that a rendering may have beyond so many times those of its turns
_FREE, _TIMES = 1 << 17, 16

Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Rendered:
    """A conversation as the template writes it.

    Attributes:
        text: all of it.
        spans: where in it the assistant's turns begin and end.
        invites: whether something stands before such a turn that a template writes when it is
            asked to invite the assistant.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    invites: bool


def render_turns(tokenizer: Any, turns: Turns, where: str) -> Rendered:
    """A conversation, with the places of the assistant's turns.

    Raises:
        BeftError: the template refuses it, writes far more than it was given, or begins the whole
            otherwise than it writes the beginning alone; with its place.
    """
    whole = _rendered(tokenizer, turns, where)
    spans, invites = [], False
    for number, (role, _) in enumerate(turns):
        if role != ASSISTANT:
            continue
        before = _rendered(tokenizer, turns[:number], where, invite=True)
        upto = _rendered(tokenizer, turns[: number + 1], where)
        for part, what in ((before, f"the turns before message {number + 1}"),
                           (upto, f"the turns up to message {number + 1}")):  # fmt: skip
            if not whole.startswith(part):
                raise BeftError(
                    f"{where}: {what} are written otherwise by the chat template when they stand "
                    "alone, so which tokens are the assistant's is not known; give prompt and "
                    "completion, or a template without that"
                )
        if len(upto) <= len(before):
            raise BeftError(
                f"{where}: the chat template writes nothing of message {number + 1}, the "
                "assistant's; leave it out"
            )
        invites = invites or len(before) > len(_rendered(tokenizer, turns[:number], where))
        spans.append((len(before), len(upto)))
    return Rendered(whole, tuple(spans), invites)


def system_of_template(tokenizer: Any, turns: Turns) -> str | None:
    """The system message that a template writes of its own before turns without one; None: none.

    Found by giving it another one, in whose place its own then stands.
    """
    mark = "\N{SECTION SIGN}system\N{SECTION SIGN}"
    try:
        whole = _rendered(tokenizer, turns, "")
        given = _rendered(tokenizer, [("system", mark), *turns], "")
    except BeftError:
        return None
    before, found, behind = given.partition(mark)
    if not found or not whole.startswith(before) or not whole.endswith(behind):
        return None
    return whole[len(before) : len(whole) - len(behind)].strip() or None


def _rendered(tokenizer: Any, turns: Turns, where: str, *, invite: bool = False) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=invite)
    except Exception as error:  # a program of others may raise anything
        reason = shortened(str(error) or type(error).__name__, bare=True)
        raise BeftError(f"{where}: the chat template refuses the conversation ({reason})") from None
    most = _FREE + _TIMES * sum(len(content) for _, content in turns)
    if not isinstance(text, str) or len(text) > most:
        raise BeftError(
            f"{where}: the chat template makes more than {most} letters of the conversation; give "
            "another tokenizer (--tokenizer)"
        )
    return text
