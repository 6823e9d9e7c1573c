"""Labels of data, mapped by name onto the classes of a head that is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from beftkit.errors import BeftError, UsageError, option
from beftkit.tasks.data import Data, Split
from beftkit.tasks.table import listed

#: Names that mean the same; a name in two lines is not the same as all of both. No numbers: which
#: class is 1 is what two sides disagree on.
SYNONYMS = (
    {"entailment", "entail", "entails"},
    {"contradiction", "contradict", "contradicts"},
    {"not_entailment", "not entailment", "not-entailment", "non_entailment", "non-entailment"},
    {"not_entailment", "no"},
    {"entailment", "yes"},
    {"neutral", "neu"},
    {"positive", "pos"},
    {"negative", "neg"},
    {"true", "yes"},
    {"false", "no"},
)
_UNNAMED = re.compile("LABEL_[0-9]+")


class LabelMisfit(BeftError):
    """Labels of the data and classes of a kept head do not go together."""


def match_labels(
    found: Sequence[str],
    names: Sequence[str],
    label_map: Mapping[str, str] | None = None,
    *,
    where: str = "the data",
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Which class of a head each label of the data is.

    By ``label_map``, else the same name, else the same but for case and surrounding blanks, else
    a synonym. Where the head's classes are unnamed (``LABEL_0``, ...), by order: whole numbers
    below their number are ids, and as many labels as classes go in the order of ``found``.

    Args:
        found: the data's labels, in their own order; fewer than the head has will do.
        names: the head's, in id order.
        label_map: label of the data -> name of the head; several may become one.
        where: the data, for messages.

    Returns:
        Label -> id, for all of ``found``; and notes: none where the labels are the head's own
        names in the head's order.

    Raises:
        BeftError: a label fits no class, or two labels one class, or ``label_map`` is wrong.
    """
    given: dict[str, int] = {}
    unused: list[str] = []
    for key, name in (label_map or {}).items():
        at, i = _nearest(key, found), _nearest(name, names)
        if i is None:
            place = option("label_map", f"{key}={name}")
            raise BeftError(f"{place}: the head's classes are {listed(names)}")
        if at is None:
            unused.append(key)
        else:
            given[found[at]] = i
    by_name = {label: _by_name(label, names) for label in found if label not in given}
    order = ""
    if not given and not any(i is not None for i in by_name.values()):
        order = _by_order(found, names, by_name)
    chosen = {label: i for label, i in by_name.items() if i is not None}
    misfits = [label for label in by_name if label not in chosen]
    if misfits:
        free = [name for i, name in enumerate(names) if i not in {*chosen.values()}] or names
        test = "; -1 marks test sets, whose answers are unpublished" if "-1" in misfits else ""
        which = "none fits" if len(misfits) == len(found) else f"no class for {listed(misfits, 4)}"
        raise LabelMisfit(
            f"{where}: labels {listed(found, 4)}, the head's {listed(names, 4)}: {which}{test}; say"
            f" which, as {option('label_map', _example(misfits, free))}"
        )
    for label, i in chosen.items():
        rivals = [repr(other) for other, j in chosen.items() if j == i]
        if len(rivals) > 1:
            raise BeftError(
                f"{where}: labels {' and '.join(rivals)} would both be the head's {names[i]!r}; say"
                f" which, as {option('label_map', _example([label], names[i:]))}"
            )
    matched = {label: given.get(label, chosen.get(label, -1)) for label in found}
    numbers = list(matched.values())
    notes: tuple[str, ...] = ()
    if unused:
        there = f"there are {listed(found, 4)}"
        notes = (f"label-map: no label {listed(unused, 4)} in the data; {there}",)
    if numbers == sorted(numbers) and list(found) == [names[i] for i in numbers]:
        return matched, notes
    pairs = [f"{label} = {i} ({names[i]})" for label, i in matched.items()]
    return matched, (f"{where}: labels as classes of the head{order}: {listed(pairs)}", *notes)


