"""What a model card says of use: commands and code that give the run's own numbers."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.checkpoints import model_reference
from beftkit.objectives import Objective, Use
from beftkit.registry import MAX_LENGTH
from beftkit.runs.results import Run
from beftkit.runs.said import hub_id
from beftkit.settings.train import TrainSettings
from beftkit.tasks import OUR_METRICS

#: formats that PEFT reads
PEFT_FORMATS = ("beft", "lora")
_HALVES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}
#: what stands in a card for whatever lies on the machine of who reads it
_BASE, _TOKENIZER, _DATA = "BASE", "TOKENIZER", "DATA"


@dataclass(frozen=True)
class CardUse:
    """The section on use of one adapter's card.

    Attributes:
        settings: of its run.
        run: its own.
        objective: of its task.
        place: what the card calls it.
        own_tokenizer: whether the run's tokenizer lies beside it.
    """

    settings: TrainSettings
    run: Run
    objective: Objective
    place: str
    own_tokenizer: bool

    def lines(self) -> Iterator[str]:
        """A block for a shell and one of Python."""
        s, base = self.settings, hub_id(self.settings.model)
        at = model_reference(base, s.revision) if base else _BASE
        yield "```sh"
        given = [] if base else [_BASE]
        words = [*given, "--adapter", self.place, *self.evaluated()]
        yield shlex.join(["beftkit", "evaluate", *words])
        if not s.peft:
            yield shlex.join(["beftkit", "score", at, self.place])
        yield "```"
        yield ""
        yield "```python"
        yield from self.objective.snippet(self.code())
        yield "```"

    def evaluated(self) -> Iterator[str]:
        """Flags for what the adapter does not say itself: places, and leave to run code."""
        s = self.settings
        if s.task is None:
            yield from ("--validation-file", bare(s.validation_file or "dev.jsonl"))
            if s.validation_size:  # of a file all is taken, where it might be another
                yield from ("--validation-size", str(s.validation_size))
        if s.data_dir:
            yield from ("--data-dir", _DATA)
        if self.tokenizer == _TOKENIZER:
            yield from ("--tokenizer", _TOKENIZER)
        if s.trust_remote_code:
            yield "--trust-remote-code"
        if any(name not in OUR_METRICS for name in s.metric):
            for name in s.metric:
                yield from ("--metric", bare(name))

    @property
    def tokenizer(self) -> str | None:
        """Another tokenizer than the base's, where the adapter has none; None: the base's own."""
        given = None if self.own_tokenizer else self.settings.tokenizer
        return given and (hub_id(given) or _TOKENIZER)

    def code(self) -> Use:
        """What the Python is made of."""
        s, base = self.settings, hub_id(self.settings.model)
        code = ", trust_remote_code=True" if s.trust_remote_code else ""
        where = json.dumps(base or _BASE)
        if base and s.revision:
            where += f", revision={json.dumps(s.revision)}"
        adapter = json.dumps(self.place)
        tokenizer = (json.dumps(self.tokenizer) if self.tokenizer else where) + code
        return Use(
            base=where + code,
            tokenizer=adapter if self.own_tokenizer else tokenizer,
            adapter=adapter,
            by_peft=self.run.adapter_format in PEFT_FORMATS,
            dtype='"auto"' if s.dtype == "auto" else f"torch.{s.dtype}",
            half=_HALVES.get(s.precision),
            max_length=s.max_length or MAX_LENGTH,
        )

    def blanks(self) -> list[str]:
        """What the words in capitals stand for."""
        said = [] if hub_id(self.settings.model) else [f"{_BASE}: the base model's folder."]
        if self.settings.push_to_hub is None:
            said.append("ADAPTER: this folder, or its owner/name on the hub.")
        if self.tokenizer == _TOKENIZER:
            said.append(f"{_TOKENIZER}: the folder of the tokenizer that it was trained with.")
        if self.settings.data_dir:
            said.append(f"{_DATA}: the folder of the data; without --data-dir the hub's is taken.")
        return ["", " ".join(said)] if said else []


def bare(value: Any) -> str:
    """A setting as text, a path without its folders."""
    path = Path(str(value))
    local = path.is_absolute() or (os.sep in str(value) and path.exists())
    return path.name if local else str(value)
