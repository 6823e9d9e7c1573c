"""Rows as a causal model is asked them: a task's, and those of files that hold whole prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from beftkit.errors import BeftError
from beftkit.registry import Layout, Prompt, Task
from beftkit.tasks.data import Split
from beftkit.tasks.nested import NESTED, unnested
from beftkit.tasks.prompts import Prompted, prompt_of, render
from beftkit.tasks.table import Table, class_ids, filled, text_column


def asked_split(task: Task, layout: Layout, table: Table) -> tuple[Split, tuple[str, ...]]:
    """A task's examples as prompts; and notes.

    Args:
        task: one that has a prompt.
        layout: how the file, or the hub, names columns and labels.
        table: the records, with the columns that the layout's ``nested`` or the prompt needs.

    Raises:
        BeftError: a row that does not fit the prompt, with its place.
    """
    prompt = prompt_of(task)
    if layout.nested:
        table = unnested(table, NESTED[layout.nested])
    else:
        names = {name: layout.renamed.get(name, name) for name in prompt.needs}
        label = {layout.label: table.columns[layout.label]} if task.labelled else {}
        own = {name: text_column(table, column) for name, column in names.items()}
        table = Table(table.where, {**own, **label}, table.lines)
    labels = class_ids(table, layout.label, task.labels, layout.raw_labels) if task.labels else None
    made = [
        _rendered(prompt, table, row, None if labels is None else int(labels[row]))
        for row in range(len(table))
    ]
    whole = Counter(one.group for one in made)
    made = [replace(one, whole=whole[one.group]) if one.group else one for one in made]
    known = [row for row, one in enumerate(made) if one.right]
    filled(table.only(known))
    notes: tuple[str, ...] = ()
    if len(known) < len(made):
        notes = (
            f"{table.where}: {len(made) - len(known)} of {len(made)} examples have no right answer"
            " and are left out",
        )
    return prompt_split([made[row] for row in known]), notes


def prompt_split(prompts: Sequence[Prompted]) -> Split:
    """N examples, each of which has a right answer.

    Targets are the numbers of the right answers, of several the first; those of texts to be written
    are the examples' own numbers.
    """
    written = any(one.gold for one in prompts)
    numbers = [row if written else one.right[0] for row, one in enumerate(prompts)]
    return Split((), np.array(numbers, dtype=np.int64), tuple(prompts))


def _rendered(prompt: Prompt, table: Table, row: int, label: int | None) -> Prompted:
    columns = {name: values[row] for name, values in table.columns.items()}
    try:
        return render(prompt, columns, label)
    except BeftError as error:
        raise BeftError(f"{table.place(row)}: {error}") from None