def relabel(data: Data, names: Sequence[str], label_map: Mapping[str, str] | None = None) -> Data:
    """A task's data with the classes of a head that is kept: targets are the head's ids.

    Args:
        data: whose targets are ids of its own labels.
        names: the head's, in id order. Plain numbers are ids of the task's own labels.
        label_map: see `match_labels`.

    Raises:
        BeftError: the data are for a regression, or the labels do not fit.
    """
    if not data.labels:
        raise LabelMisfit(f"{data.name}: values to predict; the head has classes {listed(names)}")
    if not label_map and {*names} == {str(i) for i in range(len(data.labels))}:
        label_map = {label: str(i) for i, label in enumerate(data.labels)}
    ids, notes = match_labels(data.labels, names, label_map, where=data.name)
    to_head = np.array([ids[label] for label in data.labels], dtype=np.int64)
    own: tuple[int, ...] = ()
    if len({*ids.values()}) == len(ids) and (to_head != np.arange(len(ids))).any():
        own_ids = {head: i for i, head in enumerate(to_head.tolist())}
        others = (i for i in range(len(names)) if i not in own_ids)
        own_ids |= {head: len(ids) + i for i, head in enumerate(others)}
        own = tuple(own_ids[i] for i in range(len(names)))

    def moved(split: Split) -> Split:
        return Split(split.texts, to_head[split.targets])

    return replace(
        data,
        labels=named_by(names, ids),
        train=None if data.train is None else moved(data.train),
        validation={name: moved(split) for name, split in data.validation.items()},
        own_ids=own,
        notes=(*data.notes, *notes),
    )


def named_by(names: Sequence[str], ids: Mapping[str, int]) -> tuple[str, ...]:
    """The classes' names: the data's, where the head has none and each class has a label."""
    if not unnamed(names) or {*ids.values()} != {*range(len(names))} or len(ids) > len(names):
        return tuple(names)
    return tuple(sorted(ids, key=lambda label: ids[label]))


def unnamed(names: Sequence[str]) -> bool:
    """Whether a head's classes have no names of their own (``LABEL_0``, ...)."""
    return all(map(_UNNAMED.fullmatch, names))


def read_label_map(text: str) -> dict[str, str]:
    """``a=b,c=d`` as a mapping.

    Raises:
        BeftError: not of this form, or a label twice.
    """
    pairs = [pair.partition("=") for pair in text.split(",")]
    labels = [label.strip() for label, _, _ in pairs]
    if not all(label and name.strip() for label, (_, _, name) in zip(labels, pairs, strict=True)):
        raise UsageError(f"{option('label_map', text)}: expected LABEL=NAME,LABEL=NAME,...")
    if len({*labels}) < len(labels):
        raise UsageError(f"{option('label_map', text)}: a label twice")
    return {label: name.strip() for label, (_, _, name) in zip(labels, pairs, strict=True)}


def plain(name: str) -> str:
    """A label without what is mostly an accident: case, surrounding and repeated blanks."""
    return " ".join(name.split()).casefold()


def _nearest(name: str, names: Sequence[str]) -> int | None:
    """The one among ``names`` that is this name, or that is but for case and blanks."""
    if name in names:
        return names.index(name)
    same = [i for i, other in enumerate(names) if plain(other) == plain(name)]
    return same[0] if len(same) == 1 else None


def _by_name(label: str, names: Sequence[str]) -> int | None:
    i = _nearest(label, names)
    if i is not None:
        return i
    means = {word for line in SYNONYMS if plain(label) in line for word in line}
    same = [i for i, name in enumerate(names) if plain(name) in means]
    return same[0] if len(same) == 1 else None


def _by_order(found: Sequence[str], names: Sequence[str], ids: dict[str, int | None]) -> str:
    """Fill in the ids where the head's classes have no names; how, for a note."""
    if not unnamed(names):
        return ""
    if {*found} <= {str(i) for i in range(len(names))}:
        ids.update({label: int(label) for label in found})
        return ", whose classes have no names, by number"
    if len(found) == len(names):
        ids.update(zip(found, range(len(names)), strict=True))
        return ", whose classes have no names, by order"
    return ""


def _example(labels: Sequence[str], names: Sequence[str]) -> str:
    return ",".join(f"{label}={name}" for label, name in zip(labels[:3], names, strict=False))
