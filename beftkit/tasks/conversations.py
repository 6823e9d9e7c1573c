"""Conversations: turns of several roles, as files of messages hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from beftkit.errors import BeftError
from beftkit.tasks.table import shortened

#: whose turns a model learns
ASSISTANT = "assistant"
_EXPECTED = "expected a list of {role, content}, both texts"


@dataclass(frozen=True)
class Conversation:
    """One conversation.

    Attributes:
        turns: role and content of each, in order; one at least is the assistant's, not the first.
        where: it stands, for messages.
    """

    turns: tuple[tuple[str, str], ...]
    where: str


def conversation(value: Any, column: str, where: str) -> Conversation:
    """A conversation of a file's cell: a list of messages, or JSON of one.

    Raises:
        BeftError: something else, or nothing that could be learnt.
    """
    place = f"{where}: column {column!r}"
    if isinstance(value, str):  # csv has nothing but texts
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BeftError(f"{place}: {shortened(value)}; {_EXPECTED}") from None
    if not isinstance(value, list) or not value:
        raise BeftError(f"{place}: {shortened(value)}; {_EXPECTED}")
    turns = tuple(_turn(one, f"{place}, message {n}") for n, one in enumerate(value, 1))
    if turns[0][0] == ASSISTANT:
        raise BeftError(
            f"{place}: the assistant's turn comes first, so nothing stands before it to answer; "
            "leave it out"
        )
    if all(role != ASSISTANT for role, _ in turns):
        raise BeftError(f"{place}: no turn of the role {ASSISTANT!r}, so nothing could be learnt")
    return Conversation(turns, where)


def _turn(value: Any, place: str) -> tuple[str, str]:
    known = isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )
    if not known:
        raise BeftError(f"{place}: {shortened(value)}; {_EXPECTED}")
    for key, held in value.items():
        # Parquet writes null for what a message has not.
        if key not in ("role", "content") and held not in (None, "", [], {}):
            more = f"has {shortened(key, bare=True)} as well, which would be left out"
            raise BeftError(f"{place}: {more}; {_EXPECTED}")
    try:
        value["content"].encode()
    except UnicodeEncodeError:
        raise BeftError(f"{place}: half a character (a lone \\ud...); leave it out") from None
    return value["role"], value["content"]
