"""What a source hands on: texts and targets of the splits, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.errors import BeftError
from beftkit.registry import Kind, Prompt
from beftkit.tasks.conversations import Conversation
from beftkit.tasks.prompts import Prompted

Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Split:
    """N examples.

    Attributes:
        texts: for each text field (one or two) its N strings.
        targets: [N], class ids as int64, or values as float32. Of prompts int64: the (first) right
            answer's number, or the example's where an answer is to be written.
        asked: the N examples as a causal model is asked; then there are no ``texts``. Empty where
            a head reads the texts.
        conversations: the N examples as a chat model meets them; then there is nothing else.
    """

    texts: tuple[list[str], ...]
    targets: Targets
    asked: tuple[Prompted, ...] = ()
    conversations: tuple[Conversation, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: npt.ArrayLike) -> Split:
        """The examples of these numbers, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        texts = tuple([column[i] for i in chosen.tolist()] for column in self.texts)
        asked = tuple(self.asked[i] for i in chosen.tolist()) if self.asked else ()
        told = self.conversations
        told = tuple(told[i] for i in chosen.tolist()) if told else ()
        return Split(texts, self.targets[chosen], asked, told)

    def some_texts(self, count: int) -> tuple[list[str], ...]:
        """Texts of the first examples, of each field: what a tokenizer may be tried on."""
        if self.asked:
            return ([one.prompt for one in self.asked[:count]],)
        if self.conversations:
            return ([text for one in self.conversations[:count] for _, text in one.turns],)
        return tuple(field[:count] for field in self.texts)


@dataclass(frozen=True, eq=False)
class Data:
    """A task's data.

    Attributes:
        name: of the task, or of the user's files.
        kind: of the objective that understands the targets.
        labels: names in id order; empty where there are none.
        metrics: names of `beftkit.tasks.metrics`; the first one picks the best epoch.
        train: None where only the validation was asked for.
        validation: by name of the split: one, two for MNLI, none where the user gave none.
        source: what was read, as plain JSON: ``kind`` (``hub``, ``folder`` or ``files``), the
            repository and its revision or the files by split, and ``examples`` by split.
        notes: what a user should be told about the reading, one line each.
        own_ids: for each of ``labels`` the number it has in the task's own list, where ``labels``
            are a kept head's in another order; metrics to which numbers mean something (``f1``:
            1 is the positive) want ids translated by it. Empty: the same.
        prompt: what the examples are asked, where they are asked.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train: Split | None
    validation: Mapping[str, Split]
    source: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    own_ids: tuple[int, ...] = ()
    prompt: Prompt | None = None

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Split (``train`` and those of `validation`) -> label -> examples; {} for regression."""
        splits = {} if self.train is None else {"train": self.train}
        return {
            split: dict(zip(self.labels, np.bincount(found, minlength=size).tolist(), strict=True))
            for split, found in ((n, s.targets) for n, s in {**splits, **self.validation}.items())
            if (size := len(self.labels))
        }


def subsample(split: Split, count: int, seed: int) -> Split:
    """Draw ``count`` examples without replacement, in the order drawn.

    The draw is the start of the permutation that ``numpy.random.Generator(PCG64(seed))`` gives, so
    it is the same on every machine, and a smaller draw of a seed is the beginning of a larger one.

    Raises:
        BeftError: there are not that many, or count or seed make no sense.
    """
    if not 0 < count <= len(split):
        raise BeftError(f"{count} examples asked for, but there are {len(split)} to draw from")
    if seed < 0:
        raise BeftError(f"seed {seed}: expected a whole number from 0")
    return split.take(np.random.Generator(np.random.PCG64(seed)).permutation(len(split))[:count])
