"""``--help``: usage, what a command does, its options by topic, two examples, where more stands.

As wide as the terminal, from 60 columns to 120; nothing is cut, and no option broken in two.
"""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

#: command -> two examples, and the page that says more
EXAMPLES: dict[str, tuple[str, str, str]] = {
    "": ("beftkit demo", "beftkit score owner/base owner/tuned", "README.md"),
    "score": (
        "beftkit score owner/base owner/tuned",
        "beftkit score runs/rte/adapter --format json -o scores.json",
        "README.md",
    ),
    "inspect": (
        "beftkit inspect google-bert/bert-base-cased",
        "beftkit inspect model.safetensors --model-config config.json --format csv",
        "README.md",
    ),
    "demo": ("beftkit demo", "beftkit demo --seed 1 -o other-demo", "README.md"),
    "train": (
        "beftkit train bert-base-cased --task rte --regime low --bias v -o runs/rte",
        "beftkit train bert-base-cased --train-file train.csv --validation-file dev.csv "
        "--text-columns title,body --label-column topic --bias v -o runs/own",
        "docs/training.md",
    ),
    "evaluate": (
        "beftkit evaluate runs/rte",
        "beftkit evaluate owner/tuned --task rte --batch-size 128 --format json",
        "docs/training.md",
    ),
    "predict": (
        "beftkit predict runs/rte 'It rained.' 'It was wet.'",
        "beftkit predict runs/own --file new.csv -o answered.csv",
        "docs/using.md",
    ),
    "export": (
        "beftkit export runs/rte -o rte-model",
        "beftkit export owner/adapter --base owner/base --dtype float16 -o model",
        "docs/using.md",
    ),
    "fisher": (
        "beftkit fisher bert-base-cased --task sst2 --train-size 1000",
        "beftkit fisher bert-base-cased --train-file train.csv --head-seeds 0,1,2",
        "docs/selecting.md",
    ),
    "select": (
        "beftkit select bert-base-cased --task rte --regimes low --verify -o select-rte",
        "beftkit select bert-base-cased --train-file train.csv --validation-file dev.csv "
        "--seeds 0,1,2 -o select-own",
        "docs/selecting.md",
    ),
    "merge": (
        "beftkit merge HuggingFaceTB/SmolLM2-135M runs/chats -o merged",
        "beftkit merge models/llama owner/adapter --link -o merged --overwrite",
        "docs/using.md",
    ),
    "report": (
        "beftkit report select-rte -o report.html",
        "beftkit report select-rte select-cb --title 'Two tasks' -o report.md",
        "docs/selecting.md",
    ),
    "paper": (
        "beftkit paper table2 -o paper",
        "beftkit paper table1 --cells 'sst2-low-*' --seeds 0,1,2 --part 1/4 -o paper",
        "docs/paper.md",
    ),
    "extract": (
        "beftkit extract owner/base owner/tuned --bias v -o tuned-v",
        "beftkit extract base tuned --bias q,v --deep --format json -o tuned-qv",
        "docs/arithmetic.md",
    ),
    "average": (
        "beftkit average runs/sst2 runs/rte --head runs/sst2 -o both-for-sst2",
        "beftkit average runs/sst2 --scale 0.5 -o half",
        "docs/arithmetic.md",
    ),
    "compare": (
        "beftkit compare runs/sst2 runs/rte",
        "beftkit compare tuned-1 tuned-2 tuned-3 --base owner/base --plot cosines.svg",
        "docs/arithmetic.md",
    ),
    "survey": (
        "beftkit survey google-bert/bert-base-cased --task text-classification -o bert",
        "beftkit survey base --from checkpoints/ -o mine",
        "docs/survey.md",
    ),
}
_NARROWEST, _WIDEST, _NAMES = 60, 120, 30
#: what stays together: a default, and what is offered for one
_TOGETHER = re.compile(r"\[[^\]]{1,30}\]")


class HelpfulCommand(TyperCommand):
    """A command with a page of help like all of ours."""

    def get_help(self, ctx: Any) -> str:
        return page(self, ctx)


class HelpfulGroup(TyperGroup):
    """The same for what holds the commands."""

    def get_help(self, ctx: Any) -> str:
        return page(self, ctx)


def page(command: Any, context: Any) -> str:
    """The help of a command."""
    width = min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)
    pieces = " ".join(command.collect_usage_pieces(context))
    pieces = re.sub(r"\{(.*?)\}", r"\1", pieces).replace("...]...", "...]")
    lines = wrapped(f"Usage: {context.command_path} {pieces}", width, "", "    ")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += ["", *wrapped(" ".join(paragraph.split()), width, "  ", "  ")]
    for topic, records in _topics(command, context).items():
        lines += ["", f"{topic}:", *_listed(records, width)]
    name = "" if context.parent is None else command.name
    if name in EXAMPLES:
        *examples, more = EXAMPLES[name]
        lines += ["", "Examples:"]
        for example in examples:
            lines += _shell(example, width)
        lines += ["", *wrapped(f"More: {more} in the repository of beftkit.", width, "", "")]
    return "\n".join(lines)


def _topics(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        topic = getattr(parameter, "rich_help_panel", None) or "Options"
        if parameter.param_type_name == "argument":  # its type goes without saying
            topic, record = "Arguments", (re.sub(r" <.*>$", "", record[0]), record[1])
        found.setdefault(topic, []).append(record)
    if isinstance(command, TyperGroup):
        names = command.list_commands(context)
        each = [(name, command.get_command(context, name)) for name in names]
        shown = [(name, one.short_help or "") for name, one in each if one and not one.hidden]
        found["Commands"] = shown
    return found


def _listed(records: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Names left, what they mean right."""
    records = list(records)
    column = min(max(len(name) for name, _ in records), _NAMES if width >= 80 else 20) + 4
    lines: list[str] = []
    for name, text in records:
        first = f"  {name}"
        found = wrapped(text, width, " " * column, " " * column) if text else [""]
        if len(first) + 2 <= column:
            lines += [first.ljust(column) + found[0].lstrip(), *found[1:]]
        else:
            lines += [*wrapped(name, width, "  ", "      "), *(found if text else [])]
    return [line.rstrip() for line in lines]


def wrapped(text: str, width: int, first: str, later: str) -> list[str]:
    """Lines of a text, broken at blanks alone."""
    text = _TOGETHER.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines]


def _shell(command: str, width: int) -> list[str]:
    """A command as one copies it, its lines broken before an option."""
    lines, line = [], " "
    words = shlex.split(command)
    for at, word in enumerate(words):
        piece = shlex.quote(word)
        follows = words[at + 1 : at + 2] if word.startswith("-") else []
        needed = len(" ".join([piece, *map(shlex.quote, follows)])) + 3
        if word.startswith("-") and len(line) + needed > width:
            lines.append(f"{line} \\")
            line = "     "
        line += f" {piece}"
    return [*lines, line]
