"""Write docs/api.md: the public names of beftkit, from their signatures and docstrings.

.venv/bin/python docs/api.py [OUTPUT]
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import beftkit

OUTPUT = Path(__file__).with_suffix(".md")
PAGE = """\
# Python

Functions and results are to be had from `beftkit` itself. `import beftkit` costs nothing: a name is
imported when it is first asked for. Results are plain typed objects: one line in a console, their
table in a notebook, and `to_dict()` is what `--format json` prints. What the words mean:
[glossary.md](glossary.md).

Made by `.venv/bin/python docs/api.py` from the docstrings.
"""
SETTINGS = """\
What a function takes as `**settings`, by topic. A default of None is filled in as the brackets say;
flags of the command are these names with dashes (`--train-file`), and `run.yaml` and `select.yaml`
hold them under the same names."""
_SECTIONS = ("Args", "Returns", "Raises", "Example", "Settings")
_LONGEST = 96


def public() -> list[tuple[str, Any]]:
    """The front door's names, functions first."""
    found = [(n, getattr(beftkit, n)) for n in beftkit.__all__ if not n.startswith("__")]
    return sorted(found, key=lambda one: (inspect.isclass(one[1]), one[0].lower()))


def made_of(kinds: list[Any]) -> list[type]:
    """The dataclasses that results hold, and those that hold them, each once."""
    found: dict[type, None] = {}
    waiting = [*kinds]
    while waiting:
        kind = waiting.pop(0)
        waiting += get_args(kind)
        if not (inspect.isclass(kind) and is_dataclass(kind)) or kind in found:
            continue
        found[kind] = None
        waiting += [*_held(kind), *kind.__subclasses__()]
    return [*found]


def _held(kind: type) -> list[Any]:
    """Types of a dataclass's fields; nothing of one that holds other libraries' live objects."""
    try:
        return [*get_type_hints(kind).values()]
    except NameError:
        return []


def returned(function: Any) -> list[Any]:
    """What a function's annotation says it returns, where that can be looked up."""
    try:
        return [get_type_hints(function)["return"]]
    except (NameError, KeyError):
        return []


def called(name: str, function: Any) -> str:
    """A call as the source has it: its own parameters; settings as ``**settings``."""
    own = inspect.signature(function)
    words, keyword = [], False
    for one in own.parameters.values():
        if not isinstance(one.annotation, str):  # spelled out of settings: a section lists them
            continue
        if one.kind is one.KEYWORD_ONLY and not keyword:
            words.append("*")
            keyword = True
        default = "" if one.default is one.empty else f" = {one.default!r}"
        words.append(f"{one.name}: {one.annotation}{default}")
    words += ["**settings"] if len(words) - keyword < len(own.parameters) else []
    line = f"{name}({', '.join(words)}) -> {own.return_annotation}"
    if len(line) > _LONGEST:
        inner = "".join(f"    {word},\n" for word in words)
        line = f"{name}(\n{inner}) -> {own.return_annotation}"
    return f"```python\n{line}\n```"


