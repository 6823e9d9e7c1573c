"""How a task meets a model is known to `objectives` alone, and to the rooms of names below it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_floors import modules, room

#: rooms that may know what a head is called and which class loads it
KNOWING = {"beftkit.objectives", "beftkit.adapters", "beftkit.biases"}
#: places where "score" is a command, a column or a key, and no module of a model
SCORE_IS_NO_MODULE = {
    "beftkit": "the public function",
    "beftkit.diff": "the public function",
    "beftkit.app": "the command",
    "beftkit.app.help": "the command",
    "beftkit.tasks.own_files": "a usual column of labels",
    "beftkit.registry": "STS-B's column of labels",
    "beftkit.present.scores": "a heading",
    "beftkit.runs.card_use": "the command",
    "beftkit.present.commands": "the command",
    "beftkit.present.survey": "a heading",
}
_CLASS = re.compile(r"\b(?:AutoModelFor\w+|AutoPeftModelFor\w+|num_labels)\b")
_HEADS = {"classifier", "score"}


def knowledge(source: str) -> Iterator[str]:
    """What a module says of heads and classes: names, keywords, and strings in code."""
    tree = ast.parse(source)
    prose = {
        id(node.value) for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.keyword | ast.arg | ast.alias):
            text = next(
                str(getattr(node, key))
                for key in ("id", "attr", "arg", "name")
                if hasattr(node, key)
            )
            yield from _CLASS.findall(text)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in prose:
                continue
            yield from _CLASS.findall(node.value)
            yield from _HEADS & {*node.value.split(".")}


OTHERS = [(name, file) for name, file in modules() if room(name) not in KNOWING]


@pytest.mark.parametrize(("module", "file"), OTHERS, ids=[name for name, _ in OTHERS])
def test_nobody_else_knows_heads_and_classes(module: str, file: Path) -> None:
    allowed = {"score"} if module in SCORE_IS_NO_MODULE else set()
    assert set(knowledge(file.read_text("utf-8"))) <= allowed


@pytest.mark.parametrize(
    "source",
    [
        "from transformers import AutoModelForSequenceClassification",
        "load('x', num_labels=2)",
        "heads = ('classifier', 'out')",
        "name == 'model.score.weight'",
        "f'AutoModelForCausalLM {x}'",
        "config.num_labels",
    ],
)
def test_knowledge_is_seen(source: str) -> None:
    assert list(knowledge(source))


@pytest.mark.parametrize(
    "source", ['"""The classifier of AutoModelFor."""', "x = 'a classifier.'", "score = 1"]
)
def test_prose_is_free(source: str) -> None:
    assert not list(knowledge(source))
