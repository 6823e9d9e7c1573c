"""Conversations about films, chat templates with and without marks, and models to learn them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.causal_models import byte_level, sentences, texts, wrapped, write_model

#: turns in the manner of many chat models, with a system message of its own
_TURNS = """{% if messages[0].role != 'system' %}<s>system
Be kind.</s>
{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}<s>assistant
[[{{ m.content }}</s>
]]{% else %}<s>{{ m.role }}
{{ m.content }}</s>
{% endif %}{% endfor %}{% if add_generation_prompt %}<s>assistant
{% endif %}"""
PLAIN = _TURNS.replace("[[", "").replace("]]", "")
#: the same text, and transformers itself can tell which of it is the assistant's
MARKED = _TURNS.replace("[[", "{% generation %}").replace("]]", "{% endgeneration %}")
#: what comes first depends on how many turns there are
NO_PREFIX = "{{ messages | length }} turns" + PLAIN

Turns = list[dict[str, str]]


def turns(*words: str, system: str | None = None) -> Turns:
    """User and assistant in turn, after a system message."""
    roles = ("user", "assistant")
    told = [{"role": roles[n % 2], "content": word} for n, word in enumerate(words)]
    return ([{"role": "system", "content": system}] if system else []) + told


def tokenizer(template: str | None = PLAIN) -> Any:
    made = wrapped(byte_level(texts(200, 5), "</s>"))
    made.chat_template = template
    return made


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def films(count: int, seed: int) -> list[Any]:
    """Conversations, two answers in each."""
    words = (" terrible", " great")
    told = sentences(2 * count, seed)
    pairs = zip(told[::2], told[1::2], strict=True)
    return [
        {"messages": turns(a, "It was" + words[i], b, "It was" + words[j])}
        for (a, i), (b, j) in pairs
    ]


def write_chat_model(folder: Path, family: str, template: str = PLAIN, **options: Any) -> Path:
    """An untrained model of a family with a chat template."""
    write_model(folder, family, **options)
    (folder / "chat_template.jinja").write_text(template)
    return folder
