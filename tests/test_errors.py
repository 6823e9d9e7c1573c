"""The two tongues of messages, near matches, and that the sources keep to the form."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

import beftkit as package
from beftkit import settings
from beftkit.errors import SWITCHES, BeftError, UsageError, option
from beftkit.spelling import OF_OTHERS, OF_ROLES, meant, nearest
from tests.test_floors import modules, room
from tests.test_options import long_options, opened


@pytest.mark.parametrize(
    ("written", "at_terminal", "in_python"),
    [
        ("lower --lr, or", "lower --lr, or", "lower lr, or"),
        ("(--resume)", "(--resume)", "(resume=True)"),
        ("--no-quotes takes", "--no-quotes takes", "quotes=False takes"),
        ("use --device=cpu: it", "use --device cpu: it", "use device='cpu': it"),
        ("--max-length=64, or", "--max-length 64, or", "max_length=64, or"),
        ("--lr=1e-30", "--lr 1e-30", "lr=1e-30"),
        ("--seeds=0,1,2 takes", "--seeds 0,1,2 takes", "seeds='0,1,2' takes"),
        ("--bias=rand:9; or", "--bias rand:9; or", "bias='rand:9'; or"),
        ("--model-config=PATH", "--model-config PATH", "model_config=PATH"),
        ("mean --precision=fp16?", "mean --precision fp16?", "mean precision='fp16'?"),
        (option("bias", "z"), "--bias z", "bias='z'"),
        (option("bias", "Q"), "--bias Q", "bias='Q'"),
        (option("bias", ""), "--bias ''", "bias=''"),
        (option("text_columns", "a b"), "--text-columns 'a b'", "text_columns='a b'"),
        (option("bias", "it's"), "--bias 'it'\"'\"'s'", 'bias="it\'s"'),
        (option("bias", "a: --lr=1 `b`"), "--bias 'a: --lr=1 `b`'", "bias='a: --lr=1 `b`'"),
        (option("train_size", 0), "--train-size 0", "train_size=0"),
        (option("seeds", (0, 1)), "--seeds 0,1", "seeds='0,1'"),
        (option("new_head", True), "--new-head True", "new_head=True"),
        (option("lr", None), "--lr None", "lr=None"),
        ("`beftkit train --resume -o x` it", "`beftkit train --resume -o x` it",
         "`beftkit train --resume -o x` it"),
        ("/a/--resume and a--b", "/a/--resume and a--b", "/a/--resume and a--b"),
        ("%s {x} \\1", "%s {x} \\1", "%s {x} \\1"),
    ],
)  # fmt: skip
def test_a_message_in_both_tongues(written: str, at_terminal: str, in_python: str) -> None:
    error = UsageError(written)
    assert error.at_terminal == at_terminal
    assert str(error) == in_python
    assert str(pickle.loads(pickle.dumps(error))) == in_python
    assert BeftError(f"x: {error.told}").at_terminal == f"x: {at_terminal}"


def test_switches_are_those_that_both_doors_have() -> None:
    typed = {
        name.removeprefix("--")
        for command in commands()
        for one in command.params
        if getattr(one, "is_flag", False)
        for name in one.opts
    }
    functions = [getattr(package, name) for name in package.__all__]
    functions = [one for one in functions if inspect.isfunction(one)]
    kinds: list[Any] = [getattr(settings, name) for name in settings.__all__]
    given = {
        name
        for one in functions
        for name, parameter in inspect.signature(one).parameters.items()
        if parameter.annotation in ("bool", bool)
    }
    given |= {n for kind in kinds for n, f in kind.model_fields.items() if f.annotation is bool}
    assert typed & {name.replace("_", "-") for name in given} == SWITCHES


def commands() -> list[Any]:
    group, context = opened()
    return [group.get_command(context, name) for name in group.list_commands(context)]


KNOWN = {name for command in commands() for name in long_options(command)}
#: words that are values where they follow an option
_VALUE = re.compile(
    r"--[a-z][a-z-]* (?:cpu|cuda|none|all|auto|last|best|lora|beft|biases|fp32|tf32|bf16|fp16|exact"
    r"|(?:b?float)\d+|magnitude|projection|[A-Z]+\b|\d)"
)


def raised(tree: ast.AST) -> Iterator[str]:
    """The constant texts of every message that is raised, joined as they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            texts = [one for one in ast.walk(node.exc) if isinstance(one, ast.Constant)]
            texts.sort(key=lambda one: (one.lineno, one.col_offset))
            yield "\0".join(one.value for one in texts if isinstance(one.value, str))


BELOW = {name: file for name, file in modules() if room(name) not in (None, "beftkit.app")}


@pytest.mark.parametrize("module", BELOW)
def test_messages_keep_to_the_form(module: str) -> None:
    """Options there are, and values behind ``=``: else Python would be told half."""
    for text in raised(ast.parse(BELOW[module].read_text("utf-8"))):
        outside = re.sub(r"`[^`]*`", "", text)
        for name in re.findall(r"(?<![\w/-])--([a-z][a-z-]+)", outside):
            assert name in KNOWN, text
        assert not _VALUE.search(outside), text


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("rtee", ["cola", "rte", "cb"], "rte"),
        ("SST-2", ["sst2", "rte"], "sst2"),
        ("Q", ["q", "k"], "q"),
        ("batch", ["exact", "batch-mean"], "batch-mean"),
        ("z", ["q", "k", "v"], None),
        ("", ["q", "k"], None),
        ("weight", ["weight_decay_of_all", "weight_norm_of_all"], None),
        ("predit", ["predict", "select"], "predict"),
    ],
)
def test_near_matches(word: str, known: list[str], found: str | None) -> None:
    assert nearest(word, known) == found
    assert meant(word, known) == (f"; did you mean {found}?" if found else "")


def test_synonyms_are_of_names_that_there_are() -> None:
    fields = {name.replace("-", "_") for name in KNOWN} | {"model"}
    fields -= {"target_modules"}  # of score, which prints them
    ours = {one.partition("=")[0] for each in OF_OTHERS.values() for one in each}
    assert ours <= fields
    assert not {*OF_OTHERS} & fields, "a name of ours needs no synonym"
    assert nearest("value", ["q", "k", "v"], OF_ROLES) == "v"
    assert nearest("valu", ["q", "k", "v"], OF_ROLES) == "v"
    assert nearest("valu", ["q", "k"], OF_ROLES) is None
    assert nearest("learning-rat", ["--lr"], OF_OTHERS) == "lr"
    assert nearest("learning-rate", ["--lrs", "--log-steps"], OF_OTHERS) == "lrs"