def described(docstring: str | None) -> str:
    """A docstring as Markdown: its sections as lists, its example as code."""
    text = re.sub(r"``([^`]+)``", r"`\1`", inspect.cleandoc(docstring or ""))
    parts = re.split(rf"^({'|'.join(_SECTIONS)}):\n", text, flags=re.M)
    said = [parts[0].strip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        own = re.match(r"(?: .*\n?|\n)*", body)  # what stands below it, not after it
        assert own
        rest = body[own.end() :].strip()
        body = textwrap.dedent(own[0]).strip()
        if title == "Example":
            lines = re.sub(r"  # doctest: \+SKIP", "", body)
            said.append(f"```python\n{lines}\n```")
        elif title == "Settings":
            names = ", ".join(f"`{one.name}`" for one in listed(docstring))
            said.append(f"[Settings](#settings): {names}.")
        elif title in ("Args", "Raises"):
            head, *after = body.split("\n\n")
            said += [*([f"{title}:"] if title != "Args" else []), items(head)]
            said += map(textwrap.dedent, after)
        else:
            said.append(f"{title}: {' '.join(body.split())}")
        said.append(rest)
    return "\n\n".join(one for one in said if one)


class Setting(NamedTuple):
    """What a function may be given of its settings, as its docstring has it."""

    topic: str
    name: str
    kind: str
    default: str
    text: str


def listed(docstring: str | None) -> Iterator[Setting]:
    """The settings that a docstring lists."""
    body = inspect.cleandoc(docstring or "").partition("\nSettings:\n")[2]
    for topic in re.split(r"^(?=\S.*:$)", textwrap.dedent(body), flags=re.M)[1:]:
        head, _, rest = topic.partition(":\n")
        for entry in re.split(r"\n(?=\S)", textwrap.dedent(rest).strip()):
            words = re.fullmatch(r"(\w+) \((.*?), default (.+?)\): (.*)", " ".join(entry.split()))
            assert words, entry
            yield Setting(head, *words.groups())


def settings_text(functions: list[tuple[str, Any]]) -> list[str]:
    """Every setting once, with who takes it; twice where it is another thing there."""
    takers: dict[Setting, list[str]] = {}
    for name, one in functions:
        for setting in listed(one.__doc__):
            takers.setdefault(setting, []).append(name)
    parts = []
    for topic in dict.fromkeys(setting.topic for setting in takers):
        rows = [["setting", "type", "default", "of", ""], ["---"] * 5]
        for one, names in takers.items():
            if one.topic == topic:
                what = [f"`{one.name}`", f"`{one.kind}`", f"`{one.default}`", ", ".join(names)]
                rows.append([*what, one.text])
        lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
        parts += [f"### {topic}", "\n".join(f"| {line} |" for line in lines)]
    return parts


def items(text: str) -> str:
    """``name: what it is`` on a line, indented where it goes on, as a list."""
    entries = re.split(r"\n(?=\S)", text.strip())
    lines = [" ".join(entry.split()) for entry in entries]
    return "\n".join(re.sub(r"^([\w, ]+?)( \(.*?\))?: ", r"- `\1`\2: ", line) for line in lines)


def members(kind: type) -> Iterator[str]:
    """A class's own public methods and properties."""
    for name, one in vars(kind).items():
        if name == "__call__":
            yield f"- called, `{shape(one)}`: {summary(one)}"
        if name.startswith("_") or name == "in_short":
            continue
        if isinstance(one, property):
            yield f"- `.{name}`: {summary(one.fget)}"
        elif isinstance(one, (classmethod, staticmethod)):
            yield f"- `{kind.__name__}.{name}{shape(one.__func__)}`: {summary(one.__func__)}"
        elif inspect.isfunction(one):
            yield f"- `.{name}{shape(one)}`: {summary(one)}"


def shape(function: Any) -> str:
    """A method's parameters, without the first one."""
    parameters = [*inspect.signature(function).parameters.values()][1:]
    shown = [p.replace(annotation=p.empty) for p in parameters]
    return str(inspect.Signature(shown))


def summary(function: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    first = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join(first.split()))


def class_text(kind: type) -> list[str]:
    """What a class is, what it holds, and what it can do."""
    doc = inspect.cleandoc(kind.__doc__ or "")
    able = "\n".join(members(kind))
    told_able = ["Methods and properties:", able] if able else []
    if not is_dataclass(kind):
        return [described(doc), *told_able]
    before, _, told = doc.partition("\nAttributes:\n")
    own, _, after = told.partition("\n\n")
    texts = dict[str, str]()
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(own).strip()):
        names, _, text = " ".join(entry.split()).partition(": ")
        texts |= dict.fromkeys(names.split(", "), text)
    above = [one for one in kind.__mro__[1:] if is_dataclass(one)]
    held = {f.name: f.type for f in fields(kind) if f.name in kind.__annotations__}
    lines = [f"- as `{one.__name__}`" for one in above[:1]]
    for name, what in held.items():
        lines.append(f"- `{name}` (`{what}`)" + (f": {texts[name]}" if name in texts else ""))
    parts = [described(before), "Attributes:", described("\n".join(lines)), described(after)]
    return [*(one for one in parts if one), *told_able]


def page() -> str:
    """The whole page."""
    names = public()
    functions = [(name, one) for name, one in names if not inspect.isclass(one)]
    classes = [(name, one) for name, one in names if inspect.isclass(one)]
    parts = [PAGE.rstrip()]
    for name, one in functions:
        parts += [f"## beftkit.{name}", called(f"beftkit.{name}", one), described(one.__doc__)]
    for name, one in classes:
        parts += [f"## beftkit.{name}", *class_text(one)]
    seeds = [one for _, one in classes] + [k for _, f in functions for k in returned(f)]
    inner = [kind for kind in made_of(seeds) if kind not in [one for _, one in classes]]
    parts += ["## Settings", SETTINGS, *settings_text(functions)]
    parts += ["## What results are made of", "To be met as attributes of those above."]
    for kind in inner:
        parts += [f"### {kind.__name__}", *class_text(kind)]
    return "\n\n".join(parts) + "\n"


def main(output: Path) -> None:
    """Write the page."""
    output.write_text(page(), encoding="utf-8")
    print(f"{output}: {len(public())} names")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
