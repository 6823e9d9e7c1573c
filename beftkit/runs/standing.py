"""What lets an adapter stand alone: its tokenizer beside it, and in its header what it is of.

The header (text in the file of weights) is written down here, under names of our own, and read back
as `Standing`. What it says is words: never a path to open or code to run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from beftkit.checkpoints import base_digest
from beftkit.checkpoints.based import BASE_KEY
from beftkit.errors import BeftError
from beftkit.models import load_tokenizer, quiet
from beftkit.objectives import has_head, kind_said
from beftkit.registry import TASKS, Kind, Task
from beftkit.runs.based import BaseSaid
from beftkit.runs.manifest import HALF, move_files
from beftkit.runs.prepare import Prepared
from beftkit.settings.train import TrainSettings
from beftkit.tasks import own_task
from beftkit.weights import AdapterInfo

_COLUMNS, _TOKENIZER = (f"beftkit.{name}" for name in ("columns", "tokenizer_files"))
#: examples that a saved tokenizer is tried on
_TRIED = 64
#: what no tokenizer's file may be called beside an adapter: a ``config.json`` there makes
#: transformers take the folder for a whole model
_RESERVED = ("config.json", "readme.md", "adapter_", "biases.", "manifest.json")


@dataclass(frozen=True)
class Standing:
    """What the header says beside what `beftkit.runs.said.Said` reads.

    Attributes:
        kind: of the objective, a word of the registry; None where an older version wrote it.
        task: of the registry, or a prompt of the user's own, whose texts it takes; None: other
            files of the user's own.
        columns: what the texts of those were called; one or two.
        base_given: the base as it was given to the run.
        base_digest: of its vectors, `beftkit.checkpoints.base_digest`; None: not known.
        base_is: what it is, in a few words.
        tokenizer_files: names of the tokenizer's files beside the adapter.
    """

    kind: str | None = None
    task: Task | None = None
    columns: tuple[str, ...] = ()
    base_given: str | None = None
    base_digest: str | None = None
    base_is: str | None = None
    tokenizer_files: tuple[str, ...] = ()

    @property
    def texts(self) -> int | None:
        """How many texts an example has; None: not known."""
        return len(self.templates or self.columns) or None

    @property
    def templates(self) -> tuple[str, ...]:
        """The task's texts of an example, over its columns; empty without a task."""
        task = self.task
        return task.texts_as(cast("Kind", self.kind or task.kind)) if task else ()

    @classmethod
    def of(cls, info: AdapterInfo | None) -> Standing:
        """Read from an adapter; what is not as it should be counts as not said."""
        said: Mapping[str, str] = {} if info is None else info.metadata

        def read(key: str) -> Any:
            try:
                return json.loads(said.get(key) or "null")
            except (ValueError, RecursionError):
                return None

        base = BaseSaid.of(said)
        columns, files = read(_COLUMNS), read(_TOKENIZER)
        task = TASKS.get(said.get("beftkit.task") or "")
        if task is None and (template := said.get("beftkit.template")):
            labels = read("beftkit.labels")
            names = [*map(str, labels)] if isinstance(labels, list) else []
            task = own_task(template, said.get("beftkit.choices") or "", names)
        named = tuple(map(str, columns))[:2] if isinstance(columns, list) else ()
        word = said.get("beftkit.as")
        told = kind_said(word, None if info is None else info.task_type)
        return cls(
            kind=word or (None if has_head(told) else told) or (task.kind if task else None),
            task=task,
            columns=named,
            base_given=base.given,
            base_digest=base.digest,
            base_is=base.kind,
            tokenizer_files=tuple(one for one in files if isinstance(one, str) and _own(one))
            if isinstance(files, list)
            else (),
        )


def header(ready: Prepared, settings: TrainSettings, files: Sequence[str]) -> dict[str, str]:
    """What `Standing` reads.

    Args:
        ready: the run.
        settings: its settings.
        files: the tokenizer's, beside the adapter.
    """
    config = ready.model.config
    columns = ready.data.source.get("text_columns") or ()  # a task knows its own
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    size = f"{ready.model.num_parameters():,} parameters"
    base = {
        "given": settings.model,
        "digest": base_digest(settings.model, settings.revision),
        "is": f"{config.model_type}, {f'{layers} layers, ' if layers else ''}{size}",
    }
    return {
        _COLUMNS: json.dumps(list(columns)),
        BASE_KEY: json.dumps(base),
        _TOKENIZER: json.dumps(list(files)),
    }


@contextmanager
def tokenizer_saved(ready: Prepared, folder: Path) -> Iterator[tuple[Path | None, str | None]]:
    """Save the run's tokenizer into a folder that lasts as long as this does.

    Args:
        ready: the run.
        folder: in which to make it.

    Yields:
        That folder, and a note; no folder where the tokenizer is better not beside an adapter.
    """
    work = None
    try:
        work = Path(tempfile.mkdtemp(dir=folder, prefix=HALF))
        note = _save(ready, work)
    except Exception as error:  # whatever it is, the adapter is worth more
        said = " ".join(str(error).split())[:160] or type(error).__name__
        note = f"its files could not be saved ({said})"
    try:
        kept = None if note else work
        yield kept, note and f"no tokenizer beside the adapter: {note}; the base's own is used"
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def names_in(work: Path | None) -> list[str]:
    """Names of a tokenizer's files."""
    if work is None:
        return []
    return sorted(one.relative_to(work).as_posix() for one in work.rglob("*") if one.is_file())


def put_beside(work: Path, folder: Path, name: str) -> str | None:
    """Move a tokenizer's files into an adapter's folder; a note where that fails."""
    try:
        move_files(work, folder, f"{name}/")
    except (OSError, BeftError) as error:
        return f"{folder / name}: the tokenizer's files could not be written ({error})"
    return None


def _save(ready: Prepared, work: Path) -> str | None:
    """Save it, and read it back; says what is wrong with it there."""
    tokenizer = ready.loaded.tokenizer
    if tokenizer.is_fast:  # else the last call's cut would be saved with it
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    with quiet():
        tokenizer.save_pretrained(work)
    names = names_in(work)
    config = json.loads((work / "tokenizer_config.json").read_text(encoding="utf-8"))
    if code := [name for name in names if name.endswith((".py", ".so", ".pyc"))]:
        return f"it is code of its own ({code[0]})"
    if config.get("auto_map"):
        return "it is code of its own (auto_map)"
    if foreign := [name for name in names if not _own(name)]:
        return f"it brings {foreign[0]}, which would confuse who reads adapters"
    try:
        rows = ready.model.get_input_embeddings().weight.shape[0]
    except (NotImplementedError, AttributeError):
        return (
            "PEFT asks for the model's table of tokens where there is a tokenizer, and it has none"
        )
    if len(tokenizer) > rows:
        return f"it has {len(tokenizer)} tokens, the model {rows}, which PEFT would make grow"
    again = load_tokenizer(str(work))
    split = ready.data.train or next(iter(ready.data.validation.values()))
    texts = split.some_texts(_TRIED)
    ours, theirs = (one(*texts, verbose=False)["input_ids"] for one in (tokenizer, again))
    same = ours == theirs and tokenizer.pad_token_id == again.pad_token_id
    return None if same else "saved and read back it gives other tokens"


def _own(name: str) -> bool:
    """Whether a file of this name may be a tokenizer's, beside an adapter."""
    plain = name.lower()
    parts = plain.split("/")
    if "\\" in plain or "\0" in plain or not all(parts) or {".", ".."} & {*parts}:
        return False
    return len(parts) <= 2 and not plain.startswith(_RESERVED) and not plain.startswith(".")
