"""What of the examples themselves makes a run's figures doubtful, and labels that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from beftkit.errors import BeftError
from beftkit.tasks import Data, Split
from beftkit.tasks.table import listed


def check_labels(data: Data) -> None:
    """Refuse files of the user's own whose labels have nothing in common.

    Raises:
        BeftError: no class of the validation examples is one of the training examples'.
    """
    if data.train is None or data.source.get("kind") != "files":
        return
    trained = _present(data.labels, data.train)
    for name, split in data.validation.items():
        held = _present(data.labels, split)
        if trained and held and not {*trained} & {*held}:
            files = f"training has labels {listed(trained, 4)}, {name} {listed(held, 4)}"
            raise BeftError(
                f"{data.name}: {files}: none in common, so that nothing learnt would count; write "
                "them alike in both files"
            )


def example_notes(
    train: Split, validation: Mapping[str, Split], labels: tuple[str, ...]
) -> tuple[str, ...]:
    """What is to be said of the examples that are trained and evaluated on.

    Args:
        train: those that were drawn.
        validation: the same, by name of the split.
        labels: names of the classes; empty where there are none.
    """
    notes = []
    trained = _present(labels, train)
    if len(trained) == 1 < len(labels):
        every = f"all {len(train)} training examples are"
        every = every if len(train) > 1 else "the only training example is"
        notes.append(f"{every} {trained[0]!r}: no other is learnt")
    for name, split in validation.items():
        lacking = [label for label in _present(labels, split) if label not in trained]
        if lacking and len(trained) > 1:
            notes.append(
                f"{name} has {listed(lacking, 4)}, and no training example is one of these"
            )
    known = {*_keys(train)}
    for name, split in validation.items():
        if again := sum(key in known for key in _keys(split)):
            notes.append(
                f"{name}: {again} of {len(split)} examples are training examples as well, which "
                "flatters its metrics"
            )
    for name, split in {"train": train, **validation}.items():
        if empty := sum(
            not all(map(str.strip, fields)) for fields in zip(*split.texts, strict=True)
        ):
            notes.append(f"{name}: {empty} of {len(split)} examples have an empty text")
    return tuple(notes)


def _present(labels: tuple[str, ...], split: Split) -> list[str]:
    """The classes of which there are examples."""
    return [labels[i] for i in np.unique(split.targets).tolist()] if labels else []


def _keys(split: Split) -> Iterator[Any]:
    """For each example what it is read as, to compare with others."""
    if split.asked:
        return ((one.prompt, one.answers) for one in split.asked)
    if split.conversations:
        return (tuple(one.turns) for one in split.conversations)
    return zip(*split.texts, strict=True)
