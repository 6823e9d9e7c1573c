"""What comes along with a merged model beside its weights, and what is left out.

A list of names decides: a tokenizer's files, transformers' configurations, licences. Code is taken
on request alone, and other forms of the weights never: they would be those before the merge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.checkpoints.copying import copy_file
from beftkit.checkpoints.local import Folder, LocalFolder
from beftkit.errors import BeftError

TOKENIZER = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(txt|json|bpe)|merges\.txt|bpe\.codes|dict\.txt|tekken\.json|normalizer\.json"
    r"|[\w.-]+\.(model|spm|tiktoken)|chat_template\.(jinja|json)"
)
_TEMPLATES = "additional_chat_templates"
_CONFIGURATION = re.compile(
    r"generation_config\.json|(video_|image_)?(pre)?processor_config\.json|feature_extractor\.json"
)
_LICENCE = re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY)([\w.-]*)?", re.IGNORECASE)
#: said of all models of the same name, so of no use beside another
_SILENT = re.compile(r"config\.json|README\.md|\.gitattributes|manifest\.json|\..*")
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|h5|msgpack|ot|onnx|gguf|ckpt)(\.index\.json)?", re.IGNORECASE
)
#: what a tokenizer writes of itself, in an order and with versions that mean nothing
_SPOKEN = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Companions:
    """Files to take along.

    Attributes:
        files: name -> the folder it is taken from.
        notes: what was left out, and which tokenizer it is.
    """

    files: Mapping[str, Folder]
    notes: tuple[str, ...]


def companions_of(
    base: Folder,
    adapter: Folder | None,
    *,
    code: bool = False,
    with_head: bool = False,
    called: str = "the one beside the adapter",
) -> Companions:
    """Choose what comes along.

    Args:
        base: the model's folder.
        adapter: the adapter's folder, whose tokenizer is taken where it is another than the base's.
        code: take Python files along.
        with_head: the result has a head over a whole text: nothing is generated, and its tokenizer
            is saved by who sets it up.
        called: what the second tokenizer is, for the notes.
    """
    names = _names(base)
    files: dict[str, Folder] = {
        name: base
        for name in names
        if _LICENCE.fullmatch(name) or (_CONFIGURATION.fullmatch(name) and not with_head)
    }
    notes = []
    if not with_head:
        tokenizer = {name: base for name in names if _is_tokenizer(name)}
        own: dict[str, Folder] = {}
        if adapter is not None:
            own = {name: adapter for name in _names(adapter) if _is_tokenizer(name)}
        if own and adapter and (differs := _differing(base, adapter, tokenizer, own)):
            notes.append(f"the tokenizer is {called}: its {differs} is not the base's")
            tokenizer = own
        files |= tokenizer
        if not tokenizer:
            notes.append("neither the base nor the adapter has a tokenizer beside it")
    python = [name for name in names if name.endswith(".py")]
    if code:
        files |= dict.fromkeys(python, base)
    elif python:
        notes.append(
            f"left out: {', '.join(python)}, the base's own code; --trust-remote-code takes it "
            "along"
        )
    known = {*files, *python}
    weights = [one for one in names if _WEIGHTS.fullmatch(one)]
    if old := [one for one in weights if not one.endswith((".safetensors", ".index.json"))]:
        notes.append(f"left out: {', '.join(old)}, other forms of the weights, as they were before")
    rest = [
        name
        for name in names
        if name not in known
        and name not in weights
        and not _SILENT.fullmatch(name)
        and not _is_tokenizer(name)
        and not _CONFIGURATION.fullmatch(name)
    ]
    if rest:
        shown = ", ".join(rest[:8]) + (", ..." if len(rest) > 8 else "")
        notes.append(f"left out, as nothing that a model needs by its name: {shown}")
    return Companions(files, tuple(notes))


def take_along(found: Companions, folder: Path) -> int:
    """Copy them into a folder; returns bytes written.

    Raises:
        OSError: the disk is full, say.
        BeftError: a file has gone, or the hub does not give it.
    """
    written = 0
    for name, source in found.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, LocalFolder):
            written += copy_file(source.path / name, target)
        else:
            target.write_bytes(data := source.whole(name))
            written += len(data)
    return written


def _is_tokenizer(name: str) -> bool:
    return bool(TOKENIZER.fullmatch(name)) or name.startswith(f"{_TEMPLATES}/")


def _names(folder: Folder) -> list[str]:
    """Names of files there, a tokenizer's further templates included."""
    if not isinstance(folder, LocalFolder):
        return folder.names()
    found = [name for name in folder.names() if (folder.path / name).is_file()]
    more = folder.path / _TEMPLATES
    if more.is_dir():
        found += sorted(f"{_TEMPLATES}/{one.name}" for one in more.iterdir() if one.is_file())
    return found


def _differing(
    base: Folder, adapter: Folder, of_base: Mapping[str, Folder], own: Mapping[str, Folder]
) -> str:
    """The first file by which the two tokenizers differ; empty: they are the same."""
    for name in sorted(own):
        if name in _SPOKEN:
            continue
        if name not in of_base:
            if name == "tokenizer.json" and any(one.startswith("vocab") for one in of_base):
                return name
            if not of_base or name.startswith("chat_template"):
                return name
            continue
        try:
            if _meaning(name, adapter.whole(name)) != _meaning(name, base.whole(name)):
                return name
        except BeftError:
            return name
    return ""


def _meaning(name: str, data: bytes) -> Any:
    """What a tokenizer's file says; how rows were cut when it was saved means nothing."""
    if name != "tokenizer.json":
        return data
    try:
        held = json.loads(data)
    except (ValueError, RecursionError):
        return data
    return {**held, "truncation": None, "padding": None} if isinstance(held, dict) else data
